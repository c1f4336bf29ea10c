"""One job's share of the stage that turns records into documents: `corpus ingest --shard I/N`.

In: the files of `raw/<dataset>/`. Out: the shards and receipts of every N-th piece.
Invariants: a piece has the number, the bytes and the receipt that a run without a share gives it. Its number depends on
the files before it, so each job cuts all files, and skips the pieces of others.
Cost: as the stage, for the pieces of the share. A job that finds no restart points of a deflated file unpacks it once,
6 ms a MB; of a file of another compression each job unpacks all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from corpus.pipeline.documents.stage import IngestConfig, Plan, plan_of, prepare, shard_metadata, size_of
from corpus.pipeline.documents.transform import piece_name
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.read.pieces import count_pieces, renumbered
from corpus.pipeline.read.spans import Piece
from corpus.pipeline.storage.document_shards import part_name, row_groups
from corpus.pipeline.workers import run_pieces
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun


def run(config: IngestConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Make the pieces of a share; the caller holds `workspace.sharing()`.

    Raises:
        WorkspaceError: the dataset has not been downloaded.
        DamageError, ArchiveError, SourceError, ShapeError, WorkerError, DiskError: as the stage.

    """
    stage, manifest = prepare(config, workspace, progress, share)
    if stage.skipped():
        return stage.already_finished()
    plan = plan_of(config, manifest, stage)
    stage.begin()
    return _Making(config, plan, stage, share).run()


class _Making:
    """The run of a share."""

    def __init__(self, config: IngestConfig, plan: Plan, stage: StageRun, share: Share) -> None:
        self.config, self.plan, self.stage, self.share = config, plan, stage, share
        self.pieces = self.kept = self.made = 0
        self.works: list[str] = []

    def run(self) -> ShareReport:
        plan, progress, notes = self.plan, self.stage.progress, list[str]()
        workers = plan.workers(self.config, self.share.count)
        if not plan.grows:
            self._note_count()
        with progress.bar(f"{self.config.dataset}: documents, share {self.share}", None, "B"):
            for batch in plan.batches:
                work = plan.identity(batch, self.stage, self.pieces)
                self.works.append(work)
                pieces = renumbered(plan.cut(batch, self.config.piece_bytes, notes), self.pieces)
                for _ in run_pieces(partial(plan.make, identity=work), self._missing(pieces, work), workers=workers):
                    self.made += 1
        return self.stage.shared(pieces=self.pieces, made=self.made, kept=self.kept, works=self.works, notes=notes)

    def _note_count(self) -> None:
        """Note how many pieces there are before the first is made, where no file must be read for that."""
        pieces = count_pieces(self.plan.raw, self.plan.files, self.config.piece_bytes)
        if pieces is not None:
            self.stage.note_pieces(pieces, [self.stage.fingerprint])

    def _missing(self, pieces: Iterator[Piece], work: str) -> Iterator[Piece]:
        """The pieces of the share that are not there; counts all pieces."""
        for piece in pieces:
            self.pieces += 1
            if self.share.has(piece.number):
                self.stage.progress.advance(size_of(piece))
                name = piece_name(piece.number)
                if self.stage.is_there(work, name, partial(_receipt_of, self.stage, piece.number, work)):
                    self.kept += 1
                else:
                    yield piece


def _receipt_of(stage: StageRun, number: int, work: str) -> Receipt | None:
    """The receipt of a piece that an earlier run has finished, from its shards; None where they are of other work."""
    path = stage.folder / part_name(number)
    found = shard_metadata(path)
    if found is None or found[0] != work:
        return None
    written = [path, *([stage.folder / "rejected" / path.name] if found[1]["dropped"] else [])]
    outputs = tuple(stage.output_of(each, row_groups(each)) for each in written)
    return Receipt(work=work, piece=piece_name(number), outputs=outputs, counts=found[1])
