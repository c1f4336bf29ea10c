"""Opening a workspace that lies in a storage: on the machine of a command, in its workers, and on a node of a cluster.

In: a URL that `open_store` opens, and a folder for working copies. Out: a `Workspace` in a folder of its own below that
one, attached to the storage for this process.
Invariants: one URL has one working copy in a cache; what is in it can be fetched again, so it may be deleted while no
command runs, but for checkpoints of a run that is not finished, and partial downloads.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.store.cache import cache_folder
from corpus.pipeline.store.claims import Timing
from corpus.pipeline.store.opening import open_store
from corpus.pipeline.store.retry import Retry
from corpus.pipeline.store.working_copy import WorkingCopy
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.lock import alone
from corpus.pipeline.workspace.remote import Named, attach, remote_of

_FOLDER = "workspaces"
_BRINGING = ".lock.bring"


def working_copy(url: str, cache: Path | None = None) -> Path:
    """The folder of the working copy of a workspace; nothing is made."""
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:32]
    return cache_folder(cache) / _FOLDER / name


def open_workspace(
    url: str, cache: Path | None = None, *, progress: Progress = SILENT, retry: Retry | None = None,
    timing: Timing | None = None,
) -> Workspace:  # fmt: skip
    """The workspace at a URL, attached for this process; nothing is asked of the storage yet.

    Raises:
        StoreError: there is no such file system, its package is not installed, or the URL has a password.

    """
    workspace = Workspace(working_copy(url, cache))
    copy = WorkingCopy(
        open_store(url, retry=retry), workspace, prepare=partial(work_in, url, workspace.root),
        on_nodes=Node(url, cache, workspace.root), timing=timing, progress=progress,
    )  # fmt: skip
    attach(workspace.root, copy)
    return workspace


def work_in(url: str, root: Path) -> None:
    """Attach a working copy in a worker process, whose receipts are then sent; a second call does nothing."""
    if remote_of(root) is None:
        attach(root, WorkingCopy(open_store(url), Workspace(root)))


def on_node(url: str, cache: Path | None, inputs: Iterable[Named], progress: Progress = SILENT) -> Workspace:
    """The workspace at a URL for a process of a cluster that makes pieces: their inputs are here when it returns.

    `inputs` are files relative to the workspace, such as `StageRun.inputs`: with a ledger come the outputs that it
    names, but dropped records, and with an index of lists the lists. What is here is not asked for again, so a process
    calls this for each piece. A receipt that is written in the workspace then sends its outputs and itself. The process
    that drives the others holds the claim.

    Raises:
        StoreError: an input is not there, or has other bytes than it should.
        DiskError: the working copy cannot be written.

    """
    workspace = Workspace(working_copy(url, cache))
    work_in(url, workspace.root)
    if (remote := remote_of(workspace.root)) is not None:
        with alone(workspace.root / _BRINGING):  # else one process could delete an old file that another has replaced
            remote.fetch_inputs(inputs, progress)
    return workspace


@dataclass(slots=True)
class Node:
    """What a process of a cluster calls before each piece; the first call of a run brings the inputs."""

    url: str
    cache: Path | None
    """The folder for working copies that the program names; without one each node's environment names it."""
    root: Path
    """The working copy of the command, by whose path pieces name their files."""
    inputs: Sequence[Named] = ()
    _is_ready: bool = False

    def __call__(self) -> None:
        """Make this node's working copy ready.

        Raises:
            WorkspaceError: this node has its working copies in another folder than the command has.
            StoreError, DiskError: as `on_node`.

        """
        if self._is_ready:
            return
        if (here := working_copy(self.url, self.cache)) != self.root:
            raise WorkspaceError(
                f"node {socket.gethostname()} has its working copies in {here.parent}, the command in "
                f"{self.root.parent}; pieces name their files by path",
                hint=f"Set CORPUS_CACHE={self.root.parent.parent} where `ray start` runs on each node.",
            )
        on_node(self.url, self.cache, self.inputs)
        self._is_ready = True
