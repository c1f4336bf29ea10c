"""The lock of a folder: one command writes in it, in a workspace or an export; or jobs that do the same work do.

In: a folder. Out: its `.lock`, held with flock: exclusive by a command, shared by the jobs of an array.
Invariants: an exclusive holder is alone. Shared holders do work of one kind, a word that is in `.lock`: the first
writes it while it still is alone. A process that dies, however, holds nothing.
Hosts that share a folder must see each other's locks: NFS shows them, Lustre where it is mounted with `-o flock`. Where
they do not, jobs with equal settings still write equal bytes under equal names, each file whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from corpus.pipeline.errors import BusyError, DiskError
from corpus.pipeline.workspace.files import disk_errors, write_atomic

LOCK, HOLDER = ".lock", ".lock.holder"
"""The file that is locked, which stays; and who holds it, or was the last to join those who share it."""
BEGINNING = ".lock.begin"
"""The file by which jobs that share a workspace delete a stale ledger one after another."""
WAIT_S, JOB_WAIT_S = 2.0, 30.0
"""How long a second writer waits, and a job, since hundreds of them may start at once."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
SOON_S = 1.0
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(folder: Path, command: str, *, hint: str, kind: str = "") -> Iterator[None]:
    """Lock a folder, made if it is not there, for a command; a second one waits two seconds, then raises BusyError.

    With `kind` it is held together with other jobs whose work is of that kind.

    Raises:
        BusyError: another command holds it, or jobs of another kind do.
        DiskError: the folder cannot be created or written, or its file system has no locks.

    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder / LOCK) as lock:
        end, pause = time.monotonic() + (JOB_WAIT_S if kind else WAIT_S), _FIRST_PAUSE_S
        while not _take(lock, folder, command, kind):
            if time.monotonic() > end:
                raise BusyError(f"{folder} is being written by {_read_holder(folder / HOLDER)}", hint=hint)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 1.5 * pause)
        try:
            yield
        finally:
            if not kind:
                (folder / HOLDER).unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, *, waits: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Do the block while no other process is in such a block on the same file, which stays; waits without limit.

    `waits` is called where that takes more than a second.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as lock:
        soon = time.monotonic() + SOON_S
        while not _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path):
            if time.monotonic() > soon:
                waits()
                _flock(lock, fcntl.LOCK_EX, path)
                break
            time.sleep(_FIRST_PAUSE_S)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process forked meanwhile has the file open, too


def is_free(path: Path) -> bool:
    """Whether no process holds a lock on a file, at this moment."""
    with _opened(path) as lock:
        return _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a file to lock, which no child process inherits; closing it releases the lock."""
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(lock: int, folder: Path, command: str, kind: str) -> bool:
    """Take the lock if that is possible now."""
    others = ", or another job of its array" if kind else ""
    holder = f"`corpus {command}`, process {os.getpid()} on {socket.gethostname()}{others}".encode()
    if _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, folder):
        with disk_errors(folder):
            os.ftruncate(lock, 0)
            os.pwrite(lock, kind.encode(), 0)
        if not kind:
            write_atomic(folder / HOLDER, holder)
            return True
    if not kind or not _flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB, folder):
        return False
    if os.pread(lock, 1 << 10, 0) != kind.encode():  # also where jobs of another kind came between the two locks
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
    write_atomic(folder / HOLDER, holder)
    return True


def _flock(lock: int, operation: int, path: Path) -> bool:
    """Lock an open file; False where another holds it."""
    try:
        fcntl.flock(lock, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            with disk_errors(path):
                raise
        raise DiskError(
            f"{path}: the file system has no locks (flock): {error.strerror}",
            hint="Mount it with locks (Lustre: -o flock), or put the workspace on another one with --workspace.",
        ) from error
    return True


def _read_holder(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return "another command"
