"""A file somewhere: what names its version, and how it is opened in the middle.

In: a path, or anything that opens a file object. Out: a `File` that `fetch` can bring.
Invariants: a stream says where it really starts, and starts anywhere but at 0 only if the version is the one of the
part that is there; what a file system raises becomes TransientError (go on later) or DownloadError (do not).
Cost: a stat for each opening.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.download.retry import TransientError
from corpus.pipeline.errors import DownloadError
from corpus.pipeline.humanize import plain_text

PART = ".part"
"""Ending of a file that is not whole yet."""
GIVEN = "given"
"""Origin of what was on a disk of this machine: its path is nobody else's business."""
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What tells one version of a file from another."""

    etag: str = ""
    """A strong entity tag, or what a file system gives in its place."""
    modified: str = ""
    """Last-Modified as the server wrote it."""
    total: int | None = None
    """Bytes of the whole file."""

    @property
    def condition(self) -> str:
        """What If-Range takes; empty when there is nothing by which a change would show."""
        return self.etag or self.modified

    def is_same(self, other: Stamp) -> bool:
        """Whether both surely name one version: something that both have agrees, and nothing contradicts."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified))
        common = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
        has_size = self.total is None or other.total is None or self.total == other.total
        return bool(common) and has_size and all(mine == theirs for mine, theirs in common)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Bytes of a file from `start` on."""

    start: int
    """The offset that was asked for, or 0."""
    stamp: Stamp
    chunks: Iterator[bytes]
    why: str = ""
    """Why it starts at 0 although more was asked for."""
    is_page: bool = False
    """The server calls it HTML."""
    encoding: str = ""
    """A content encoding that was not asked for."""


Opener = Callable[[int, Stamp | None], AbstractContextManager[Stream]]


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file to bring into the workspace."""

    path: str
    """Its name below `raw/<dataset>/`, with slashes."""
    shown: str
    """What messages call the place; free of secrets."""
    origin: str
    """What `origin.json` says of it: its URL, or "given"."""
    opener: Opener
    """Opens it at an offset; the stamp is that of the part that is there."""
    bytes: int | None = None
    """Its size, where that is known beforehand."""
    sha256: str | None = None
    """What binds its bytes, if anything does."""
    tag: str = ""
    """Identity of this version, where the place tells it beforehand."""
    local: Path | None = None
    """Where it lies, if on a disk of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A file that is in the workspace."""

    path: str
    origin: str
    bytes: int
    sha256: str
    stamp: Stamp


def local_file(path: Path, name: str) -> File:
    """A file on a disk of this machine; `path` has no links in it."""
    shown = str(path)

    def stamp() -> Stamp:
        stat = path.stat()
        return Stamp(etag=f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}", total=stat.st_size)

    now = stamp()
    opener = seeking_opener(lambda: path.open("rb"), stamp, shown)
    return File(
        path=name, shown=shown, origin=GIVEN, opener=opener, bytes=now.total, tag=now.etag, local=path
    )  # fmt: skip


def seeking_opener(open_file: Callable[[], Any], stamp: Callable[[], Stamp], shown: str) -> Opener:
    """How `fetch` opens what is a file object, by seeking where it can."""

    @contextmanager
    def open_at(offset: int, known: Stamp | None) -> Iterator[Stream]:
        start, why = 0, ""
        with _reading(shown):
            now = stamp()
            source = open_file()
        with closing(source):
            if offset and known is not None and not known.is_same(now):
                why = "it has changed since its first part came"
            elif offset:
                with _reading(shown):
                    start = source.seek(offset) if source.seekable() else 0
                why = "" if start else "this file system cannot go on in the middle"
            yield Stream(start=start, stamp=now, chunks=_blocks(source, shown), why=why)

    return open_at


def _blocks(source: Any, shown: str) -> Iterator[bytes]:
    with _reading(shown):
        while block := source.read(_COPY_BYTES):
            yield bytes(block)


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    """What a file system raises while a file is read."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise DownloadError(f"{shown}: {words(error)}") from error
    except OSError as error:
        raise TransientError(f"reading broke off ({words(error)})") from error
    except Exception as error:  # fsspec's back-ends raise what their libraries raise
        raise DownloadError(f"{shown}: {words(error)}") from error


def words(error: Exception) -> str:
    """An exception of a stranger's library without what it may repeat of a URL."""
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return plain_text(re.sub(r"//[^/@\s]*@", "//", text)) or type(error).__name__
