"""The workspace: where everything lies, how a file is finished, and the ledger that proves a stage is.

In: a folder. Out: paths, atomic writes, ledgers, and the answer to "is this stage finished and current?".
Invariants: a file under its final name is whole (written aside, fsynced, renamed); a stage folder holds `ledger.json`
only
when all its outputs are whole; equal work gives equal ledger bytes, so no clock time and no machine path is in it.
Cost: digests are read at disk speed once per file and remembered by size, mtime, ctime and inode.
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
from corpus.pipeline.workspace.files import disk_errors, sha256_file, write_atomic
from corpus.pipeline.workspace.ledger import FileDigest, LEDGER, Ledger

ROWS = {"text": "packed", "chat": "chat"}
"""Where the rows of each form lie."""
OUTSIDE = "init/"
"""How a ledger's inputs begin that do not lie in the workspace: files of a model that was given."""
_LOCK_WAIT_S = 2.0
_READERS = 4


class Workspace:
    """A folder laid out as `docs/design.md` says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[str, list[Any]] | None = None

    def raw(self, dataset: str) -> Path:
        """Archives as they came."""
        return self.root / "raw" / dataset

    def documents(self, dataset: str) -> Path:
        """Kept documents, and dropped ones in `rejected/`."""
        return self.root / "documents" / dataset

    @property
    def dedup(self) -> Path:
        """Which documents repeat others: `<dataset>.parquet`, and what they were compared by."""
        return self.root / "dedup"

    @property
    def decontaminate(self) -> Path:
        """Which documents hold evaluation items: `<dataset>.parquet`, and the evaluation sets in `evals/`."""
        return self.root / "decontaminate"

    @property
    def tokenizer(self) -> Path:
        """`tokenizer.json` and its configuration."""
        return self.root / "tokenizer"

    def packed(self, dataset: str, form: str = "text") -> Path:
        """A DatasetDict of rows: of text, or of questions and answers."""
        return self.root / ROWS[form] / dataset

    @property
    def models(self) -> Path:
        """One folder for each training run."""
        return self.root / "models"

    def finished(self, area: str) -> list[str]:
        """Names under `raw`, `documents`, `packed`, `chat` or `models` whose stage is finished, sorted."""
        return sorted(path.parent.name for path in (self.root / area).glob(f"*/{LEDGER}"))

    def relative(self, path: Path) -> str:
        """`path` as a ledger names it."""
        return path.relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Hold the workspace for one writing command; a second one waits two seconds, then says who holds it.

        Raises:
            BusyError: another command holds the workspace.
            DiskError: the workspace cannot be made or written.

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
        """SHA-256 of a file, read again only when its size, times or inode have changed since it was last read."""
        stat = path.stat()
        key = os.path.relpath(path, self.root)
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        known = self._load_digests().get(key)
        if known and known[:4] == stamp:
            return str(known[4])
        value = sha256_file(path)
        self._load_digests()[key] = [*stamp, value]
        return value

    def is_as_written(self, path: Path, folder: Path, ledger: Ledger | None) -> bool:
        """Whether a file of a stage's folder has the bytes its ledger says; also when no ledger knows of it."""
        name = path.relative_to(folder).as_posix()
        return all(
            output.sha256 == self.digest(path) for output in (ledger.outputs if ledger else ()) if output.path == name
        )

    def remember_digest(self, path: Path, sha256: str) -> None:
        """Note a digest that was computed while the file was written."""
        stat = path.stat()
        key = os.path.relpath(path, self.root)
        self._load_digests()[key] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256]

    def file_digest(self, path: Path, base: Path | None = None) -> FileDigest:
        """The ledger entry of a file, named relative to `base` (the workspace when left out)."""
        name = path.relative_to(base or self.root).as_posix()
        return FileDigest(name, path.stat().st_size, self.digest(path))

    def file_digests(self, paths: Iterable[Path], base: Path | None = None) -> list[FileDigest]:
        """The ledger entries of many files, which are read side by side: hashing leaves the interpreter free."""
        self._load_digests()
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda path: self.file_digest(path, base), paths))

    def _load_digests(self) -> dict[str, list[Any]]:
        if self._digests is None:
            try:
                loaded = json.loads((self.root / ".digests.json").read_bytes())
            except (OSError, ValueError):
                loaded = {}
            self._digests = loaded if isinstance(loaded, dict) else {}
        return self._digests

    def _save_digests(self) -> None:
        if self._digests is None or not self.root.is_dir():
            return
        present = {key: value for key, value in self._digests.items() if (self.root / key).exists()}
        with contextlib.suppress(OSError):  # only a cache: on a full disk the next run reads the files again
            write_atomic(self.root / ".digests.json", json.dumps(present, sort_keys=True).encode())


def _read_holder(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return "another command"
