"""Compressed members that are read from within: a large one is cut into ranges as a plain file is.

In: a member of a zip archive, or a gzip file. Out: its bytes from any restart point on, and while it is read from its
beginning the restart points of it: one before each multiple of a spacing, at the end of a deflate block.
Invariants: the bytes, and the errors of a damaged member, are those of `zipfile` and `gzip`. A reader that begins at a
point checks no checksum: the reader that noted the points has.
Cost: a point is 32 KiB. Unpacking takes 6 ms a MB, as with `zipfile`.
"""

from __future__ import annotations

import ctypes
import gzip
import struct
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from corpus.pipeline.read import deflate
from corpus.pipeline.read.archives import archive_errors, zip_member
from corpus.pipeline.read.deflate import Inflater
from corpus.pipeline.read.raw_files import open_raw
from corpus.pipeline.read.spans import RecordFile, RestartPoint

_PACKED_BYTES = 1 << 16
"""One read of packed data."""
_NEAR_BYTES = 2 << 20
"""Points are noted this near before a multiple of the spacing; a deflate block is seldom longer than 100 kB."""
_GZIP_HEADER = struct.Struct("<BB6x")
_MAGIC = b"\x1f\x8b"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_TOO_SHORT = "Compressed file ended before the end-of-stream marker was reached"


@dataclass(frozen=True, slots=True)
class MemberIndex:
    """The restart points of a member that was read to its end."""

    bytes: int
    """Unpacked."""
    sha256: str | None
    """Digest of the unpacked bytes, if it was wanted."""
    points: Sequence[RestartPoint]

    def before(self, offset: int) -> RestartPoint:
        """The last point before a byte, or the first."""
        return point_before(self.points, offset)


def point_before(points: Sequence[RestartPoint], offset: int) -> RestartPoint:
    """The last of the points, of which there is one at 0, before a byte; or that one."""
    return points[max(0, bisect_left(points, offset, key=lambda point: point.offset) - 1)]


class DeflateStream:
    """The unpacked bytes of a member, from its beginning or from a restart point on."""

    def __init__(self, packed: IO[bytes], start: RestartPoint | None, spacing: int | None) -> None:
        self._packed = packed
        self._buffer = ctypes.create_string_buffer(1)
        self._fed = start.packed if start else 0  # the place in the file behind what the inflater was given
        self._crc: int | None = None if start else 0  # None where the beginning is not known
        self._spacing = spacing
        self._border = spacing or 0
        self._points: list[RestartPoint] = []
        self._candidate: RestartPoint | None = None
        self._over = False
        self._inflater: Inflater
        self.offset = start.offset if start else 0
        """Unpacked bytes before the next one."""
        if start:
            self._restart(start)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer than `size` only at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if len(self._buffer) < size:
            self._buffer = ctypes.create_string_buffer(size)
        address, view, filled = ctypes.addressof(self._buffer), memoryview(self._buffer), 0
        room = self._room(size)
        is_near = bool(self._spacing) and self.offset + room > self._border - _NEAR_BYTES
        while filled < room and not self._over:
            if not self._inflater.unused_bytes and not self._feed():
                break
            made = self._inflater.step(address + filled, room - filled, to_block=is_near)
            if self._crc is not None:
                self._crc = zlib.crc32(view[filled : filled + made], self._crc)
            filled += made
            self.offset += made
            if self._inflater.ended:
                self._end_stream()
            elif is_near and self._inflater.at_block:
                self._note_block()
        self._check_end()
        return bytes(view[:filled])

    def skip_to(self, offset: int) -> None:
        """Go on to a byte of the unpacked member."""
        while self.offset < offset and self.read(min(1 << 20, offset - self.offset)):
            pass

    def points(self) -> Sequence[RestartPoint]:
        """The restart points so far: one at 0, and for each multiple of the spacing the last before it."""
        return [*self._points, *((self._candidate,) if self._candidate else ())]

    def _room(self, size: int) -> int:
        """How many bytes may be unpacked."""
        return size

    def _more(self) -> bytes:
        """The next packed bytes; empty at the end of the member."""
        raise NotImplementedError

    def _end_stream(self) -> None:
        """What follows the end of a deflate stream."""
        raise NotImplementedError

    def _check_end(self) -> None:
        """Raise when the member has ended and is not whole."""

    def _feed(self) -> bool:
        data = self._more()
        self._fed += len(data)
        self._inflater.feed(data)
        return bool(data)

    def _begin(self, unused: bytes = b"") -> None:
        """A deflate stream begins at the place in the file."""
        self._inflater = Inflater()
        self._inflater.feed(unused)
        self._note(RestartPoint(self.offset, self._fed - len(unused), 0, b""))

    def _restart(self, point: RestartPoint) -> None:
        self._packed.seek(point.packed - 1 if point.bits else point.packed)
        byte = self._packed.read(1)[0] if point.bits else 0
        self._inflater = Inflater(point.window, point.bits, byte)

    def _note_block(self) -> None:
        """A block begins here."""
        at = self._fed - self._inflater.unused_bytes
        self._note(RestartPoint(self.offset, at, self._inflater.bits, self._inflater.window()))

    def _note(self, point: RestartPoint) -> None:
        """Keep a point until there is a nearer one before the same border."""
        if not self._spacing:
            return
        if not self._points:  # the one at 0
            self._points.append(point)
        elif point.offset >= self._border:
            if self._candidate:
                self._points.append(self._candidate)
            self._border = (point.offset // self._spacing + 1) * self._spacing
            self._candidate = point
        else:
            self._candidate = point


class ZipStream(DeflateStream):
    """A deflated member of a zip archive."""

    def __init__(
        self, packed: IO[bytes], member: zipfile.ZipInfo, data_at: int, start: RestartPoint | None, spacing: int | None
    ) -> None:
        super().__init__(packed, start, spacing)
        self._member = member
        self._end = data_at + member.compress_size
        if start is None:
            self._fed = packed.seek(data_at)
            self._begin()

    def _room(self, size: int) -> int:
        return min(size, self._member.file_size - self.offset)

    def _more(self) -> bytes:
        data = self._packed.read(min(_PACKED_BYTES, self._end - self._fed))
        if not data and self._fed < self._end:
            raise EOFError
        self._over = not data
        return data

    def _end_stream(self) -> None:
        self._over = True

    def _check_end(self) -> None:
        if self._over or self.offset == self._member.file_size:
            self._over = True
            if self._crc not in {None, self._member.CRC}:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._member.filename!r}")


