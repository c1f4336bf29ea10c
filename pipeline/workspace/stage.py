"""One run of a stage: skip it when its outputs are current, say why it is rerun, and write the ledger last.

    run = StageRun(workspace, folder, stage="dedup", version=1, config=settings, inputs=inputs, progress=progress)
    if report := run.skipped():
        return report
    run.begin()                                              # the ledger is deleted; now outputs may change
    ...
    return run.finish(outputs=paths, counts=counts, check_books=partial(check, counts))

In: stage, version, settings and input digests, which decide the outputs; receipts of its pieces. Out: ledger, timings
and a `Report`.
Invariants: `finish` needs `begin`, and `begin` needs a `skipped` that returned None; so no stage changes outputs that
are current, or that a ledger calls whole. Books that do not balance leave no ledger.
Cost: inputs are hashed once, see `Workspace.digest`; so are outputs of which no receipt tells. An output with a receipt
is neither opened nor read, unless it has changed since its receipt was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace import ledger as ledgers
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Ledger, Report, Stopwatch
from corpus.pipeline.workspace.receipts import Found, Output, Receipt
from corpus.pipeline.workspace.remote import Remote, fetched, remote_of
from corpus.pipeline.workspace.share import Share, ShareReport

Identified = tuple[str, Mapping[str, Any]]
"""Fingerprint and counts of a finished shard."""
Metadata = Callable[[Path], Identified | None]
"""Reads them from the shard itself; None for one that is damaged."""


@dataclass(slots=True)
class StageRun:
    """One run of a stage; the caller holds `workspace.writing()`.

    Creating it compares `folder` with its ledger and changes nothing; an unreadable ledger raises WorkspaceError.
    """

    workspace: Workspace
    folder: Path
    """Where the stage writes its outputs, `ledger.json` and `timings.json`."""
    _: KW_ONLY
    stage: str
    version: int
    """Version of what the stage does: outputs of another version are stale."""
    config: Mapping[str, Any]
    """All settings that decide the outputs."""
    inputs: Sequence[FileDigest]
    """All files that decide the outputs."""
    dataset: str | None = None
    """The dataset, for a stage that works on one."""
    by_size: bool = False
    """Whether outputs are compared by size alone, not by digest."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    """Started when the run began, where work precedes this object."""
    progress: Progress = SILENT
    share: Share | None = None
    """The pieces that are made, when jobs share the stage: it then deletes no other's files, and does not finish."""
    fingerprint: str = field(init=False)
    """Identity of the work, for shards to carry."""
    before: Ledger | None = field(init=False)
    """The ledger of the last finished run."""
    reasons: list[str] = field(init=False)
    """Why finished outputs are stale; a stage may add reasons until it calls `skipped`."""
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False)
    """Rows of each row group or record batch of the outputs whose receipts were taken, by path."""
    _digest: Callable[[Path], str] | None = field(init=False)
    _is_due: bool = field(default=False, init=False)
    _has_begun: bool = field(default=False, init=False)
    _told: dict[str, FileDigest] = field(default_factory=dict, init=False)
    """Outputs whose receipts were taken, by path."""

    def __post_init__(self) -> None:
        self.fingerprint = ledgers.fingerprint(self.stage, self.version, self.config, self.inputs)
        self._digest = None if self.by_size else self.workspace.digest
        self.before, self.reasons = self._compared()

    def _compared(self) -> tuple[Ledger | None, list[str]]:
        """The ledger of the last finished run, and what has changed since."""
        before = ledgers.read_ledger(self.folder)
        try:
            found = ledgers.changes(before, self.folder, self.version, self.config, self.inputs, self._digest)
        except FileNotFoundError:
            if self.share is None:
                raise
            return self._compared()  # another job has begun meanwhile: it deletes the ledger, too
        return before, found

    @property
    def is_current(self) -> bool:
        """Whether the stage is finished and nothing has changed since."""
        return self.before is not None and not self.reasons

    def skipped(self) -> Report | None:
        """The report when the stage is current; else None, after saying why it is rerun. Removes leftovers."""
        self.remove_leftovers()
        if self.before is not None and self.is_current:
            if self.share is None:
                receipts.delete_all(self.folder)  # of a run that was killed after it wrote the ledger
            return Report(ledger=self.before, folder=self.folder, skipped=True)
        self._is_due = True
        if self.workspace.remote is not None:
            self._bring(self.workspace.remote)
        for reason in self.reasons:
            self.progress.say(f"rerunning {self.workspace.relative(self.folder)} because {reason}")
        return None

    @property
    def _remote(self) -> Remote | None:
        return remote_of(self.folder)

    def _bring(self, remote: Remote) -> None:
        """Bring what the stage reads, and of its own former outputs those that it may keep without a receipt."""
        remote.fetch_inputs(self.inputs, self.progress)
        if self._remote is None:  # an export, which lies outside
            return
        remote.fetch_beside(self.folder, self.progress)
        if self.before is not None and self.share is None and self.keeps(self.before):
            damaged = dict(ledgers.output_changes(self.before, self.folder, None))
            whole = [output for output in self.before.outputs if output.path not in damaged]
            remote.fetch(self.folder, whole, self.progress)

    def keeps(self, before: Ledger) -> bool:
        """Whether outputs of a former run may be current: of the same work, or of a part of it."""
        return before.fingerprint == self.fingerprint or bool(before.counts.get("batches")) or self.stage == "quality"

    def remove_leftovers(self) -> None:
        """Delete what killed writers left in the folder; nothing beside other jobs, whose files these may be."""
        if self.share is None:
            remove_leftovers(self.folder)

    def begin(self) -> None:
        """Delete the ledger, before the first output changes; a second call does nothing.

        Damaged outputs are deleted first, while the ledger tells them apart, so that no later run keeps them. Of jobs
        that share the stage the first does so, before any of them writes an output.
        """
        if not self._is_due:
            raise RuntimeError("call skipped() before begin(), and return the report that it gives")
        if self._has_begun:
            return
        self._has_begun = True
        if self.before is None:
            return
        with disk_errors(self.folder), self.workspace.beginning() if self.share else contextlib.nullcontext():
            if self.share and ledgers.read_ledger(self.folder) is None:
                return  # another job was first
            for name, _ in ledgers.output_changes(self.before, self.folder, self._digest):
                path = self.folder / name
                if path.is_relative_to(self.folder) and ".." not in PurePosixPath(name).parts:
                    path.unlink(missing_ok=True)
            ledgers.delete_ledger(self.folder)

    def restore(self) -> bool:
        """Put the ledger back that `begin` deleted, if every output is still as it says; returns whether it is there.

        For a stage that can do no more and has changed nothing that was there.
        """
        if self.before is None or any(ledgers.output_changes(self.before, self.folder, self._digest)):
            return False
        if self._has_begun:
            ledgers.restore_ledger(self.folder, self.before)
            receipts.delete_all(self.folder)
        return True

    def take(self, receipt: Receipt) -> Receipt:
        """Take the receipt of a piece that was just made, or is whole: `finish` does not read its outputs."""
        if self._remote is not None:
            with disk_errors(self.folder):
                receipts.keep(self.folder, receipt)
        for output in receipt.outputs:
            self.tell(output.digest)
            self.groups[output.path] = output.groups
        return receipt

    def output_of(self, path: Path, groups: tuple[int, ...]) -> Output:
        """What a receipt says of an output that an earlier run has written, with rows in such groups."""
        digest = self.workspace.file_digest(path, self.folder)
        return Output(digest.path, digest.bytes, digest.sha256, groups)

    def tell(self, output: FileDigest) -> None:
        """Note the digest of an output that was hashed while it was written."""
        path = self.folder / output.path
        with disk_errors(self.folder):
            if (self._remote is None or path.exists()) and path.stat().st_size == output.bytes:
                self.workspace.remember_digest(path, output.sha256)
        self._told[output.path] = output

    def finished_pieces(self, work: str = "") -> dict[str, Receipt]:
        """The receipts of the finished pieces of this very work, or of `work` where they have their own, by piece.

        For a stage that reads what its pieces have written: of a workspace in a storage that is brought.
        """
        self.begin()
        own = [found for found in receipts.read_all(self.folder) if found.receipt.work == (work or self.fingerprint)]
        whole = {found.receipt.piece: self.take(found.receipt) for found in own if self._is_whole(found)}
        fetched(self.folder, [output.digest for receipt in whole.values() for output in receipt.outputs])
        return whole

    def shards(self, pattern: str) -> list[Path]:
        """The shards that are here under such names, or that a receipt names, where they are in a storage."""
        found = {*self.folder.glob(pattern)}
        if self._remote is not None:
            names = [output.path for each in receipts.read_all(self.folder) for output in each.receipt.outputs]
            depth = pattern.count("/")
            found |= {self.folder / name for name in names if name.count("/") == depth and fnmatch(name, pattern)}
        return sorted(found)

    def identified(self, shards: Iterable[Path], metadata: Metadata) -> Iterator[tuple[Path, Identified | None]]:
        """Fingerprint and counts of shards, of any work: by their receipts, or else as `metadata` reads them.

        None for a shard that is damaged, or is no longer what its receipt tells.
        """
        whole, changed = dict[str, Receipt](), set[tuple[str, str]]()
        for found in receipts.read_all(self.folder):
            receipt, is_whole = found.receipt, self._is_whole(found)
            for output in receipt.outputs:
                if is_whole:
                    whole[output.path] = receipt
                else:
                    changed.add((output.path, receipt.work))
        for path in shards:
            name = path.relative_to(self.folder).as_posix()
            if name in whole:
                receipt = self.take(whole[name])
                yield path, (receipt.work, receipt.counts)
            else:
                carried = metadata(path) if path.is_file() else None  # `begin` deletes damaged ones
                yield path, carried if carried and (name, carried[0]) not in changed else None

    def _is_whole(self, found: Found) -> bool:
        """Whether the outputs are as their receipt tells; one that has changed since then is hashed."""
        for output in found.receipt.outputs:
            path = self.folder / output.path
            try:
                stat = path.stat()
            except OSError:
                if self._remote is None:
                    return False
                continue  # it is in the storage, where it came before the receipt
            is_untouched = max(stat.st_mtime_ns, stat.st_ctime_ns) <= found.written_ns
            if stat.st_size != output.bytes or not (is_untouched or self.workspace.digest(path) == output.sha256):
                if self._remote is None:
                    return False
                path.unlink(missing_ok=True)
        return True

    def is_there(self, work: str, piece: str, adopt: Callable[[], Receipt | None] | None = None) -> bool:
        """Whether a piece of a share is finished: by its receipt, or without one as `adopt` reads its outputs.

        `adopt` gives the receipt that the piece should have, and it gets that.
        """
        found = receipts.read(self.folder, work, piece)
        if found is not None:
            return self._is_whole(found)
        receipt = adopt() if adopt else None
        return receipt is not None and bool(receipts.write(self.folder, receipt))

    def keep_current(
        self, shards: Iterable[Path], metadata: Metadata, works: Mapping[str, str] | None = None
    ) -> dict[str, Mapping[str, Any]]:
        """Counts of the finished shards of this very work, by name in the folder; all other `shards` are deleted.

        `metadata` gives the fingerprint and counts that a shard carries; None for one that is damaged or not wanted.
        `works` are the fingerprints of the shards that are wanted, by name, where they are not the stage's.
        """
        self.begin()
        kept = {}
        with disk_errors(self.folder):
            for path, found in self.identified(shards, metadata):
                name = path.relative_to(self.folder).as_posix()
                if found is not None and found[0] == (self.fingerprint if works is None else works.get(name)):
                    kept[name] = found[1]
                else:
                    path.unlink(missing_ok=True)
        if kept:
            self.progress.say(f"{self.workspace.relative(self.folder)}: {len(kept)} finished shards are kept")
        return kept

    def finish(
        self,
        *,
        outputs: Iterable[Path],
        counts: Mapping[str, Any],
        check_books: Callable[[], object] | None,
        timings: Mapping[str, Any] | None = None,
        notes: Iterable[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> Report:
        """Check the books, write the ledger, and delete the receipts, whose digests it holds.

        `check_books` raises BooksError unless all that went in came out or was dropped for a reason; it is None for a
        stage that passes nothing on. `timings.json` holds `timings` and the seconds; `notes` and `details` are for the
        report alone.
        """
        if not self._has_begun or self.share:
            raise RuntimeError("call begin() before finish(), and before the first output changes, without a share")
        if check_books is not None:
            check_books()
        ledger = Ledger(
            stage=self.stage, dataset=self.dataset, version=self.version, config=self.config, inputs=self.inputs,
            outputs=self._digests(outputs), counts=counts, fingerprint=self.fingerprint,
        )  # fmt: skip
        ledgers.write_ledger(self.folder, ledger, {"seconds": self.watch.seconds, **(timings or {})})
        receipts.delete_all(self.folder)
        return Report(
            ledger=ledger, folder=self.folder, reasons=tuple(self.reasons), notes=tuple(notes),
            seconds=self.watch.seconds, details=details or {},
        )  # fmt: skip

    def note_pieces(self, pieces: int, works: Iterable[str]) -> None:
        """Note how many pieces the stage has; `works` are the fingerprints of their work."""
        receipts.write_plan(self.folder, self.fingerprint, pieces, works)

    def noted_pieces(self) -> int | None:
        """How many pieces the stage has, where a job has noted it."""
        return receipts.planned_pieces(self.folder, self.fingerprint)

    def already_finished(self) -> ShareReport:
        """The report of a job that finds the stage finished and current."""
        share, dataset = self._shared()
        return ShareReport(
            stage=self.stage, dataset=dataset, folder=self.folder, share=share, finished=True,
            seconds=self.watch.seconds,
        )  # fmt: skip

    def _shared(self) -> tuple[Share, str | None]:
        if self.share is None:
            raise RuntimeError("a stage without a share is finished by finish()")
        return self.share, self.dataset

    def shared(
        self, *, pieces: int, made: int, kept: int, works: Iterable[str], notes: Sequence[str] = ()
    ) -> ShareReport:
        """The report of a job whose share is done; notes how many pieces the stage has."""
        share, dataset = self._shared()
        self.note_pieces(pieces, works)
        return ShareReport(
            stage=self.stage, dataset=dataset, folder=self.folder, share=share, pieces=pieces, made=made, kept=kept,
            seconds=self.watch.seconds, notes=notes,
        )  # fmt: skip

    def _digests(self, outputs: Iterable[Path]) -> list[FileDigest]:
        """What a ledger says of the outputs: as receipts tell it, and by hashing those that no receipt names."""
        names = {path: path.relative_to(self.folder).as_posix() for path in outputs}
        hashed = self.workspace.file_digests((path for path in names if names[path] not in self._told), self.folder)
        found = self._told | {each.path: each for each in hashed}
        return [found[name] for name in names.values()]
