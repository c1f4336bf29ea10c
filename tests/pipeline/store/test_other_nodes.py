"""A workspace in a storage whose pieces are made on another machine, which has a working copy of its own."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from corpus.pipeline import workflows
from corpus.pipeline.dedup import DedupConfig
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.quality import QualityConfig
from corpus.pipeline.quality import stage as quality
from corpus.pipeline.store import open_workspace
from corpus.pipeline.workers import running_on
from corpus.pipeline.workspace.layout import Workspace
from tests.support import other_node
from tests.support.other_node import OtherNode
from tests.support.outputs import outputs
from tests.support.remote import differing, expected, lay_source, objects, walk

pytestmark = pytest.mark.skipif(bool(other_node.missing()), reason=f"no mount namespaces: {other_node.missing()}")


def test_pieces_of_another_machine_end_with_the_same_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache, url = lay_source(tmp_path / "source", records=24), tmp_path / "cache", f"file://{tmp_path}/far"
    monkeypatch.setenv("CORPUS_CACHE", str(cache))
    node = OtherNode(cache, **os.environ)
    workspace = open_workspace(url)
    with running_on(node):
        walk(workspace, source, seq_length=32)
        walk(workspace, source)  # rows of other bytes under the same names
    assert not differing(objects(url), expected(tmp_path / "alone", source))
    assert not list(workspace.packed("baike2018qa").glob("*/*.arrow"))  # the rows were not needed here
    ingest, pack = node.seen[0], node.seen[-1]
    folder = f"workspaces/{workspace.root.name}"
    assert {f"{folder}/raw/baike2018qa/baike2018qa.zip"} <= ingest
    assert {f"{folder}/documents/baike2018qa/part-00000.parquet", f"{folder}/tokenizer/tokenizer.json"} <= pack
    assert not any("/raw/" in name or "/rejected/" in name for name in pack)


def test_machine_with_another_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = lay_source(tmp_path / "source", records=24), tmp_path / "cache"
    monkeypatch.setenv("CORPUS_CACHE", str(cache))
    workspace = open_workspace(f"file://{tmp_path}/far")
    node = OtherNode(cache, **os.environ | {"CORPUS_CACHE": str(tmp_path / "other")})
    with running_on(node), pytest.raises(WorkspaceError, match=f"working copies in {tmp_path}/other") as caught:
        walk(workspace, source)
    assert f"CORPUS_CACHE={cache}" in str(caught.value.hint)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_pieces_of_another_machine_read_what_the_command_has_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, good = tmp_path / "items.jsonl", tmp_path / "good.jsonl"
    items.write_text('{"question": "长江全长六千三百多公里，是亚洲第一长河，也是世界第三长河。"}\n', encoding="utf-8")
    texts = (f"这是第{number}段讲历史与地理的文字，写得很清楚。" for number in range(300))
    good.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.setenv("CORPUS_CACHE", str(tmp_path / "cache"))
    url, node = f"file://{tmp_path}/far", OtherNode(tmp_path / "cache", **os.environ)

    def stages(workspace: Workspace) -> None:
        workflows.ingest(workspace, datasets=["demo"], against=[items], workers=1)
        with workspace.writing("dedup"):
            dedup.run(DedupConfig(workers=1, threshold=0.8), workspace)
        with workspace.writing("quality"):
            quality.run(QualityConfig(positive=(str(good),), workers=1), workspace)

    with running_on(node):
        stages(open_workspace(url))
    stages(Workspace(tmp_path / "alone"))
    assert not differing(objects(url), outputs(tmp_path / "alone"))
    read = {name.partition("/")[2].partition("/")[2] for seen in node.seen for name in seen}
    assert {"decontaminate/evals/items.jsonl", "quality/model.safetensors"} <= read
