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
from typing import IO, Any

import pyarrow as pa

from corpus.pipeline.errors import ArchiveError
from corpus.pipeline.read.raw_files import open_raw, size_of, source_of, stamp_of
from corpus.pipeline.read.spans import ByteStream, RecordFile

SUFFIXES = (".gz", ".xz", ".zst")
"""Endings of compressed single files."""
_RATIO_LIMIT = 250
_RATIO_FREE_BYTES = 64 << 20
_LOCAL_HEADER = struct.Struct("<26xHH")
"""What stands before the data of a zip member: the lengths of its name and of its extra field."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, lzma.LZMAError, tarfile.TarError, NotImplementedError)
UNREADABLE = (*_DAMAGE, OSError, ValueError, TypeError, IndexError, OverflowError, struct.error)
"""All that zipfile and tarfile raise when the directory of an archive is damaged."""


@contextmanager
def open_file(raw: Path, file: RecordFile) -> Iterator[IO[bytes]]:
    """A file of records as a stream of unpacked bytes.

    Raises:
        ArchiveError: the container is damaged, or unpacks to far more than text would.

    """
    path = raw / file.container
    with archive_errors(path, file.path), open_raw(path) as packed:
        if file.codec == "zip":
            with _zip_stream(path, file.path) as member:
                yield member
        elif file.codec == "tar":
            yield TarReader(raw).open(file)
        elif file.codec == "plain":
            yield packed
        else:
            with decompressor(packed, f".{file.codec}") as stream:
                yield CountingReader(stream, path=path)  # type: ignore[misc]  # only read() is used


@contextmanager
def archive_errors(path: Path, member: str) -> Iterator[None]:
    """Turn the exceptions of a damaged archive into an ArchiveError that names it."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip, bz2 and zstd raise a bare OSError
            raise
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
    return open_tar_stream(open_raw(path))


def open_tar_stream(file: IO[bytes]) -> tarfile.TarFile:
    """The tar archive in a stream that can seek."""
    magic = file.read(4)
    file.seek(0)
    if magic == b"\x28\xb5\x2f\xfd":
        return tarfile.open(fileobj=decompressor(file, ".zst"), mode="r|")
    return tarfile.open(fileobj=file, mode="r|*")


@functools.lru_cache(maxsize=2)
def _zip(path: Path, _mtime_ns: int) -> zipfile.ZipFile:
    """A cached archive, so that a process reads its directory once."""
    return zipfile.ZipFile(source_of(path))


def _zip_stream(path: Path, name: str) -> IO[bytes]:
    try:
        return _zip(path, stamp_of(path)).open(name)
    except (*UNREADABLE, KeyError, RuntimeError) as error:
        raise _damaged(path, name, error) from error


def zip_member(path: Path, name: str) -> tuple[zipfile.ZipInfo, int]:
    """The entry of a member, and the place in the archive where its data begin.

    Raises:
        ArchiveError: the archive is damaged.

    """
    _zip_stream(path, name).close()  # checks the header before the data
    entry = _zip(path, stamp_of(path)).getinfo(name)
    with open_raw(path) as archive:
        archive.seek(entry.header_offset)
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack(archive.read(_LOCAL_HEADER.size))
    return entry, entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes


def _damaged(path: Path, member: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path}: {member} cannot be unpacked: {error or 'it ends too early'}",
        hint="The archive is damaged: delete it and fetch it again.",
    )


class CountingReader:
    """A stream that counts the bytes read, hashes them if `hashed`, and bounds their ratio to a packed `path`."""

    def __init__(self, stream: ByteStream, *, hashed: bool = False, path: Path | None = None) -> None:
        self._stream = stream
        self._path = path
        self._packed_bytes = size_of(path) if path else 0
        self.digest = hashlib.sha256() if hashed else None
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read; raises ArchiveError beyond the ratio."""
        data = self._stream.read(size)
        self.bytes += len(data)
        if self.digest:
            self.digest.update(data)
        if self._path:
            check_ratio(self._path, self.bytes, self._packed_bytes)
        return data

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the bytes read, in hexadecimal; None if they are not hashed."""
        return self.digest.hexdigest() if self.digest else None


def check_ratio(path: Path, unpacked_bytes: int, packed_bytes: int) -> None:
    """Raise ArchiveError when the ratio is too high for text."""
    if unpacked_bytes > max(_RATIO_FREE_BYTES, packed_bytes * _RATIO_LIMIT):
        raise ArchiveError(f"{path} unpacks to more than {_RATIO_LIMIT} times its size: not text, refused")


def decompressor(packed: IO[bytes], suffix: str) -> Any:
    """A stream of unpacked bytes, by one of SUFFIXES."""
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=packed)
    if suffix == ".xz":
        return lzma.LZMAFile(packed)
    return pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")  # it alone detects a truncated stream
