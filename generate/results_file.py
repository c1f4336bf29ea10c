"""The file of results while it grows: written aside, gone on with after an interruption, renamed when it is whole.

    FILE.part         whole windows of results, as far as they have come
    FILE.part.json    of which job, and with which seed
    FILE              all of them; an older one stays until then

Invariants: FILE is whole; FILE.part is gone on with only by the job that began it, and only from the end of a window,
so that an interruption changes no byte; one process writes it.
Cost: what an interrupted run has left is read once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from corpus.pipeline.errors import BusyError, DiskError
from corpus.pipeline.progress import SILENT, Progress

_MODE = 0o600


class Part:
    """Lines on their way to a file; use it as a context."""

    def __init__(self, target: Path, job: dict[str, Any] | None, *, progress: Progress = SILENT) -> None:
        """`job` is JSON that names all that decides the lines but the seed; None: what is there is never gone on with.

        Raises:
            DiskError: it cannot be written there.
            BusyError: another process writes it.

        """
        self.seed: int | None = None
        """The seed with which an interrupted run of this job began; None where there is none."""
        self.kept = 0
        """Lines of that run that stay."""
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._job = job
        self._progress = progress
        with self._errors():
            if target.is_dir():
                raise DiskError(f"{target} is a folder", hint="Give --output the name of a file.")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = open(self._path, "a+b", opener=_for_owner)  # noqa: SIM115  # closed by __exit__
            self._lock()
        self._is_finished = False
        self._goes_on = self._is_same()

    def __enter__(self) -> Self:
        """The part, locked."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; where it holds nothing, or no rerun could go on with it, delete it."""
        with self._errors():
            if not self._is_finished and (self._job is None or not os.fstat(self._file.fileno()).st_size):
                self._note.unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)
            self._file.close()

    def begin(self, seed: int) -> None:
        """Say with which seed; what another seed or another job has left is deleted."""
        if self._goes_on and self.seed == seed:
            if self._file.seek(0, os.SEEK_END):
                self._progress.say(f"going on with {self._path}")
            self._file.seek(0)
            return
        if self._goes_on:
            self._progress.say(f"{self._path} has the seed {self.seed}: beginning anew")
        self._goes_on = False
        with self._errors():
            self._note.unlink(missing_ok=True)
            self._file.truncate(0)
            if self._job is not None:
                _write_aside(self._note, json.dumps({"seed": seed, "job": self._job}, ensure_ascii=False).encode())

    def keep(self, lines: int) -> bool:
        """Whether the next window, of this many lines, is there whole; from the first that is not, all is new."""
        if not self._goes_on:
            return False
        with self._errors():
            start = self._file.tell()
            if all(_is_whole(self._file.readline()) for _ in range(lines)):
                self.kept += lines
                return True
            self._file.truncate(start)
        self._goes_on = False
        return False

    def write(self, line: str) -> None:
        """Append a line."""
        with self._errors():
            self._file.write(line.encode())
            self._file.flush()

    def finish(self) -> None:
        """Let the file appear under its name."""
        with self._errors():
            if self._goes_on:
                self._file.truncate(self._file.tell())
            self._file.flush()
            os.fsync(self._file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(self._file.fileno(), 0o666 & ~mask)
            self._path.replace(self._target)
            self._is_finished = True
            self._note.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Make sure that nobody else writes it, and that it has not been renamed since it was opened."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._path.exists() or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                raise BlockingIOError
        except BlockingIOError as error:
            self._file.close()
            raise BusyError(
                f"another command is writing {self._target}", hint="Wait for it, or give another --output."
            ) from error

    def _is_same(self) -> bool:
        """Whether this job began what is there; sets its seed, or says what has changed."""
        try:
            note = json.loads(self._note.read_bytes())
            before, seed = dict(note["job"]), int(note["seed"])
        except (OSError, ValueError, TypeError, KeyError):
            return False
        if self._job is None:
            return False
        job = json.loads(json.dumps(self._job))
        changed = [key for key in job if job[key] != before.get(key)]
        if changed:
            self._progress.say(f"{self._path} is of another job ({', '.join(changed)} changed): beginning anew")
            return False
        self.seed = seed
        return True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "Give --output a place with room that you may write to; the same command then goes on."
            raise DiskError(f"{error.filename or self._target}: {error.strerror}", hint=hint) from error


def _is_whole(line: bytes) -> bool:
    """Whether a line was written to its end: a machine that lost power may leave zeros."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _write_aside(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb", opener=_for_owner) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)
