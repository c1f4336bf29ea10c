"""Deflate data unpacked block by block, with zlib's inflate.

In: raw deflate data, and for data that begin within a stream a restart point. Out: bytes, and where blocks end.
Invariant: from a restart point on, the bytes are those that unpacking from the beginning gives.
Python's `zlib` can neither stop at the end of a block nor begin at a bit, so the C library is called. Where it cannot
be loaded, `LIBRARY` is None, and large members are unpacked from their beginning.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import weakref
import zlib
from typing import Any

WINDOW_BYTES = 1 << 15
"""Unpacked bytes before a place to which deflate data may refer."""
_NAMES = {"linux": ("libz.so.1",), "darwin": ("libz.1.dylib", "/usr/lib/libz.1.dylib")}
_RAW = -15
"""Window bits that say: no header, no trailer."""
_SYNC, _BLOCK = 2, 5
"""Flush modes: unpack what there is room for, as Python's `zlib` does; return at the end of each block."""
_STREAM_END, _BUFFER_ERROR, _MEMORY_ERROR = 1, -5, -4
_AT_BLOCK, _LAST_BLOCK, _BITS = 128, 64, 7
"""Parts of `data_type` after a call."""


class _ZStream(ctypes.Structure):
    """`z_stream` of zlib.h."""

    _fields_ = (
        ("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p), ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int), ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong),
    )  # fmt: skip


def _load() -> Any:
    """The C library of zlib; None where it cannot be loaded."""
    stream, number, data = ctypes.POINTER(_ZStream), ctypes.c_int, ctypes.c_char_p
    for name in _NAMES.get(sys.platform, ()):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(name)
            library.zlibVersion.restype = ctypes.c_char_p
            library.inflateInit2_.argtypes = [stream, number, data, number]
            library.inflateSetDictionary.argtypes = [stream, data, ctypes.c_uint]
            library.inflateGetDictionary.argtypes = [stream, data, ctypes.POINTER(ctypes.c_uint)]
            library.inflatePrime.argtypes = [stream, number, number]
            library.inflate.argtypes = [stream, number]
            library.inflateEnd.argtypes = [stream]
            return library
    return None


LIBRARY = _load()


class Inflater:
    """One raw deflate stream."""

    def __init__(self, window: bytes = b"", bits: int = 0, byte: int = 0) -> None:
        """Begin; within a stream with the `window` before the place, whose first `bits` are the high ones of `byte`."""
        self._stream = _ZStream()
        self._at = ctypes.byref(self._stream)
        self._data = b""
        self._room = ctypes.create_string_buffer(WINDOW_BYTES)
        self.ended = False
        """Whether the stream has come to its end."""
        self.at_block = False
        """Whether the last step stopped between two blocks."""
        self._check(LIBRARY.inflateInit2_(self._at, _RAW, LIBRARY.zlibVersion(), ctypes.sizeof(_ZStream)))
        weakref.finalize(self, LIBRARY.inflateEnd, self._at)
        if bits:
            self._check(LIBRARY.inflatePrime(self._at, bits, byte >> (8 - bits)))
        if window:
            self._check(LIBRARY.inflateSetDictionary(self._at, window, len(window)))

    def feed(self, data: bytes) -> None:
        """Give the next packed bytes, once the earlier ones are used up."""
        self._data = data  # zlib reads from it
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        self._stream.avail_in = len(data)

    @property
    def unused(self) -> bytes:
        """The packed bytes that are not used yet."""
        return self._data[len(self._data) - self._stream.avail_in :]

    @property
    def unused_bytes(self) -> int:
        """How many they are."""
        return int(self._stream.avail_in)

    @property
    def bits(self) -> int:
        """Bits of the last used byte that belong to what follows."""
        return int(self._stream.data_type & _BITS)

    def window(self) -> bytes:
        """The last bytes unpacked, to which what follows may refer."""
        length = ctypes.c_uint()
        self._check(LIBRARY.inflateGetDictionary(self._at, self._room, ctypes.byref(length)))
        return self._room.raw[: length.value]

    def step(self, address: int, room: int, *, to_block: bool) -> int:
        """Unpack to an address until no room or no data is left, or a block ends; returns the number of bytes.

        Raises:
            zlib.error: the data are damaged; as Python's `zlib` says it.

        """
        stream = self._stream
        stream.next_out, stream.avail_out = address, room
        code = LIBRARY.inflate(self._at, _BLOCK if to_block else _SYNC)
        if code not in {0, _STREAM_END, _BUFFER_ERROR}:  # a buffer error: there was nothing to do
            self._check(code)
        self.ended = code == _STREAM_END
        self.at_block = code == 0 and stream.data_type & (_AT_BLOCK | _LAST_BLOCK) == _AT_BLOCK
        return room - int(stream.avail_out)

    def _check(self, code: int) -> None:
        if code == _MEMORY_ERROR:
            raise MemoryError
        if code:
            said = (self._stream.msg or b"").decode("ascii", "replace")
            raise zlib.error(f"Error {code} while decompressing data{f': {said}' if said else ''}")