class GzipStream(DeflateStream):
    """A gzip file: gzip members one after another."""

    def __init__(self, packed: IO[bytes], start: RestartPoint | None, spacing: int | None) -> None:
        super().__init__(packed, start, spacing)
        self._unused = b""
        self._began = self.offset
        if start is None:
            self._begin_member()

    def _more(self) -> bytes:
        data = self._packed.read(_PACKED_BYTES)
        if not data:
            raise EOFError(_TOO_SHORT)
        return data

    def _end_stream(self) -> None:
        """Check the trailer, and begin the next member."""
        self._unused = self._inflater.unused
        crc, size = struct.unpack("<II", self._take(8))
        if self._crc not in {None, crc}:
            raise gzip.BadGzipFile(f"CRC check failed {crc:#x} != {self._crc:#x}")
        if self._crc is not None and size != (self.offset - self._began) & 0xFFFFFFFF:
            raise gzip.BadGzipFile("Incorrect length of data produced")
        while not self._unused.strip(b"\0"):  # padding
            self._unused = self._read()
            if not self._unused:
                self._over = True
                return
        self._unused = self._unused.lstrip(b"\0")
        self._begin_member()

    def _begin_member(self) -> None:
        """Read the header of a member, if there is one."""
        magic = self._take(2, may_end=True)
        if not magic:
            self._over = True
            return
        if magic != _MAGIC:
            raise gzip.BadGzipFile(f"Not a gzipped file ({magic!r})")
        method, flags = _GZIP_HEADER.unpack(self._take(_GZIP_HEADER.size))
        if method != zipfile.ZIP_DEFLATED:
            raise gzip.BadGzipFile("Unknown compression method")
        if flags & _EXTRA:
            self._take(int.from_bytes(self._take(2), "little"))
        for text in (_NAME, _COMMENT):
            while flags & text and self._take(1, may_end=True) not in {b"", b"\0"}:
                pass
        if flags & _HEADER_CRC:
            self._take(2)
        self._crc, self._began = 0, self.offset
        unused, self._unused = self._unused, b""
        self._begin(unused)

    def _read(self) -> bytes:
        data = self._packed.read(_PACKED_BYTES)
        self._fed += len(data)
        return data

    def _take(self, size: int, *, may_end: bool = False) -> bytes:
        """The next packed bytes outside a deflate stream."""
        while len(self._unused) < size and (more := self._read()):
            self._unused += more
        taken, self._unused = self._unused[:size], self._unused[size:]
        if len(taken) < size and not may_end:
            raise EOFError(_TOO_SHORT)
        return taken


def is_deflate(raw: Path, file: RecordFile) -> bool:
    """Whether a file can be opened by `open_deflate`.

    Raises:
        ArchiveError: the container is damaged.

    """
    if deflate.LIBRARY is None:
        return False
    if file.codec == "zip":
        return zip_member(raw / file.container, file.path)[0].compress_type == zipfile.ZIP_DEFLATED
    return file.codec == "gz"


@contextmanager
def open_deflate(
    raw: Path, file: RecordFile, start: RestartPoint | None = None, *, spacing: int | None = None
) -> Iterator[DeflateStream]:
    """A deflated file of records from a restart point on, or from its beginning with points noted.

    Raises:
        ArchiveError: the container is damaged.

    """
    path = raw / file.container
    with archive_errors(path, file.path), open_raw(path) as packed:
        if file.codec == "zip":
            yield ZipStream(packed, *zip_member(path, file.path), start, spacing)
        else:
            yield GzipStream(packed, start, spacing)
