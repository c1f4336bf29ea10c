"""Files of a store that are fetched ahead of those who read them, within the bound of the cache.

In: needs, that is files with the positions at which reading begins and ends to need them, in that order; and the
position of each reading process of this machine. Out: links in a view, which appear when a file is there.
Invariants: of the processes of a machine one fetches; a file that a reader may still need keeps its link, the cache
deletes others alone; what is fetched and not yet read has at most the bytes of the bound. A failure ends every reader.
Cost: a thread; a lock and a few small files beside the view.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.errors import CorpusError, StoreError
from corpus.pipeline.store.cache import Cache, CachedFile, View
from corpus.pipeline.store.objects import Store
from corpus.pipeline.workspace.files import write_atomic

_READERS, _FAILED, _LEADS = ".readers", ".failed", ".fetches"
_POSITION = struct.Struct("<q")
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class FileNeed:
    """Files that are read from one position up to another."""

    begin: int
    end: int
    files: tuple[CachedFile, ...]


class Reader:
    """The position of a process that reads files of a view; its lock is the kernel's, so a killed one has none."""

    def __init__(self, view: View, position: int) -> None:
        folder = view.root / _READERS
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{os.getpid()}-{time.monotonic_ns()}"
        beside = self.path.with_name(f".{self.path.name}")
        self._descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.at(position)
        beside.rename(self.path)
        self.close = weakref.finalize(self, _unlock, self._descriptor)

    def at(self, position: int) -> None:
        """Files that are needed before this position alone may go."""
        os.pwrite(self._descriptor, _POSITION.pack(position), 0)


def slowest(view: View) -> int | None:
    """The least position of the processes that read a view; None where no process does."""
    positions = []
    for path in (view.root / _READERS).glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                positions.append(_POSITION.unpack(os.pread(descriptor, _POSITION.size, 0))[0])
            finally:
                os.close(descriptor)
    return min(positions, default=None)


def wait_for(path: Path, root: Path) -> None:
    """Wait until a file is there in the view of this folder.

    Raises:
        StoreError: it cannot be fetched.

    """
    while not path.exists():  # the link, and what it leads to
        with contextlib.suppress(FileNotFoundError):
            failure = json.loads((root / _FAILED).read_bytes())
            raise StoreError(failure["message"], hint=failure["hint"])
        time.sleep(_PAUSE_S)


class FetchAhead:
    """Fetches the files of `needs` in a thread, if no other process of this machine does for this view.

    `kept` bytes of the cache's bound are for other files. `files` are all that `needs` can name: their links of an
    earlier run are deleted.
    """

    def __init__(
        self, cache: Cache, view: View, store: Store, *, needs: Iterable[FileNeed], files: Sequence[CachedFile],
        kept: int,
    ) -> None:  # fmt: skip
        self._cache, self._view, self._store = cache, view, store
        self._needs, self._files, self._kept = needs, files, kept
        self._stopped = threading.Event()
        self._descriptor = os.open(view.root / _LEADS, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._leads = self._lead()  # now, so that nobody finds what an earlier run has left
        except BaseException:
            _unlock(self._descriptor)
            raise
        self._thread = threading.Thread(target=self._work, name="fetch-ahead", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, at the end of the download that goes on."""
        self._stopped.set()
        self._thread.join()

    def _lead(self) -> bool:
        """Whether this process now fetches for the view; it then deletes what an earlier run has left."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        (self._view.root / _FAILED).unlink(missing_ok=True)
        self._cache.release(self._view, self._files)
        return True

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._fetch()
                self._stopped.wait(_PAUSE_S)
        finally:
            _unlock(self._descriptor)

    def _fetch(self) -> None:
        """Fetch, if this process leads or can lead, until the run is over."""
        try:
            if not (self._leads or self._lead()):
                return
            self._fetch_all()
        except (CorpusError, OSError) as error:
            message = error.message if isinstance(error, CorpusError) else str(error)
            hint = error.hint if isinstance(error, CorpusError) else "Give another folder with --cache."
            write_atomic(self._view.root / _FAILED, json.dumps({"message": message, "hint": hint}).encode())
        self._stopped.wait()

    def _fetch_all(self) -> None:
        held: list[FileNeed] = []
        for need in self._needs:
            while True:
                if self._stopped.is_set():
                    return
                position = slowest(self._view)
                if position is not None:
                    held = self._let_go(held, position)
                if self._fits([*held, need]):
                    break
                self._stopped.wait(_PAUSE_S)
            self._cache.fetch(self._view, self._store, need.files)
            held.append(need)

    def _let_go(self, held: list[FileNeed], position: int) -> list[FileNeed]:
        """The needs that last beyond a position; files of others lose their links."""
        rest = [need for need in held if need.end > position]
        if len(rest) < len(held):
            needed = {file for need in rest for file in need.files}
            self._cache.release(self._view, {file for need in held for file in need.files} - needed)
        return rest

    def _fits(self, needs: Sequence[FileNeed]) -> bool:
        files = {file for need in needs for file in need.files}
        most = self._cache.most_bytes
        return most is None or sum(file.size for file in files) + self._kept <= most


def _unlock(descriptor: int) -> None:
    """Give up a lock, also where processes that make batches were forked and have the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
