"""Restart points of a dataset's large compressed files: which hold, and who notes those that are missing.

In: the files of records. Out: `raw/<dataset>/.restart/`.
Invariant: documents do not depend on them.
Cost: noting the points of a file takes a worker 6 ms a MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from corpus.pipeline.documents.batches import name_below_raw
from corpus.pipeline.read.pieces import note_restarts, without_restarts
from corpus.pipeline.read.raw_files import name_of
from corpus.pipeline.read.restart_files import MOST_FED, Restarts
from corpus.pipeline.read.spans import RecordFile
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.stage import StageRun


def restarts_of(raw: Path, stage: StageRun, workers: int) -> Restarts:
    """The restart points of a dataset, for so many workers, or one for each core when 0."""
    slots = worker_count(workers, None) * (stage.share.count if stage.share else 1)
    digests = {name_of(name_below_raw(entry)): entry.sha256 for entry in stage.inputs}
    return Restarts(raw=raw, digests=digests, ranges=slots > MOST_FED)


def note_missing(restarts: Restarts, files: Sequence[RecordFile], piece_bytes: int, workers: int) -> None:
    """Let workers note the missing restart points, a file each, where there are files enough for all of them.

    Of fewer files the points are noted by the process that cuts them, while workers make the first pieces.
    """
    missing = without_restarts(files, piece_bytes, restarts) if restarts.ranges else []
    if len(missing) >= workers:
        for _ in run_pieces(
            partial(note_restarts, piece_bytes=piece_bytes, restarts=restarts), missing, workers=workers
        ):
            pass
