"""Two processes under gloo fine-tune as one does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from tests.support.packed import lay_tokenizer
from tests.support.runs import history
from tests.support.task_items import toy_records, write_task
from tests.support.training import start_several


def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    """Of 21 items one step is short, and a pass of a process is empty."""
    workspace = Workspace(tmp_path / "workspace")
    lay_tokenizer(workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    task = write_task(tmp_path, toy_records({"train": 21, "validation": 11}), splits=("train", "validation"))
    settings: dict[str, Any] = {
        "objective": "task", "task": str(task), "model": "tiny", "epochs": 1.0, "batch_size": 8, "dropout": 0.0,
        "micro_batch_size": 2, "learning_rate": 1e-3, "log_steps": 1, "save_steps": 3, "threads": 1, "run": "one",
    }  # fmt: skip
    process = start_several(settings | {"init": "none"}, other, processes=2)
    one = run(TrainConfig(**settings), workspace)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    two = read_ledger(other.models / "one")
    assert two
    assert two.fingerprint == one.ledger.fingerprint
    for mine, theirs in zip(history(one.folder), history(other.models / "one"), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() & {"loss", "grad_norm", "toy/loss", "accuracy"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4), name
    assert two.counts["validation"]["toy"]["confusion"] == one.ledger.counts["validation"]["toy"]["confusion"]
