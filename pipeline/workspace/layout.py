"""The workspace folder: paths of all stages, the lock of the writing command, and the cache of file digests.

Invariants: one command writes at a time; a digest is taken from the cache only while the file's size, mtime, ctime and
inode stay.
Cost: each file is read once for its digest, at disk speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from corpus.pipeline.errors import BusyError
from corpus.pipeline.workspace.files import disk_errors, sha256_file, write_atomic
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest

ROWS = {"text": "packed", "chat": "chat"}
"""Folder of the rows of each form."""
OUTSIDE = "init/"
"""Prefix of a ledger's inputs that are not in the workspace: the files of the model given with --init."""
_LOCK_WAIT_S = 2.0
_READERS = 4


class Workspace:
    """A folder laid out as `docs/design.md` says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dedup = root / "dedup"
        """Documents that repeat others: `<dataset>.parquet`, and the keys they were compared by."""
        self.decontaminate = root / "decontaminate"
        """Documents that hold evaluation items: `<dataset>.parquet`, and the evaluation files in `evals/`."""
        self.tokenizer = root / "tokenizer"
        """`tokenizer.json` and its configuration."""
        self.models = root / "models"
        """One folder for each training run."""

    def raw(self, dataset: str) -> Path:
        """Downloaded files, unchanged."""
        return self.root / "raw" / dataset

    def documents(self, dataset: str) -> Path:
        """Kept documents, and dropped records in `rejected/`."""
        return self.root / "documents" / dataset

    def packed(self, dataset: str, form: str = "text") -> Path:
        """A DatasetDict of rows, for one form."""
        return self.root / ROWS[form] / dataset

    def finished(self, area: str) -> list[str]:
        """Sorted names under `raw`, `documents`, `packed`, `chat` or `models` whose stage is finished."""
        return sorted(path.parent.name for path in (self.root / area).glob(f"*/{LEDGER}"))

    def relative(self, path: Path) -> str:
        """`path` relative to the workspace, as a ledger names it; the path itself where it lies outside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @contextlib.contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Lock the workspace for one writing command; a second one waits two seconds, then raises BusyError.

        Raises:
            BusyError: another command holds the workspace.
            DiskError: the workspace cannot be created or written.

        """
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / ".lock")
        holder = self.root / ".lock.holder"
        try:
            with disk_errors(self.root):
                lock.acquire(timeout=_LOCK_WAIT_S)
        except filelock.Timeout as error:
            raise BusyError(
                f"{self.root} is being written by {_read_holder(holder)}",
                hint="Wait until it is done, or give this command another --workspace.",
            ) from error
        try:
            write_atomic(holder, f"`corpus {command}`, process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            holder.unlink(missing_ok=True)
            self._save_digests()
            lock.release()

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, from the cache while its size, times and inode stay."""
        key, stamp = os.path.relpath(path, self.root), _stamp(path)
        known = self._digests.get(key)
        if known and known[:4] == stamp:
            return str(known[4])
        value = sha256_file(path)
        self._digests[key] = [*stamp, value]
        return value

    def remember_digest(self, path: Path, sha256: str) -> None:
        """Cache a digest that was computed while the file was written."""
        self._digests[os.path.relpath(path, self.root)] = [*_stamp(path), sha256]

    def file_digest(self, path: Path, base: Path | None = None) -> FileDigest:
        """The ledger entry of a file, named relative to `base` or the workspace."""
        name = path.relative_to(base or self.root).as_posix()
        return FileDigest(name, path.stat().st_size, self.digest(path))

    def file_digests(self, paths: Iterable[Path], base: Path | None = None) -> list[FileDigest]:
        """The ledger entries of many files, hashed in parallel."""
        _ = self._digests  # read once, before several threads ask for it
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda path: self.file_digest(path, base), paths))

    @cached_property
    def _digests(self) -> dict[str, list[Any]]:
        try:
            loaded = json.loads((self.root / ".digests.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def _save_digests(self) -> None:
        if "_digests" not in self.__dict__ or not self.root.is_dir():
            return
        present = {key: value for key, value in self._digests.items() if (self.root / key).exists()}
        with contextlib.suppress(OSError):  # a cache: on a full disk the next run hashes the files once more
            write_atomic(self.root / ".digests.json", json.dumps(present, sort_keys=True).encode())


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read_holder(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return "another command"
