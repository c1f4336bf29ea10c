"""One job's share of the rows: `corpus pack --shard I/N`.

In: `documents/<dataset>/` and `tokenizer/`, both finished. Out: the shards and receipts of every N-th unit.
Invariants: units are divided before the first is packed, so a unit has the number, the bytes and the receipt that a run
without a share gives it. What describes the rows is written by the run that finishes.
Cost: as the stage, for the units of the share.
"""

from __future__ import annotations

from functools import partial

from corpus.pipeline import workers as pool
from corpus.pipeline.pack.shard import Unit
from corpus.pipeline.pack.stage import PackConfig, delete_beside, prepare
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.row_shards import ROWS_PER_BATCH, rows_metadata
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun


def run(config: PackConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Pack the units of a share; the caller holds `workspace.sharing()`.

    Raises:
        WorkspaceError, DamageError, WorkerError, DiskError, BooksError: as the stage.

    """
    ready = prepare(config, workspace, progress, share)
    stage = ready.stage
    if stage.skipped():
        return stage.already_finished()
    units = ready.units()
    stage.begin()
    delete_beside(stage.folder)
    works = [unit.identity or stage.fingerprint for unit in units]
    stage.note_pieces(len(units), works)
    own = [(unit, work) for number, (unit, work) in enumerate(zip(units, works, strict=True)) if share.has(number)]
    due = [unit for unit, work in own if not stage.is_there(work, unit.piece, partial(_receipt_of, stage, unit, work))]
    notes = dict[str, None]()
    with pool.kept(), progress.bar(f"{config.dataset}: rows, share {share}", len(due), "shards"):
        missing = ready.with_left_out(due)
        workers = pool.worker_count(config.workers, len(missing))
        if missing:
            work, _ = ready.work(workers, len(missing))
            for packed in pool.run_pieces(work, missing, workers=workers):
                notes |= {packed.warning: None} if packed.warning else {}
                progress.advance(1)
    return stage.shared(
        pieces=len(units), made=len(due), kept=len(own) - len(due), works=works, notes=tuple(notes)
    )  # fmt: skip


def _receipt_of(stage: StageRun, unit: Unit, work: str) -> Receipt | None:
    """The receipt of a unit that an earlier run has packed, from its shard; None where it is of other work."""
    path = stage.folder / unit.file
    found = rows_metadata(path)
    if found is None or found[0] != work:
        return None
    full, rest = divmod(found[1]["rows"], ROWS_PER_BATCH)
    groups = (*[ROWS_PER_BATCH] * full, *([rest] if rest else []))
    return Receipt(work=work, piece=unit.piece, outputs=(stage.output_of(path, groups),), counts=found[1])
