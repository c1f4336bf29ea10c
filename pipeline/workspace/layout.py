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


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


LEDGER_SCHEMA = 1
LEDGER = "ledger.json"
ROWS = {"text": "packed", "chat": "chat"}
"""Where the rows of each form lie."""
OUTSIDE = "init/"
"""How a ledger's inputs begin that do not lie in the workspace: files of a model that was given."""
UNFINISHED_MODE = 0o600
"""Who may open a file that is not whole yet: nobody else."""
FINISHED_MODE = 0o666 & ~_umask()
"""Who may open it under its final name: whom the user's umask allows."""
_LOCK_WAIT_S = 2.0
_READERS = 4


@dataclass(frozen=True, slots=True, order=True)
class FileDigest:
    """A file as a ledger names it: `path` is relative to the workspace, or to the stage folder for outputs."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The receipt of a finished stage. `counts` is what the stage counted; the other fields say what made it so."""

    stage: str
    dataset: str | None
    version: int
    config: Mapping[str, Any]
    inputs: Sequence[FileDigest]
    outputs: Sequence[FileDigest]
    counts: Mapping[str, Any]
    fingerprint: str

    def to_json(self) -> bytes:
        """Sorted keys, two blanks, a newline at the end: equal ledgers are equal bytes."""
        values = {"schema": LEDGER_SCHEMA, **asdict(self)}
        return (json.dumps(values, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs."""
        return sum(output.bytes for output in self.outputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a stage's `run` returns: the ledger, where it lies, and whether anything had to be done."""

    ledger: Ledger
    folder: Path
    skipped: bool = False
    reasons: tuple[str, ...] = ()
    """Why finished work was redone: the changed inputs, configuration keys or version."""
    notes: tuple[str, ...] = ()
    """What a user should know about the result."""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    """Figures for the closing table that do not belong into the ledger."""


def fingerprint(stage: str, version: int, config: Mapping[str, Any], inputs: Sequence[FileDigest]) -> str:
    """SHA-256 over stage, version, configuration and the inputs' digests: the identity of the work, not of its
    outputs.
    """
    identity = [stage, version, config, [[entry.path, entry.sha256] for entry in inputs]]
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


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


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a stage folder, or None when the stage is not finished.

    Raises:
        WorkspaceError: a ledger is there but cannot be understood.

    """
    path = folder / LEDGER
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WorkspaceError(
            f"{path} cannot be read: {error}", hint=f"Delete {folder} and run the stage again."
        ) from error
    try:
        if values.pop("schema") != LEDGER_SCHEMA:
            raise KeyError("schema")
        values["inputs"] = [_file_digest(entry) for entry in values["inputs"]]
        values["outputs"] = [_file_digest(entry) for entry in values["outputs"]]
        if not isinstance(values["counts"], dict) or not isinstance(values["config"], dict):
            raise TypeError("counts and config must be objects")
        return Ledger(**values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WorkspaceError(
            f"{path} is not a ledger of this version: {error}", hint=f"Delete {folder} and run the stage again."
        ) from error


def _file_digest(entry: Mapping[str, Any]) -> FileDigest:
    digest = FileDigest(**entry)
    if not (type(digest.path) is str and type(digest.bytes) is int and type(digest.sha256) is str):
        raise TypeError(f"{digest} is not a file's digest")
    return digest


def write_ledger(folder: Path, ledger: Ledger, timings: Mapping[str, Any]) -> None:
    """Finish a stage: timings first, with the ledger's digest for `verify`, then the ledger, both atomically."""
    data = ledger.to_json()
    noted = {**timings, "ledger_sha256": hashlib.sha256(data).hexdigest()}
    write_atomic(folder / "timings.json", (json.dumps(noted, sort_keys=True, indent=2) + "\n").encode())
    write_atomic(folder / LEDGER, data)


def changes(
    ledger: Ledger | None,
    folder: Path,
    version: int,
    config: Mapping[str, Any],
    inputs: Sequence[FileDigest],
    digest: Callable[[Path], str] | None = None,
) -> list[str]:
    """What makes a finished stage stale, in words; empty when it is current.

    Inputs are compared by digest, so a touched file changes nothing and an edit of the same size is seen; outputs by
    `digest` where it is given, else by size.
    """
    if ledger is None:
        return []
    found: list[str] = []
    if ledger.version != version:
        found.append(f"the stage's version was {ledger.version} and is {version}")
    for key in sorted({*ledger.config, *config}):
        old, new = ledger.config.get(key), config.get(key)
        if old != new:
            found.append(f"{key.replace('_', '-')} was {_short(old)} and is {_short(new)}")
    said = {"gone": "is gone", "new": "is new", "changed": "has changed"}
    for path, what in differences(ledger.inputs, {entry.path: entry.sha256 for entry in inputs}):
        found.append(f"input {path} {said[what]}")
    return found + _output_changes(ledger, folder, digest)


def differences(before: Sequence[FileDigest], after: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Which files are `gone`, `new` or `changed`, as (path, what); `after` maps paths to SHA-256."""
    had = {entry.path: entry.sha256 for entry in before}
    for path in sorted({*had, *after}):
        if path not in after:
            yield path, "gone"
        elif path not in had:
            yield path, "new"
        elif had[path] != after[path]:
            yield path, "changed"


def _output_changes(ledger: Ledger, folder: Path, digest: Callable[[Path], str] | None) -> list[str]:
    """What of a stage's outputs is not as its ledger says."""
    found: list[str] = []
    for output in ledger.outputs:
        path_out = folder / output.path
        if not path_out.is_file():
            found.append(f"output {output.path} is missing")
        elif path_out.stat().st_size != output.bytes:
            found.append(f"output {output.path} has another size than its ledger says")
        elif digest is not None and digest(path_out) != output.sha256:
            found.append(f"output {output.path} has other bytes than its ledger says")
    return found


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
            _fsync_folder(path.parent)
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


class Stopwatch:
    """Seconds since it was made, by the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, rounded to milliseconds."""
        return round(time.monotonic() - self._start, 3)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_holder(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return "another command"


def _short(value: object) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
