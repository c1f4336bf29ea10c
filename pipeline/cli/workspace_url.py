"""`--workspace URL`: a workspace in a storage, which commands use by its working copy on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace

_URLS: dict[Path, str] = {}
"""The URL of each working copy that the command line names."""
_OPENED: dict[Path, Workspace] = {}


def is_url(place: str) -> bool:
    """Whether `--workspace` names a storage.

    >>> is_url("s3://bucket/corpus"), is_url("workspace")
    (True, False)
    """
    return "://" in place


def open_url(url: str) -> Path:
    """The working copy of the workspace at a URL; nothing is asked of the storage yet."""
    from corpus.pipeline.store import open_workspace
    from corpus.pipeline.terminal.console import Console

    workspace = open_workspace(url, progress=Console())
    _URLS[workspace.root], _OPENED[workspace.root] = url, workspace
    return workspace.root


def opened(folder: Path) -> Workspace:
    """The workspace in a folder; of a working copy the one that knows the digests of what was brought."""
    from corpus.pipeline.workspace.layout import Workspace

    refresh(folder)
    return _OPENED.get(folder) or Workspace(folder.expanduser())


def refresh(folder: Path) -> None:
    """Bring what is small of a workspace in a storage, once in a command; nothing for a folder."""
    from corpus.pipeline.workspace.remote import remote_of

    remote, context = remote_of(folder), click.get_current_context(silent=True)
    done = context.find_root().meta.setdefault(__name__, set()) if context else set()
    if remote is not None and folder not in done:
        remote.refresh()
        done.add(folder)


@contextlib.contextmanager
def sending(folder: Path, *names: str) -> Iterator[None]:
    """After the block send what it has written into these folders of a workspace in a storage."""
    from corpus.pipeline.workspace.remote import remote_of

    yield
    if (remote := remote_of(folder)) is not None:
        for name in names:
            remote.send(folder / name)


def shown(folder: Path) -> str:
    """The folder, or the URL of a working copy, as one types it."""
    return _URLS.get(folder, str(folder))
