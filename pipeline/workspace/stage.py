"""One run of a stage: skip it when its outputs are current, say why it is rerun, and write the ledger last.

    run = StageRun(workspace, folder, stage="dedup", version=1, config=settings, inputs=inputs, progress=progress)
    if report := run.skipped():
        return report
    run.begin()                                              # the ledger is deleted; now outputs may change
    ...
    return run.finish(outputs=paths, counts=counts, check_books=partial(check, counts))

In: stage, version, settings and input digests, which decide the outputs. Out: ledger, timings and a `Report`.
Invariants: `finish` needs `begin`, and `begin` needs a `skipped` that returned None; so no stage changes outputs that
are current, or that a ledger calls whole. Books that do not balance leave no ledger.
Cost: outputs and inputs are hashed once, see `Workspace.digest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace import ledger as ledgers
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Ledger, Report, Stopwatch


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
    fingerprint: str = field(init=False)
    """Identity of the work, for shards to carry."""
    before: Ledger | None = field(init=False)
    """The ledger of the last finished run."""
    reasons: list[str] = field(init=False)
    """Why finished outputs are stale; a stage may add reasons until it calls `skipped`."""
    _digest: Callable[[Path], str] | None = field(init=False)
    _is_due: bool = field(default=False, init=False)
    _has_begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.fingerprint = ledgers.fingerprint(self.stage, self.version, self.config, self.inputs)
        self.before = ledgers.read_ledger(self.folder)
        self._digest = None if self.by_size else self.workspace.digest
        self.reasons = ledgers.changes(self.before, self.folder, self.version, self.config, self.inputs, self._digest)

    @property
    def is_current(self) -> bool:
        """Whether the stage is finished and nothing has changed since."""
        return self.before is not None and not self.reasons

    def skipped(self) -> Report | None:
        """The report when the stage is current; else None, after saying why it is rerun. Removes leftovers."""
        remove_leftovers(self.folder)
        if self.before is not None and self.is_current:
            return Report(ledger=self.before, folder=self.folder, skipped=True)
        self._is_due = True
        for reason in self.reasons:
            self.progress.say(f"rerunning {self.workspace.relative(self.folder)} because {reason}")
        return None

    def begin(self) -> None:
        """Delete the ledger, before the first output changes; a second call does nothing.

        Damaged outputs are deleted first, while the ledger tells them apart, so that no later run keeps them.
        """
        if not self._is_due:
            raise RuntimeError("call skipped() before begin(), and return the report that it gives")
        if self._has_begun:
            return
        self._has_begun = True
        with disk_errors(self.folder):
            for name, _ in ledgers.output_changes(self.before, self.folder, self._digest) if self.before else ():
                path = self.folder / name
                if path.is_relative_to(self.folder) and ".." not in PurePosixPath(name).parts:
                    path.unlink(missing_ok=True)
            (self.folder / ledgers.LEDGER).unlink(missing_ok=True)

    def restore(self) -> bool:
        """Put the ledger back that `begin` deleted, if every output is still as it says; returns whether it is there.

        For a stage that can do no more and has changed nothing that was there.
        """
        if self.before is None or any(ledgers.output_changes(self.before, self.folder, self._digest)):
            return False
        if self._has_begun:
            write_atomic(self.folder / ledgers.LEDGER, self.before.to_json())
        return True

    def keep_current(
        self, shards: Iterable[Path], metadata: Callable[[Path], tuple[str, Mapping[str, Any]] | None]
    ) -> dict[str, Mapping[str, Any]]:
        """Counts of the finished shards of this very work, by name in the folder; all other `shards` are deleted.

        `metadata` gives the fingerprint and counts that a shard carries; None for one that is damaged or not wanted.
        """
        self.begin()
        kept = {}
        with disk_errors(self.folder):
            for path in shards:
                found = metadata(path) if path.is_file() else None  # `begin` deletes damaged ones
                if found is not None and found[0] == self.fingerprint:
                    kept[path.relative_to(self.folder).as_posix()] = found[1]
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
        """Check the books, hash the outputs and write the ledger.

        `check_books` raises BooksError unless all that went in came out or was dropped for a reason; it is None for a
        stage that passes nothing on. `timings.json` holds `timings` and the seconds; `notes` and `details` are for the
        report alone.
        """
        if not self._has_begun:
            raise RuntimeError("call begin() before finish(), and before the first output changes")
        if check_books is not None:
            check_books()
        ledger = Ledger(
            stage=self.stage, dataset=self.dataset, version=self.version, config=self.config, inputs=self.inputs,
            outputs=self.workspace.file_digests(outputs, self.folder), counts=counts, fingerprint=self.fingerprint,
        )  # fmt: skip
        ledgers.write_ledger(self.folder, ledger, {"seconds": self.watch.seconds, **(timings or {})})
        return Report(
            ledger=ledger, folder=self.folder, reasons=tuple(self.reasons), notes=tuple(notes),
            seconds=self.watch.seconds, details=details or {},
        )  # fmt: skip
