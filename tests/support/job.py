"""One job of an array in small pieces, or the run that finishes: what the kill tests of shares start and kill.

Arguments: the workspace, `ingest` or `pack`, and the share, or `all`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import IngestConfig
from corpus.pipeline.documents import share as documents
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.pack import PackConfig
from corpus.pipeline.pack import share as rows
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share

CLEANING = IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=6000, signatures=True)
ROWS = PackConfig(dataset="baike2018qa", workers=1, seq_length=64, unit_characters=2000)


def work(workspace: Workspace, stage: str, share: str) -> None:
    """Do a share of a stage, or finish it."""
    if share == "all":
        with workspace.writing(stage):
            if stage == ingest.STAGE:
                ingest.run(CLEANING, workspace)
                dedup.run(dedup.DedupConfig(workers=1), workspace)  # as `corpus ingest` does
            else:
                pack.run(ROWS, workspace)
        return
    with workspace.sharing(f"{stage} --shard {share}", stage):
        if stage == ingest.STAGE:
            documents.run(CLEANING, workspace, Share.parse(share))
        else:
            rows.run(ROWS, workspace, Share.parse(share))


if __name__ == "__main__":
    work(Workspace(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
    print("done")
