"""The ledger: the record of a finished stage, and what makes the stage stale.

Invariants: a ledger in a folder means that the stage is finished; equal work gives equal bytes, so a ledger holds no
time and no machine path.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.workspace.files import reading, write_atomic
from corpus.pipeline.workspace.remote import remote_of

LEDGER_SCHEMA = 1
LEDGER = "ledger.json"
TIMINGS = "timings.json"
COMMANDS = {
    "raw": "corpus download --dataset {name}",
    "documents": "corpus ingest --dataset {name}",
    "dedup": "corpus dedup",
    "decontaminate": "corpus decontaminate",
    "quality": "corpus quality",
    "packed": "corpus pack --dataset {name}",
    "chat": "corpus pack --form chat --dataset {name}",
    "ranking": "corpus pack --form ranking --dataset {name}",
    "tokenizer": "corpus tokenizer",
    "models": "corpus train",
}
"""What makes the outputs of an area of the workspace."""


@dataclass(frozen=True, slots=True, order=True)
class FileDigest:
    """A file as a ledger names it: `path` is relative to the workspace, or to the stage folder for outputs."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The record of a finished stage: `counts` is what it counted, the other fields what decided it."""

    stage: str
    dataset: str | None
    version: int
    config: Mapping[str, Any]
    inputs: Sequence[FileDigest]
    outputs: Sequence[FileDigest]
    counts: Mapping[str, Any]
    fingerprint: str

    def to_json(self) -> bytes:
        """Sorted keys, indented by two, a newline at the end: equal ledgers are equal bytes."""
        values = {"schema": LEDGER_SCHEMA, **asdict(self)}
        return (json.dumps(values, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()

    @property
    def output_bytes(self) -> int:
        """Bytes of all outputs."""
        return sum(output.bytes for output in self.outputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a stage's `run` returns: the ledger, its folder, and whether the run was skipped."""

    ledger: Ledger
    folder: Path
    skipped: bool = False
    reasons: tuple[str, ...] = ()
    """Why the stage was rerun: changed inputs, outputs, settings or version."""
    notes: tuple[str, ...] = ()
    """What to tell the user about the result."""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    """Figures for the closing table that are not in the ledger."""


def fingerprint(stage: str, version: int, config: Mapping[str, Any], inputs: Sequence[FileDigest]) -> str:
    """SHA-256 over stage, version, configuration and the inputs' digests; outputs do not enter."""
    identity = [stage, version, config, [[entry.path, entry.sha256] for entry in inputs]]
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a stage folder, or None when the stage is not finished.

    Raises:
        WorkspaceError: the ledger cannot be parsed.
        DiskError: it cannot be read, for want of permission or by a failing disk.

    """
    path = folder / LEDGER
    with reading(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return _parsed(json.loads(data))
    except (TypeError, ValueError) as error:
        raise WorkspaceError(
            f"{path} is not a ledger that this version of corpus-zh can read: {error}",
            hint=f"Delete this file and run {command_for(folder)} again, with the flags that it had.",
        ) from error


def command_for(folder: Path) -> str:
    """The command that makes a stage's folder, between backticks.

    >>> command_for(Path("workspace/packed/demo")), command_for(Path("workspace/dedup"))
    ('`corpus pack --dataset demo`', '`corpus dedup`')
    """
    area = folder.name if folder.name in COMMANDS else folder.parent.name
    return f"`{COMMANDS[area].format(name=folder.name)}`" if area in COMMANDS else "the stage"


def _parsed(values: Any) -> Ledger:
    """A ledger from its JSON; a TypeError or ValueError says what is wrong with it."""
    if type(values) is not dict:
        raise TypeError(f"expected an object, found {type(values).__name__}")
    expected = {"schema", *(entry.name for entry in fields(Ledger))}
    for names, what in ((expected - values.keys(), "is missing"), (values.keys() - expected, "is unknown")):
        if names:
            raise ValueError(f"`{min(names)}` {what}")
    if values.pop("schema") != LEDGER_SCHEMA:
        raise ValueError(f"`schema` is not {LEDGER_SCHEMA}")
    for name in ("config", "counts"):
        if type(values[name]) is not dict:
            raise TypeError(f"`{name}` is not an object")
    for name in ("inputs", "outputs"):
        values[name] = [_file_digest(name, entry) for entry in values[name]]
    return Ledger(**values)


def _file_digest(name: str, entry: Any) -> FileDigest:
    if type(entry) is not dict or {key: type(value) for key, value in entry.items()} != _DIGEST_TYPES:
        raise TypeError(f"`{name}` holds {_short(entry)}, which is not a file's digest")
    return FileDigest(**entry)


_DIGEST_TYPES = {"path": str, "bytes": int, "sha256": str}


def write_ledger(folder: Path, ledger: Ledger, timings: Mapping[str, Any]) -> None:
    """Finish a stage: write the timings, with the ledger's digest for `verify`, then the ledger."""
    data = ledger.to_json()
    noted = {**timings, "ledger_sha256": hashlib.sha256(data).hexdigest()}
    write_atomic(folder / TIMINGS, (json.dumps(noted, sort_keys=True, indent=2) + "\n").encode())
    restore_ledger(folder, ledger)


def restore_ledger(folder: Path, ledger: Ledger) -> None:
    """Write a ledger whose outputs and timings are there; in a storage first, after what is not there yet."""
    data = ledger.to_json()
    if (remote := remote_of(folder)) is not None:
        remote.push_ledger(folder, ledger.outputs, data)
    write_atomic(folder / LEDGER, data)


def delete_ledger(folder: Path) -> None:
    """Delete a ledger, before an output changes; in a storage first."""
    if (remote := remote_of(folder)) is not None:
        remote.delete_ledger(folder)
    (folder / LEDGER).unlink(missing_ok=True)


def changes(
    ledger: Ledger | None,
    folder: Path,
    version: int,
    config: Mapping[str, Any],
    inputs: Sequence[FileDigest],
    digest: Callable[[Path], str] | None = None,
) -> list[str]:
    """What makes a finished stage stale, in words; empty when it is current or was never finished.

    Inputs are compared by digest, outputs by `digest` where it is given, else by size.
    """
    if ledger is None:
        return []
    found: list[str] = []
    if ledger.version != version:
        found.append(f"the stage's version was {ledger.version} and is {version}")
    found += _changed_settings(ledger.config, config)
    said = {"gone": "is gone", "new": "is new", "changed": "has changed"}
    for path, what in differences(ledger.inputs, {entry.path: entry.sha256 for entry in inputs}):
        found.append(f"input {path} {said[what]}")
    return found + [f"output {path} {what}" for path, what in output_changes(ledger, folder, digest)]


def _changed_settings(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The settings that differ; of a table those in it."""
    for key in sorted({*before, *after}):
        old, new, name = before.get(key), after.get(key), prefix + key.replace("_", "-")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_settings(old, new, f"{name}.")
        elif old != new:
            yield f"{name} was {_short(old)} and is {_short(new)}"


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


def output_changes(ledger: Ledger, folder: Path, digest: Callable[[Path], str] | None) -> Iterator[tuple[str, str]]:
    """Outputs that are not as their ledger says, as (path, what is wrong); in a storage those that are not so there."""
    if (remote := remote_of(folder)) is not None:
        yield from remote.changes(folder, ledger.outputs, digest)
        return
    for output in ledger.outputs:
        path = folder / output.path
        if not path.is_file():
            yield output.path, "is missing"
        elif path.stat().st_size != output.bytes:
            yield output.path, "has another size than its ledger says"
        elif digest is not None and digest(path) != output.sha256:
            yield output.path, "has other bytes than its ledger says"


class Stopwatch:
    """Seconds since its creation, by the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, rounded to milliseconds."""
        return round(time.monotonic() - self._start, 3)


def _short(value: object) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
