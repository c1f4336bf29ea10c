"""A share of the signing of documents: jobs leave what one run leaves."""

from __future__ import annotations

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.copies import lay, make, sample
from tests.support.shares import emptied, leave_what_one_run_leaves

CONFIG = DedupConfig(workers=1)


def job(workspace: Workspace, share: Share) -> ShareReport:
    return workflow.dedup(Workspace(workspace.root), share, CONFIG)


def test_shares_leave_what_one_run_leaves(workspace: Workspace) -> None:
    lay(workspace, sample())
    leave_what_one_run_leaves(
        workspace.dedup, lambda share: job(workspace, share), lambda: dedup.run(CONFIG, Workspace(workspace.root)),
        lambda: emptied(workspace.dedup), seed=2, counts=(5,),
    )  # fmt: skip


def test_signatures_that_are_there_get_the_receipts_of_their_makers(workspace: Workspace) -> None:
    """Those of ingest, or of a run whose lists are stale; one that is damaged is made again."""
    lay(workspace, sample())
    make(workspace)
    (workspace.dedup / "clusters.parquet").unlink()
    damaged = workspace.dedup / "bands" / "demo" / "part-00002.parquet"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    adopted = job(workspace, Share(1, 1))
    assert (adopted.made, adopted.kept) == (1, adopted.pieces - 1)
    told = [found.receipt.to_json() for found in receipts.read_all(workspace.dedup)]
    emptied(workspace.dedup)
    assert job(workspace, Share(1, 1)).made == adopted.pieces
    assert [found.receipt.to_json() for found in receipts.read_all(workspace.dedup)] == told
    why = [row.why for row in survey(Workspace(workspace.root)) if row.area == "dedup"]
    assert why == [f"{adopted.pieces} of {adopted.pieces} pieces are there"]
