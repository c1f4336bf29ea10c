"""Files that appear whole or not at all: written aside, fsynced, renamed.

Invariants: a reader never sees a partial file under its final name; a killed writer leaves only
`.NAME.HOST-PID-RANDOM.tmp`, a name that no other process on any host takes, and which `remove_leftovers` deletes; a
disk that refuses raises a DiskError, which says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from corpus.pipeline.errors import DiskError

_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it
UNFINISHED_MODE = 0o600
"""Mode of a partial file: only its owner may open it."""
FINISHED_MODE = 0o666 & ~_UMASK
"""Mode of a whole file: as the user's umask says."""
_HOST = re.sub(r"\W", "_", socket.gethostname(), flags=re.ASCII)[:32]
_OF_ANOTHER_HOST_S = 3600.0
"""A partial file of another host that was written to more recently is left alone."""


def json_lines(path: Path) -> list[Any]:
    """The values of a file of JSON Lines, empty when there is no file. A half-written line is skipped."""
    lines: list[Any] = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with atomic(path) as file:
        file.write(data)


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write small files by their names in a folder, in this order, each whole or not at all; returns their paths."""
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` when the block ends without an exception."""
    with aside(path) as file:
        yield file
    settle(Path(file.name), path)


class HashedFile(io.BufferedWriter):
    """A binary file that is hashed while it is written from its beginning to its end."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._digest = hashlib.sha256()
        self.bytes = 0
        """Bytes written so far."""
        self.groups: list[int] = []
        """Rows of each row group, for the writer to note."""

    def write(self, data: Any) -> int:
        """Write and hash."""
        written = super().write(data)
        self._digest.update(data)
        self.bytes += written
        return written

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written, in hexadecimal."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that waits beside `path` for `settle`, which another process may call."""
    with _aside(path, io.BufferedWriter) as file:
        yield file


@contextlib.contextmanager
def hashed(path: Path) -> Iterator[HashedFile]:
    """As `aside`, and hashed while it is written."""
    with _aside(path, HashedFile) as file:
        yield file


_Writer = TypeVar("_Writer", bound="io.BufferedWriter[Any]")


@contextlib.contextmanager
def _aside(path: Path, kind: Callable[[io.FileIO], _Writer]) -> Iterator[_Writer]:
    beside = _beside(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with kind(io.FileIO(beside, "w", opener=open_for_owner)) as file:
                yield file
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def settle(beside: Path, path: Path, *, sync: bool = True) -> None:
    """Fsync a file that is written to its end, and rename it to `path`.

    Without `sync` a power failure can tear it: for a file that is then known to be torn, and made again.
    """
    with disk_errors(path):
        try:
            with beside.open("r+b") as file:
                if sync:
                    os.fsync(file.fileno())
                with contextlib.suppress(OSError):  # not every file system has modes
                    os.fchmod(file.fileno(), FINISHED_MODE)
            beside.replace(path)
            if sync:
                fsync(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """The path of an empty file beside `path` that is deleted when the block ends."""
    beside = _beside(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch(mode=UNFINISHED_MODE)
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left in a folder; the caller holds its workspace alone.

    On this host no other writer is alive then. One on another host can be, where the file system does not show the
    locks of one host to the other, so what it wrote within the last hour stays.
    """
    with disk_errors(folder):
        for path in folder.rglob(".*.tmp"):
            if not _may_be_written(path):
                path.unlink(missing_ok=True)


def _may_be_written(path: Path) -> bool:
    """Whether a partial file may belong to a writer that is alive on another host."""
    writer = re.search(r"\.(\w*)-\d+-[0-9a-f]{8}\.tmp$", path.name, flags=re.ASCII)
    if writer is None or writer[1] == _HOST:
        return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < _OF_ANOTHER_HOST_S
    return False


def open_for_owner(path: str, flags: int) -> int:
    """An opener for `open`: a new file is readable and writable by its owner alone."""
    return os.open(path, flags, UNFINISHED_MODE)


def fsync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a DiskError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a Timeout is an OSError too
            raise
        hint = {
            errno.ENOSPC: "Free some room, or put the workspace on another disk with --workspace, and run again.",
            errno.EDQUOT: "Your quota is used up: free some room, or use another --workspace.",
            errno.EFBIG: "The file system or a limit (ulimit -f) does not allow a file of this size.",
            errno.ENOENT: "Give a --workspace that can be made there.",
            errno.EROFS: "The file system is read-only: give a --workspace on one that can be written.",
            errno.EACCES: "You may not write there: give a --workspace of your own.",
            errno.EPERM: "You may not write there: give a --workspace of your own.",
            errno.ENAMETOOLONG: "Give a shorter --workspace path.",
            errno.ENOTDIR: "A part of the path is a file: give another --workspace.",
            errno.EEXIST: "A file lies where a folder is needed: give another --workspace.",
            errno.EIO: "The disk itself fails: put the workspace on another one.",
        }.get(error.errno, "")
        raise DiskError(f"{error.filename or path}: {error.strerror}", hint=hint) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of a read into a DiskError; without permission it names the outermost folder that refuses."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        place = Path(error.filename or path)
        hint = "A part of the path is a file: move it away." if isinstance(error, NotADirectoryError) else ""
        if isinstance(error, PermissionError):
            folders = [folder for folder in reversed(place.parents) if not os.access(folder, os.R_OK | os.X_OK)]
            place = folders[0] if folders else place
            hint = "You may not read it: run the command as its owner, or let the owner give you the right to (chmod)."
        raise DiskError(f"{place} cannot be read: {error.strerror}", hint=hint) from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{os.urandom(4).hex()}.tmp")
