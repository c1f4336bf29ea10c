"""The file of results: a partial file while it grows, resumed after an interruption, renamed when it is complete.

    FILE.part         the partial file: results, window by window
    FILE.part.json    its job and seed
    FILE              the complete file; an older one stays until the rename

Invariants: FILE is complete; FILE.part is resumed only by the job that started it, and only from the end of a window,
so that an interruption changes no byte; one process writes it.
Cost: a resumed partial file is read once.
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


class ResultsFile:
    """A file of lines under construction; use it as a context."""

    def __init__(self, target: Path, job: dict[str, Any] | None, *, progress: Progress = SILENT) -> None:
        """`job` is JSON with everything that determines the lines except the seed; with None the file is never resumed.

        Raises:
            DiskError: it cannot be written there.
            BusyError: another process writes it.

        """
        self.seed: int | None = None
        """The seed of an interrupted run of this job; None without one."""
        self.kept = 0
        """Lines of that run that are kept."""
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
        self._resumes = self._is_same()

    def __enter__(self) -> Self:
        """The partial file, locked."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; delete it where it is empty or no rerun could resume it."""
        with self._errors():
            if not self._is_finished and (self._job is None or not os.fstat(self._file.fileno()).st_size):
                self._note.unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)
            self._file.close()

    def begin(self, seed: int) -> None:
        """Set the seed; results of another seed or job are deleted."""
        if self._resumes and self.seed == seed:
            if self._file.seek(0, os.SEEK_END):
                self._progress.say(f"resuming {self._path}")
            self._file.seek(0)
            return
        if self._resumes:
            self._progress.say(f"rerunning all prompts because {self._path} has the seed {self.seed}")
        self._resumes = False
        with self._errors():
            self._note.unlink(missing_ok=True)
            self._file.truncate(0)
            if self._job is not None:
                with open(self._note, "wb", opener=_for_owner) as note:  # an incomplete note matches no job
                    note.write(json.dumps({"seed": seed, "job": self._job}, ensure_ascii=False).encode())
                    note.flush()
                    os.fsync(note.fileno())

    def keep(self, lines: int) -> bool:
        """Whether the next window, of this many lines, is complete; from the first incomplete one all lines are new."""
        if not self._resumes:
            return False
        with self._errors():
            start = self._file.tell()
            if all(_is_whole(self._file.readline()) for _ in range(lines)):
                self.kept += lines
                return True
            self._file.truncate(start)
        self._resumes = False
        return False

    def write(self, line: str) -> None:
        """Append a line."""
        with self._errors():
            self._file.write(line.encode())
            self._file.flush()

    def finish(self) -> None:
        """Rename the complete file to its name."""
        with self._errors():
            if self._resumes:
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
        """Lock it; a file that was renamed since it was opened belongs to another command."""
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
        """Whether the partial file is of this job; sets its seed, or reports what has changed."""
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
            self._progress.say(
                f"rerunning all prompts because {', '.join(changed)} changed since {self._path} was written"
            )
            return False
        self.seed = seed
        return True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "Give --output a place with room that you may write to; the same command then resumes."
            raise DiskError(f"{error.filename or self._target}: {error.strerror}", hint=hint) from error


def _is_whole(line: bytes) -> bool:
    """Whether a line is complete JSON: a power failure may leave zeros."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)
