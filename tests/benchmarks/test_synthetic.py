"""Synthetic signatures are those of documents with known duplicates."""

from __future__ import annotations

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks import synthetic
from tests.support.documents import Listener


def test_the_search_finds_the_duplicates_that_were_made(workspace: Workspace) -> None:
    synthetic.lay(workspace, 500, rows=200)
    listener = Listener()
    counts = dedup.run(dedup.DedupConfig(workers=1), workspace, progress=listener).ledger.counts
    assert listener.said == ["dedup: the keys of 3 of 3 shards are kept"]
    (found,) = counts["datasets"].values()
    assert found["documents"] == {"train": 500}
    assert found[dedup.EXACT] == {"train": 10 + 5}
    assert found[dedup.NEAR] == {"train": 10 + 10 + 5}
