"""Opening a file inside its container: zip, tar, gzip, xz, zstd.

Invariants: nothing is unpacked to disk; a stream unpacks to at most a fixed multiple of its packed size.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from corpus.pipeline.errors import ArchiveError
from corpus.pipeline.read.spans import RecordFile

SUFFIXES = (".gz", ".xz", ".zst")
"""Endings of compressed single files."""
_RATIO_LIMIT = 250
_RATIO_FREE_BYTES = 64 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    gzip.BadGzipFile,
    NotImplementedError,
)
UNREADABLE = (*_DAMAGE, OSError, ValueError, TypeError, IndexError, OverflowError, struct.error)
"""All that zipfile and tarfile raise when the directory of an archive is damaged."""


@contextmanager
def open_file(raw: Path, file: RecordFile) -> Iterator[IO[bytes]]:
    """A file of records as a stream of unpacked bytes.

    Raises:
        ArchiveError: the container is damaged, or unpacks to far more than text would.

    """
    path = raw / file.container
    with archive_errors(path, file.path), path.open("rb") as packed:
        if file.codec == "zip":
            with _zip_member(path, file.path) as stream:
                yield stream
        elif file.codec == "tar":
            yield TarReader(raw).open(file)
        elif file.codec == "plain":
            yield packed
        else:
            with decompressor(packed, f".{file.codec}") as stream:
                yield BoundedReader(stream, path.stat().st_size, f"{path}")  # type: ignore[misc]  # only read() is used


@contextmanager
def archive_errors(path: Path, member: str) -> Iterator[None]:
    """Turn the exceptions of a damaged archive into an ArchiveError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and not isinstance(error, _DAMAGE):
            raise
        raise _damaged(path, member, error) from error  # bz2 and zstd raise a bare OSError
    except _DAMAGE as error:
        raise _damaged(path, member, error) from error


class TarReader:
    """Members of tar archives; an archive is read once if its members are opened in their order."""

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._container = ""
        self._archive: tarfile.TarFile | None = None

    def open(self, file: RecordFile) -> IO[bytes]:
        """The stream of a member, valid until the next one is opened."""
        path = self._raw / file.container
        with archive_errors(path, file.path):
            for fresh in (False, True):
                if fresh or self._container != file.container or self._archive is None:
                    self._container, self._archive = file.container, open_tar(path)
                while (entry := self._archive.next()) is not None:
                    stream = self._archive.extractfile(entry) if entry.name == file.path else None
                    if stream is not None:
                        return stream
                    self._archive.members = []  # type: ignore[attr-defined]  # it would keep every header in memory
        raise ArchiveError(f"{path}: {file.path} is no longer in it")


def open_tar(path: Path) -> tarfile.TarFile:
    """A tar archive as a stream, with any compression."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic == b"\x28\xb5\x2f\xfd":
        return tarfile.open(fileobj=decompressor(file, ".zst"), mode="r|")
    return tarfile.open(fileobj=file, mode="r|*")


@functools.lru_cache(maxsize=2)
def _zip(path: Path, _mtime_ns: int) -> zipfile.ZipFile:
    """A cached archive, so that a process reads its directory once."""
    return zipfile.ZipFile(path)


def _zip_member(path: Path, member: str) -> IO[bytes]:
    try:
        return _zip(path, path.stat().st_mtime_ns).open(member)
    except (*UNREADABLE, KeyError, RuntimeError) as error:
        raise _damaged(path, member, error) from error


def _damaged(path: Path, member: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path}: {member} cannot be unpacked: {error or 'it ends too early'}",
        hint="The archive is damaged: delete it and fetch it again.",
    )


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class DigestReader:
    """A stream that counts the bytes read, and hashes them if `wanted`."""

    def __init__(self, stream: IO[bytes], *, wanted: bool) -> None:
        self._stream = stream
        self.digest = hashlib.sha256() if wanted else None
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read, and update count and digest."""
        data = self._stream.read(size)
        if self.digest:
            self.digest.update(data)
        self.bytes += len(data)
        return data


class BoundedReader:
    """A stream that limits the ratio of unpacked to packed bytes."""

    def __init__(self, stream: IO[bytes], packed_bytes: int, name: str) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._unpacked_bytes = 0
        self._name = name

    def read(self, size: int = -1) -> bytes:
        """Read; raises ArchiveError beyond the ratio."""
        data = self._stream.read(size)
        self._unpacked_bytes += len(data)
        check_ratio(self._name, self._unpacked_bytes, self._packed_bytes)
        return data


def check_ratio(name: object, unpacked_bytes: int, packed_bytes: int) -> None:
    """Raise ArchiveError when the ratio is too high for text."""
    if unpacked_bytes > max(_RATIO_FREE_BYTES, packed_bytes * _RATIO_LIMIT):
        raise ArchiveError(f"{name} unpacks to more than {_RATIO_LIMIT} times its size: not text, refused")


def decompressor(packed: IO[bytes], suffix: str) -> Any:
    """A stream of unpacked bytes, by one of SUFFIXES."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=packed)
    if suffix == ".xz":
        return lzma.LZMAFile(packed)
    return pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")  # it alone detects a truncated stream
