"""A workspace with rankings and a model to start from; a network that is fast to train."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from corpus.pipeline.tokenizer import files
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.presets import PRESETS
from tests.support.packed import lay_tokenizer
from tests.support.rankings import NARROW, causal, lay_rankings, toy


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two datasets of toy rankings; `models/start` is a narrow model. Runs are added, nothing else is written."""
    workspace = Workspace(tmp_path_factory.mktemp("ranked") / "workspace")
    lay_tokenizer(workspace)
    lay_rankings(workspace, "demo", {"train": toy(96, seed=1), "validation": toy(24, seed=2), "test": toy(24, seed=3)})
    lay_rankings(workspace, "wiki2019zh", {"train": toy(16, seed=4)})
    start = workspace.models / "start"
    causal(scale=1.0).save_pretrained(start)
    for name, content in files.of_model(workspace.tokenizer).items():
        (start / name).write_bytes(content)
    (start / "run.json").write_text(json.dumps({"config": {"model": "tiny"}}))
    return workspace


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """Two narrow layers under the name of `tiny`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], **NARROW))
        yield
