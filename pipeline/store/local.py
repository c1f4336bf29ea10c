"""Whole objects on a disk, and in the memory of this process.

Invariants: as in `store.objects`; a file is written aside, fsynced and renamed, and one that must not be there yet is
linked in place of renamed, which fails where it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.pipeline.store.objects import Store
from corpus.pipeline.workspace.files import FINISHED_MODE, atomic, fsync

_ENDING = ".tmp"


class LocalStore(Store):
    """Files below a folder."""

    @property
    def can_create(self) -> bool:
        """Always."""
        return True

    @property
    def _writes_whole(self) -> bool:
        return True

    def _put(self, key: str, data: bytes) -> None:
        path = Path(self._path(key))
        with _aside(path, data) as beside:
            beside.replace(path)
        fsync(path.parent)

    @property
    def _uploads_whole(self) -> bool:
        return True

    def _upload(self, key: str, path: Path) -> None:
        with path.open("rb") as source, atomic(Path(self._path(key))) as target:
            shutil.copyfileobj(source, target)

    def _create(self, key: str, data: bytes) -> None:
        path = Path(self._path(key))
        with _aside(path, data) as beside:
            os.link(beside, path)
        fsync(path.parent)

    def _is_whole(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        return not (name.startswith(".") and name.endswith(_ENDING))

    def _tag(self, info: dict[str, Any]) -> str:
        return f"{info['ino']}-{info['size']}-{info['mtime']}"


class MemoryStore(Store):
    """Objects in memory, whose file system looks and writes in two steps."""

    _creating = threading.Lock()

    @property
    def can_create(self) -> bool:
        """Always."""
        return True

    def _create(self, key: str, data: bytes) -> None:
        with self._creating:
            super()._create(key, data)

    def _tag(self, info: dict[str, Any]) -> str:
        created = info["created"]  # in a listing a date, and the time of the modification is not in it
        return f"{info['size']}-{created if isinstance(created, float) else created.timestamp()}"


@contextlib.contextmanager
def _aside(path: Path, data: bytes) -> Iterator[Path]:
    """A file beside `path` with these bytes, on the disk; it is deleted in the end where it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(_ENDING, f".{path.name}.", path.parent)  # a name for each thread
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            with contextlib.suppress(OSError):  # not every file system has modes
                os.fchmod(descriptor, FINISHED_MODE)
        yield beside
    finally:
        beside.unlink(missing_ok=True)
