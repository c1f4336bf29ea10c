"""A workspace in a storage whose pieces are made on another machine, which has a working copy of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.store import open_workspace
from corpus.pipeline.workers import running_on
from tests.support import other_node
from tests.support.other_node import OtherNode
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
