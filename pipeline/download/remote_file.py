"""A file to download: its version, and how to open it at an offset.

In: a path, or a function that opens a file object.
Out: a `RemoteFile` for `fetch`.
Invariants: a stream starts at an offset other than 0 only if the version is that of the partial file. File system
errors become TransientError (retry) or DownloadError (give up).
Cost: one stat for each opening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.download.retry import TransientError
from corpus.pipeline.errors import DownloadError
from corpus.pipeline.humanize import error_text

PART_SUFFIX = ".part"
GIVEN = "given"
"""Origin of local files, whose paths are not recorded."""
CHANGED = "the file has changed since the partial download"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FileVersion:
    """What tells one version of a file from another."""

    etag: str = ""
    """A strong entity tag, or the file system's equivalent."""
    modified: str = ""
    """Last-Modified as the server wrote it."""
    total: int | None = None
    """Size of the whole file."""

    @property
    def condition(self) -> str:
        """Value for If-Range; empty when there is neither ETag nor Last-Modified."""
        return self.etag or self.modified

    def is_same(self, other: FileVersion) -> bool:
        """Whether both are certainly one version: at least one validator in common, and no difference."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified))
        common = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
        has_size = self.total is None or other.total is None or self.total == other.total
        return bool(common) and has_size and all(mine == theirs for mine, theirs in common)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Bytes of a file from `start` on."""

    start: int
    """The requested offset, or 0."""
    version: FileVersion
    chunks: Iterator[bytes]
    restart_reason: str = ""
    """Why it starts at 0 although an offset was requested."""
    is_html: bool = False
    """Whether the Content-Type is HTML."""
    encoding: str = ""
    """Content-Encoding, other than identity."""


Opener = Callable[[int, FileVersion | None], AbstractContextManager[Stream]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file to download into the workspace."""

    path: str
    """Its name in `raw/<dataset>/`."""
    shown: str
    """Its URL or path in messages, without secrets."""
    origin: str
    """Its entry in `origin.json`: the URL without secrets, or "given"."""
    opener: Opener
    """Opens it at an offset, given the version of the partial file."""
    bytes: int | None = None
    """Its size, where known beforehand."""
    sha256: str | None = None
    """Expected checksum, where known."""
    tag: str = ""
    """Identity of this version, where known beforehand."""
    local: Path | None = None
    """Its path, if it is on a disk of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadedFile:
    """A complete and verified file in the workspace."""

    path: str
    origin: str
    bytes: int
    sha256: str
    version: FileVersion


def local_file(path: Path, name: str) -> RemoteFile:
    """A file on a disk of this machine; `path` contains no symbolic links."""
    shown = str(path)

    def version() -> FileVersion:
        stat = path.stat()
        return FileVersion(etag=f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}", total=stat.st_size)

    now, opener = version(), seeking_opener(lambda: path.open("rb"), version, shown)
    return RemoteFile(path=name, shown=shown, origin=GIVEN, opener=opener, bytes=now.total, tag=now.etag, local=path)


def seeking_opener(open_file: Callable[[], Any], version: Callable[[], FileVersion], shown: str) -> Opener:
    """An opener for file objects, which seeks where it can."""

    @contextmanager
    def open_at(offset: int, known: FileVersion | None) -> Iterator[Stream]:
        start, why = 0, ""
        with _read_errors(shown):
            now = version()
            source = open_file()
        with closing(source):
            if offset and known is not None and not known.is_same(now):
                why = CHANGED
            elif offset:
                with _read_errors(shown):
                    start = source.seek(offset) if source.seekable() else 0
                why = "" if start else "this file system cannot seek"
            yield Stream(start=start, version=now, chunks=_blocks(source, shown), restart_reason=why)

    return open_at


def _blocks(source: Any, shown: str) -> Iterator[bytes]:
    with _read_errors(shown):
        while block := source.read(_COPY_BYTES):
            yield bytes(block)


@contextmanager
def _read_errors(shown: str) -> Iterator[None]:
    """Turn what a file system raises during a read into TransientError or DownloadError."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise DownloadError(f"{shown}: {error_text(error)}") from error
    except OSError as error:
        raise TransientError(f"read error ({error_text(error)})") from error
    except Exception as error:  # fsspec's back-ends raise what their libraries raise
        raise DownloadError(f"{shown}: {error_text(error)}") from error
