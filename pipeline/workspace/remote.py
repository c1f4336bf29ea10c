"""What a workspace asks of the storage that it lies in; `corpus.pipeline.store` answers.

A workspace in a storage is an ordinary folder on this machine, the working copy, whose root is attached to a `Remote`
in each process that works in it. All code that reads and writes a workspace works in the folder; only the places in
this wing that finish something, or compare a file with its ledger before it is read, ask `remote_of`.
Invariants: what the storage holds is the truth. A ledger or receipt is there after the files that it names, and on this
disk after that; a ledger is deleted there before it is deleted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from corpus.pipeline.progress import SILENT, Progress


class Named(Protocol):
    """A file as a ledger or a receipt names it, relative to its folder."""

    @property
    def path(self) -> str:
        """Its path."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes."""


class Remote(Protocol):
    """The storage of one workspace. All methods raise StoreError, and DiskError for the working copy."""

    shown: str
    """Its URL in messages, without secrets."""

    def holding(self, command: str, kind: str = "") -> AbstractContextManager[None]:
        """Claim the workspace for a writing command, bring the ledgers, and in the end send what no ledger names.

        With `kind` it is claimed together with other jobs whose work is of that kind. Raises BusyError.
        """

    def refresh(self) -> None:
        """Bring ledgers, receipts and manifests, for a command that only reads."""

    def fetch(self, folder: Path, outputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Bring outputs of a stage that are not here as its ledger says."""

    def fetch_inputs(self, inputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Bring the inputs of a stage, named relative to the workspace; with a ledger the outputs that it names."""

    def offer(self, paths: Iterable[Path]) -> None:
        """Send files that pieces on other nodes read, and that were written after the stage had begun."""

    def fetch_beside(self, folder: Path, progress: Progress = SILENT) -> None:
        """Bring files of a stage that no ledger names and that spare it work."""

    def changes(
        self, folder: Path, outputs: Iterable[Named], digest: Callable[[Path], str] | None
    ) -> Iterator[tuple[str, str]]:
        """Outputs that the storage does not have as their ledger says, as (path, what is wrong)."""

    def push_piece(
        self, folder: Path, outputs: Iterable[Named], receipt: str, data: bytes, beside: Iterable[Path] = ()
    ) -> None:
        """Send the outputs of a piece, then its receipt, named relative to the folder."""

    def push_ledger(self, folder: Path, outputs: Iterable[Named], ledger: bytes) -> None:
        """Send the outputs of a stage that no receipt names, then its ledger."""

    def delete_ledger(self, folder: Path) -> None:
        """Delete the ledger of a stage, before an output changes."""

    def sweep(self, folder: Path) -> None:
        """Delete the receipts of a finished stage, and objects in its folder that its ledger does not name."""

    def send(self, folder: Path) -> None:
        """Send the files of a folder that no ledger names, for a command that writes nothing else."""

    def check(self, folder: Path, outputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Read outputs of a stage from the storage, and compare them with its ledger."""


_ATTACHED: dict[Path, Remote] = {}


def attach(root: Path, remote: Remote) -> None:
    """Make a folder the working copy of a workspace in a storage, for this process."""
    _ATTACHED[root] = remote


def remote_of(path: Path) -> Remote | None:
    """The storage of the workspace that a path lies in; None for one that is a folder alone."""
    if not _ATTACHED:
        return None
    return next((_ATTACHED[place] for place in (path, *path.parents) if place in _ATTACHED), None)


def shown(path: Path) -> str:
    """A path as a user finds it: in a storage by its URL."""
    remote = remote_of(path)
    if remote is None:
        return str(path)
    root = next(place for place in (path, *path.parents) if place in _ATTACHED)
    return f"{remote.shown}/{path.relative_to(root).as_posix()}".removesuffix("/.")


def fetched(folder: Path, outputs: Iterable[Named], progress: Progress = SILENT) -> None:
    """Bring outputs of a stage; nothing for a workspace that is a folder alone, where they are."""
    if (remote := remote_of(folder)) is not None:
        remote.fetch(folder, outputs, progress)
