"""Receipts: what a finished piece of a stage has written, by the process that wrote it.

In: the folder of a stage, and the outputs of one piece, hashed while they are written. Out: a small JSON file
`receipts/<fingerprint of the work>/<piece>.json`, which names each output with its bytes, SHA-256 and rows, and holds
the counts of the piece. `StageRun` folds the receipts into the ledger, then deletes them.
Invariants: a receipt is written whole, after its outputs are in their places. Equal work writes equal bytes: a receipt
holds no time, machine, process or path outside the folder, so two writers of one piece do no harm. A file that is not
as it was written is no receipt.
Beside the folders of receipts jobs that share a stage write `receipts/<fingerprint of the stage>.json`: how many pieces
there are.
Cost: a file of some hundred bytes for each piece, which is not fsynced; reading one opens no output.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from corpus.pipeline.workspace.files import HashedFile, aside, hashed, settle
from corpus.pipeline.workspace.ledger import FileDigest
from corpus.pipeline.workspace.remote import remote_of

FOLDER = "receipts"
"""Folder of the receipts in the folder of a stage that is not finished."""
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a piece has written; `path` is relative to the folder of its stage."""

    path: str
    bytes: int
    sha256: str
    groups: tuple[int, ...]
    """Rows of each row group or record batch."""

    @property
    def digest(self) -> FileDigest:
        """As a ledger names it."""
        return FileDigest(self.path, self.bytes, self.sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What one piece of a stage has written and counted."""

    work: str
    """Fingerprint of the work."""
    piece: str
    """Name of the piece, which with `work` names the receipt."""
    outputs: tuple[Output, ...]
    """In order of their paths; empty where the piece gave no file."""
    counts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Path of its file in the folder of the stage."""
        return f"{FOLDER}/{self.work}/{self.piece}.json"

    def to_json(self) -> bytes:
        """A line of JSON with sorted keys, and a line with the SHA-256 of the first."""
        values = {"schema": _SCHEMA, "work": self.work, "piece": self.piece, "counts": self.counts}
        values |= {"outputs": list(map(asdict, self.outputs))}
        line = json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        return line + hashlib.sha256(line).hexdigest().encode() + b"\n"


@dataclass(slots=True)
class PieceWriter:
    """Writes the outputs of one piece, then its receipt."""

    folder: Path
    """The folder of the stage."""
    work: str
    piece: str
    beside: list[Path] = field(default_factory=list)
    """Files that the piece has written outside the folder, and no receipt names."""
    _outputs: list[Output] = field(default_factory=list)

    @contextlib.contextmanager
    def output(self, name: str) -> Iterator[HashedFile]:
        """A file that appears under `name` when the block ends; the block adds the rows to its `groups`."""
        with hashed(self.folder / name) as file:
            yield file
        settle(Path(file.name), self.folder / name)
        self._outputs.append(Output(name, file.bytes, file.sha256, tuple(file.groups)))

    def finish(self, counts: Mapping[str, Any]) -> Receipt:
        """Write the receipt, once all outputs are in their places."""
        outputs = tuple(sorted(self._outputs, key=lambda output: output.path))
        return write(
            self.folder, Receipt(work=self.work, piece=self.piece, outputs=outputs, counts=counts), self.beside
        )


def write(folder: Path, receipt: Receipt, beside: Iterable[Path] = ()) -> Receipt:
    """Write the receipt of a piece whose outputs are in their places; in a storage first, after the outputs."""
    data = receipt.to_json()
    if (remote := remote_of(folder)) is not None:
        remote.push_piece(folder, [output.digest for output in receipt.outputs], receipt.name, data, beside)
    _write(folder / receipt.name, data)
    return receipt


def keep(folder: Path, receipt: Receipt) -> None:
    """Write a receipt here that a process of another machine has sent; of its outputs no older copies are kept here."""
    if (path := folder / receipt.name).exists():
        return  # a process of this machine has written it
    for output in receipt.outputs:
        (folder / output.path).unlink(missing_ok=True)
    _write(path, receipt.to_json())


def _write(path: Path, data: bytes) -> None:
    with aside(path) as file:
        file.write(data)
    settle(Path(file.name), path, sync=False)


@dataclass(frozen=True, slots=True)
class Found:
    """A receipt on the disk."""

    receipt: Receipt
    written_ns: int
    """When it was written."""


def read_all(folder: Path) -> list[Found]:
    """The receipts in the folder of a stage, of any work, in the order of their names."""
    paths = sorted((folder / FOLDER).glob("*/*.json"))
    return [found for path in paths if (found := _read(path)) is not None]


def read(folder: Path, work: str, piece: str) -> Found | None:
    """The receipt of one piece in the folder of a stage; None where the piece has no whole receipt."""
    return _read(folder / FOLDER / work / f"{piece}.json")


def write_plan(folder: Path, fingerprint: str, pieces: int, works: Iterable[str]) -> None:
    """Note how many pieces a stage has, and the fingerprints of their work."""
    path, data = _plan_of(folder, fingerprint), _plan_json(pieces, works)
    if (remote := remote_of(folder)) is not None:
        remote.push_piece(folder, (), path.relative_to(folder).as_posix(), data)
    _write(path, data)


def planned_pieces(folder: Path, fingerprint: str) -> int | None:
    """How many pieces a stage has; None where no job has noted it."""
    plan = _read_plan(_plan_of(folder, fingerprint))
    return plan[0] if plan else None


def progress_of(folder: Path) -> tuple[int, int] | None:
    """How many pieces of a stage have receipts, and how many pieces there are, by the newest plan in the folder."""
    try:
        paths = sorted((folder / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    except OSError:  # the stage is finished at this moment
        return None
    plan = _read_plan(paths[-1]) if paths else None
    if plan is None:
        return None
    return len({path.stem for work in plan[1] for path in (folder / FOLDER / work).glob("*.json")}), plan[0]


def _plan_of(folder: Path, fingerprint: str) -> Path:
    return folder / FOLDER / f"{fingerprint}.json"


def _plan_json(pieces: int, works: Iterable[str]) -> bytes:
    return json.dumps({"pieces": pieces, "works": sorted(set(works))}, sort_keys=True).encode() + b"\n"


def _read_plan(path: Path) -> tuple[int, list[str]] | None:
    """The pieces and works of a plan, or None where the file cannot be read, or is not as it was written."""
    try:
        data = path.read_bytes()
        plan = json.loads(data)
        pieces, works = int(plan["pieces"]), list(map(str, plan["works"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (pieces, works) if data == _plan_json(pieces, works) else None


def _read(path: Path) -> Found | None:
    """A receipt, or None where the file cannot be read, or is not what was written under this name."""
    try:
        data, written_ns = path.read_bytes(), path.stat().st_mtime_ns
        values = json.loads(data.partition(b"\n")[0])
        values.pop("schema")
        values["outputs"] = tuple(Output(**each | {"groups": tuple(each["groups"])}) for each in values["outputs"])
        receipt = Receipt(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    is_whole = receipt.to_json() == data and (receipt.work, receipt.piece) == (path.parent.name, path.stem)
    return Found(receipt, written_ns) if is_whole else None


def delete_all(folder: Path) -> None:
    """Delete the receipts in the folder of a stage, when its ledger holds what they tell.

    What cannot be deleted, or is added meanwhile by a late writer, does no harm and goes with the next run. In a
    storage what no ledger names goes with them.
    """
    if (remote := remote_of(folder)) is not None:
        remote.sweep(folder)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
