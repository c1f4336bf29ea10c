"""Files of a store on this machine's disk, named by their SHA-256, and views: folders of links that give them names.

In: a store, and the names, sizes and digests of files there.
Out: a view, in which each file has the name that it has in the store.
Invariants: a file is in the cache whole and checked, or not at all; of the processes of a machine one fetches, and the
others wait for it and find what it has fetched; the cache keeps its bound; files of a view that a process has open
stay, the others go by the last use of their views. What an interrupted fetch has finished stays.
Cost: a stat for each file that is there and unchanged; else a download, four files at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.errors import DiskError, StoreError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.store.objects import Store, plain_key
from corpus.pipeline.workspace.files import remove_leftovers, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.lock import LOCK, alone

_VIEWS, _USE = "views", ".use"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FETCHERS = 4
_OTHER = "Give another folder with --cache."


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file to be had from a store."""

    name: str
    """Its key there, and its path in a view."""
    size: int
    sha256: str

    @property
    def kept_as(self) -> str:
        """Its name in the cache."""
        return self.sha256 + Path(self.name).suffix


class View:
    """A folder of links to files of the cache, which stay while it is open: until `close`, or the end of the process.

    Its lock is the kernel's, so a killed process leaves none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        descriptor = os.open(root / _USE, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(root / _USE)
        self.close = weakref.finalize(self, os.close, descriptor)


class Cache:
    """A folder of files by digest; `most_bytes` bounds them, views left out."""

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    def open_view(self, documents: Mapping[str, bytes], progress: Progress = SILENT) -> View:
        """The view of these small files, which are written into it under their names: equal files, equal view.

        Raises:
            DiskError: the folder cannot be written.
            StoreError: a name leads elsewhere.

        """
        digests = sorted((plain_key(name), hashlib.sha256(data).hexdigest()) for name, data in documents.items())
        root = self.folder / _VIEWS / hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32]
        with self._locked(progress):
            for name, data in documents.items():
                path = root / name
                if not path.is_file() or path.read_bytes() != data:
                    write_atomic(path, data)
            return View(root)

    def fetch(self, view: View, store: Store, files: Sequence[CachedFile], progress: Progress = SILENT) -> None:
        """Bring files into the cache, in this order, and link them in a view.

        Raises:
            StoreError: a file cannot be had, is not what it should be, or the bound is too small.
            DiskError: the folder is full, or cannot be written.

        """
        for file in files:
            plain_key(file.name)
            if not _DIGEST.fullmatch(file.sha256):
                raise StoreError(f"{store.shown}/{file.name}: {file.sha256!r} is no SHA-256")
        wanted = {file.kept_as: file for file in files}
        size = sum(file.size for file in wanted.values())
        if self.most_bytes is not None and size > self.most_bytes:
            raise StoreError(
                f"--cache-bytes {self.most_bytes}: the rows have {size:,} bytes, and each step reads rows of all files",
                hint=f"Give --cache-bytes {size} or more, or --shuffle block, which reads a few files at a time.",
            )
        with self._locked(progress):
            remove_leftovers(self.folder)
            known = Workspace(self.folder)
            missing = [file for file in wanted.values() if not self._is_whole(file, known)]
            self._make_room(wanted.keys(), sum(file.size for file in missing))
            try:
                self._download(store, missing, known, progress)
            finally:
                known.save_digests()
            for file in files:
                self._link(view, file)

    def release(self, view: View, files: Iterable[CachedFile]) -> None:
        """Delete the links of files in a view that no reader of it needs, so that the cache may delete the files."""
        for file in files:
            (view.root / file.name).unlink(missing_ok=True)

    def _is_whole(self, file: CachedFile, known: Workspace) -> bool:
        """Whether a file is there; one that was damaged is deleted."""
        path = self.folder / file.kept_as
        if not path.is_file():
            return False
        if path.stat().st_size == file.size and known.digest(path) == file.sha256:
            return True
        path.unlink()
        return False

    def _download(self, store: Store, files: Sequence[CachedFile], known: Workspace, progress: Progress) -> None:
        if not files:
            return
        size = sum(file.size for file in files)
        progress.say(f"fetching {len(files):,} files, {size_text(size)}, from {store.shown}")
        with progress.bar("fetching", size, "B"), ThreadPoolExecutor(_FETCHERS) as pool:
            stopped = threading.Event()

            def copy(file: CachedFile) -> None:
                path = self.folder / file.kept_as
                store.local_copy(
                    file.name, path, size=file.size, sha256=file.sha256, before_block=lambda: _go_on(stopped)
                )

            tasks = {pool.submit(copy, file): file for file in files}
            try:
                for task in as_completed(tasks):
                    task.result()
                    known.remember_digest(self.folder / tasks[task].kept_as, tasks[task].sha256)
                    progress.advance(tasks[task].size)
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _link(self, view: View, file: CachedFile) -> None:
        path = view.root / file.name
        target = os.path.relpath(self.folder / file.kept_as, path.parent)
        if path.is_symlink() and str(path.readlink()) == target:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        beside.symlink_to(target)
        beside.replace(path)

    # --- room ---------------------------------------------------------------------------------------------------------

    def _make_room(self, wanted: Iterable[str], missing: int) -> None:
        """Delete what no process has open, least recently used first, until the missing bytes fit."""
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir() if _DIGEST.match(path.name)}
        if self.most_bytes is not None:
            excess = sum(sizes.values()) + missing - self.most_bytes
            for name in self._unused({*wanted}, sizes) if excess > 0 else ():
                (self.folder / name).unlink(missing_ok=True)
                excess -= sizes.pop(name)
                if excess <= 0:
                    break
            if excess > 0:
                raise StoreError(
                    f"--cache-bytes {self.most_bytes}: other processes have so much open in {self.folder} that "
                    f"{size_text(excess)} are lacking",
                    hint="Wait until they end, give more, or give another folder with --cache.",
                )
        free = shutil.disk_usage(self.folder).free
        if free < missing:
            raise DiskError(
                f"{self.folder}: the rows take {size_text(missing)}, and {size_text(free)} are free",
                hint="Free some room, or give a folder on another disk with --cache.",
            )

    def _unused(self, wanted: set[str], sizes: Mapping[str, int]) -> Iterator[str]:
        """Files that may go, in the order in which they go; a view is deleted before its files are given."""
        named = {root: _names(root) for root in (self.folder / _VIEWS).iterdir()}
        yield from sorted(sizes.keys() - wanted - set().union(*named.values()), key=self._written)
        for root in sorted(named, key=_last_use):
            if _is_closed(root):
                shutil.rmtree(root)
                own = named.pop(root)
                yield from sorted(own & sizes.keys() - wanted - set().union(*named.values()))

    def _written(self, name: str) -> int:
        return (self.folder / name).stat().st_mtime_ns

    @contextlib.contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        """The lock of the cache; waits for the process that has it."""
        waiting = f"waiting for another process that fetches into {self.folder}"
        try:
            with alone(self.folder / LOCK, waits=lambda: progress.say(waiting)):
                yield
        except DiskError as error:
            raise DiskError(error.message, hint="Free some room, or give another folder with --cache.") from error
        except OSError as error:
            raise DiskError(f"{error.filename or self.folder}: {error.strerror}", hint=_OTHER) from error


def _go_on(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise CancelledError


def _names(root: Path) -> set[str]:
    """The files of the cache that a view names."""
    return {path.readlink().name for path in root.rglob("*") if path.is_symlink()}


def _last_use(root: Path) -> int:
    try:
        return (root / _USE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_closed(root: Path) -> bool:
    """Whether no process has a view open; the caller holds the cache, so none opens it meanwhile."""
    descriptor = os.open(root / _USE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def open_cache(folder: Path | None = None, most_bytes: int | None = None) -> Cache:
    """The cache in a folder; where none is given as `cache_folder` says."""
    return Cache(cache_folder(folder), most_bytes)


def cache_folder(folder: Path | None = None) -> Path:
    """The folder given, or that which CORPUS_CACHE names, or `corpus` below $XDG_CACHE_HOME or ~/.cache."""
    if folder is None and (named := os.environ.get("CORPUS_CACHE")):
        folder = Path(named)
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"  # a relative path is invalid there
    return (folder or base / "corpus").expanduser().absolute()
