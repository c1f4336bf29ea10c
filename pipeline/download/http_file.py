"""A file on a web server that can seek, for readers of zip and Parquet, which begin at the end.

In: an `HttpClient` and a URL. Out: a binary file; each jump is one request with a range.
Cost: what is read, and a request a jump.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import Any

from corpus.pipeline.download.http_client import HttpClient
from corpus.pipeline.errors import SourceError
from corpus.pipeline.humanize import shown_url

_NEAR = 1 << 20
"""A jump forward of so many bytes is read, not requested."""


class HttpFile(io.RawIOBase):
    """The bytes at a URL."""

    def __init__(self, client: HttpClient, url: str) -> None:
        """Ask for the size.

        Raises:
            SourceError: the server does not have it, or does not say how large it is.

        """
        found = client.probe(url)
        if isinstance(found, str):
            raise SourceError(f"{shown_url(url)}: {found}")
        self._open = client.opener(url)
        self._url = url
        self._version, self._size = found, found.total
        self._at = 0
        self._stream = ExitStack()
        self._chunks: Any = None
        self._held = b""
        self._next = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the next read asks the server."""
        if whence == io.SEEK_END and self._size is None:
            raise SourceError(f"{shown_url(self._url)}: the server does not say how large it is")
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size or 0}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one chunk goes."""
        if self._size is not None and self._at >= self._size:
            return 0
        if self._chunks is None or not self._next <= self._at <= self._next + _NEAR:
            self._reopen()
        while self._next + len(self._held) <= self._at:
            self._next += len(self._held)
            self._held = next(self._chunks, b"")
            if not self._held:
                return 0
        data = self._held[self._at - self._next :][: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """End the request."""
        self._stream.close()
        super().close()

    def _reopen(self) -> None:
        self._stream.close()
        stream = self._stream.enter_context(self._open(self._at, self._version if self._at else None))
        self._chunks, self._held, self._next = stream.chunks, b"", stream.start
