"""The lock of a folder: one command writes in it at a time, in a workspace or in the folder of an export."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from corpus.pipeline.errors import BusyError
from corpus.pipeline.workspace.files import disk_errors, write_atomic

LOCK, HOLDER = ".lock", ".lock.holder"
"""The file that is locked, which stays; and who holds it, while it does."""
_WAIT_S = 2.0


@contextlib.contextmanager
def locked(folder: Path, command: str, *, hint: str) -> Iterator[None]:
    """Lock a folder, made if it is not there, for a command; a second one waits two seconds, then raises BusyError.

    Raises:
        BusyError: another command holds it.
        DiskError: the folder cannot be created or written.

    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
    holder = folder / HOLDER
    try:
        with disk_errors(folder):
            lock.acquire(timeout=_WAIT_S)
    except filelock.Timeout as error:
        raise BusyError(f"{folder} is being written by {_read_holder(holder)}", hint=hint) from error
    try:
        write_atomic(holder, f"`corpus {command}`, process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return "another command"
