"""Files that appear whole or not at all: written aside, synced, renamed.

Invariants: a reader never sees a half-written file under its final name; what a killed writer left is named `.NAME.PID.tmp`
and removed by `remove_leftovers`; what a disk refuses becomes a DiskError that says what to do.
"""

from __future__ import annotations
import contextlib
import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
import filelock
from corpus.pipeline.errors import BusyError, DiskError, WorkspaceError

def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


UNFINISHED_MODE = 0o600
"""Who may open a file that is not whole yet: nobody else."""
FINISHED_MODE = 0o666 & ~_umask()
"""Who may open it under its final name: whom the user's umask allows."""


def json_lines(path: Path) -> list[Any]:
    """The whole lines of a file of JSON Lines, none when there is no file; a line that was only half written is passed
    over.
    """
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
    """Write a small file so that it is there whole or not at all."""
    with atomic(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends without an exception: aside, fsync, rename."""
    with aside(path) as file:
        yield file
    settle(Path(file.name), path)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that `settle` puts under `path`: another process may, and the writer need not wait for the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb", opener=_for_owner) as file:  # Path.open takes no opener
                yield file
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def settle(beside: Path, path: Path) -> None:
    """Put a file that is written to its end under its name, once it is on the disk."""
    with disk_errors(path):
        try:
            with beside.open("r+b") as file:
                os.fsync(file.fileno())
                with contextlib.suppress(OSError):  # not every file system has modes
                    os.fchmod(file.fileno(), FINISHED_MODE)
            beside.replace(path)
            fsync(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Where to write a file that is gone when the block ends; `remove_leftovers` takes it if the process is killed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch(mode=UNFINISHED_MODE)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, UNFINISHED_MODE)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left aside; only for a folder whose workspace is held."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into a DiskError that says what to do."""
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


def fsync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
