"""One job of an array in small pieces, or the run that finishes: what the kill tests of shares start and kill.

Arguments: the workspace, `ingest`, `decontaminate`, `pack` or `export`, and the share, or `all`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corpus.pipeline.decontaminate import DecontaminateConfig
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import IngestConfig
from corpus.pipeline.documents import share as documents
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.export import stage as export
from corpus.pipeline.export.config import ExportConfig
from corpus.pipeline.pack import PackConfig
from corpus.pipeline.pack import share as rows
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share

CLEANING = IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=6000, signatures=True)
ROWS = PackConfig(dataset="baike2018qa", workers=1, seq_length=64, unit_characters=2000)


ITEMS = "items.jsonl"
"""Evaluation items beside the workspace."""


def searching(workspace: Workspace) -> DecontaminateConfig:
    return DecontaminateConfig(against=(workspace.root.parent / ITEMS,), workers=1)


def exporting(workspace: Workspace) -> ExportConfig:
    """Into a folder beside the workspace."""
    place = workspace.root.with_name(f"{workspace.root.name}-exported")
    return ExportConfig("megatron", place, workers=1, unit_characters=2000)


def work(workspace: Workspace, stage: str, share: str) -> None:
    """Do a share of a stage, or finish it."""
    if share == "all":
        with workspace.writing(stage):
            _finish(workspace, stage)
        return
    with workspace.sharing(f"{stage} --shard {share}", stage):
        if stage == ingest.STAGE:
            documents.run(CLEANING, workspace, Share.parse(share))
        elif stage == decontaminate.STAGE:
            decontaminate.run_share(searching(workspace), workspace, Share.parse(share))
        elif stage == export.STAGE:
            export.run_share(exporting(workspace), workspace, Share.parse(share))
        else:
            rows.run(ROWS, workspace, Share.parse(share))


def _finish(workspace: Workspace, stage: str) -> None:
    if stage == ingest.STAGE:
        ingest.run(CLEANING, workspace)
        dedup.run(dedup.DedupConfig(workers=1), workspace)  # as `corpus ingest` does
    elif stage == decontaminate.STAGE:
        decontaminate.run(searching(workspace), workspace)
    elif stage == export.STAGE:
        export.run(exporting(workspace), workspace)
    else:
        pack.run(ROWS, workspace)


if __name__ == "__main__":
    work(Workspace(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
    print("done")
