"""Signatures that ingest makes while it has the texts are those that dedup makes from the shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from corpus.pipeline import workflows
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.signatures.files import AREAS, Signing
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import Listener, tree


def signed(workspace: Workspace) -> dict[str, bytes]:
    return {name: data for name, data in tree(workspace.dedup).items() if name.split("/")[0] in AREAS}


def test_ingest_and_dedup_make_the_same(tmp_path: Path) -> None:
    with_ingest, alone = Workspace(tmp_path / "one"), Workspace(tmp_path / "two")
    workflows.ingest(with_ingest, datasets=["demo"])
    workflows.ingest(alone, datasets=["demo"], dedup=False)
    assert not alone.dedup.exists()
    with alone.writing("dedup"):
        dedup.run(DedupConfig(), alone)
    assert {name.split("/")[0] for name in signed(alone)} == set(AREAS)
    assert tree(with_ingest.dedup) == tree(alone.dedup)


def test_dedup_takes_the_signatures_of_ingest(tmp_path: Path) -> None:
    workspace, listener = Workspace(tmp_path), Listener()
    workflows.ingest(workspace, datasets=["demo"], progress=listener)
    assert any("the keys of" in line and "are kept" in line for line in listener.said)
    shards = len(list(workspace.documents("demo").glob("part-*.parquet")))
    assert f"dedup: the keys of {shards} of {shards} shards are kept" in listener.said


def test_of_another_threshold_they_are_made_anew(tmp_path: Path) -> None:
    workspace, listener = Workspace(tmp_path), Listener()
    workflows.ingest(workspace, datasets=["demo"])
    with workspace.writing("dedup"):
        dedup.run(DedupConfig(threshold=0.9), workspace, progress=listener)
    assert not any("are kept" in line for line in listener.said)
    keys, bands = Signing(workspace.dedup, "demo").places("part-00000.parquet")
    assert pq.read_metadata(bands).num_rows >= pq.read_metadata(keys).num_rows
