"""References: files of a dataset that stay where they are, in a storage or on a web server, and are read there.

In: `NAME.reference`, a small file in `raw/<dataset>/` with URL, size and ETag of NAME. Out: NAME as a file that can
seek.
Invariants: a reference has no credentials. Bytes of another version are never given: S3 refuses them by If-Match;
elsewhere the ETag is asked for after each block. A file that was replaced is refused by name.
Cost: a request for each block of `BLOCK_BYTES`; the last few blocks are in memory.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from corpus.pipeline.errors import DamageError, ObjectMissingError, StoreError
from corpus.pipeline.store.objects import BLOCK_BYTES
from corpus.pipeline.store.opening import open_store
from corpus.pipeline.store.retry import Retry
from corpus.pipeline.workspace.layout import REFERENCE

_BLOCKS = 3
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A file elsewhere."""

    url: str
    size: int
    etag: str

    def to_json(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n"


def refer(url: str, retry: Retry | None = None) -> Reference:
    """A reference to the file at a URL as it is now.

    Raises:
        StoreError: it cannot be read there, or only by a signature in the URL.

    """
    folder, _, name = url.rpartition("/")
    if "?" in url:
        raise StoreError(f"{url.partition('?')[0]}: a URL with a query cannot be referred to, since it may be signed")
    info = open_store(folder, retry=retry).info(name)
    return Reference(url=url, size=info.size, etag=info.tag)


def reference_of(path: Path) -> Reference | None:
    """The reference that stands in the place of a file; None where the file is no reference.

    Raises:
        DamageError: it cannot be read.

    """
    place = path.with_name(path.name + REFERENCE)
    try:
        return Reference(**json.loads(place.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DamageError(
            f"{place} cannot be read: {error}", hint="Run `corpus download --by-reference` again."
        ) from error


def open_reference(reference: Reference, retry: Retry | None = None) -> IO[bytes]:
    """The file that is referred to, for reading; it can seek."""
    return io.BufferedReader(ReferredFile(reference, retry), _BUFFER_BYTES)


class ReferredFile(io.RawIOBase):
    """A file elsewhere, read block by block."""

    def __init__(self, reference: Reference, retry: Retry | None = None) -> None:
        super().__init__()
        folder, _, self._key = reference.url.rpartition("/")
        self._store = open_store(folder, retry=retry)
        self._is_pinned = self._store.pin(reference.etag)
        self._reference = reference
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reference.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what is left of a block."""
        number, start = divmod(self._at, BLOCK_BYTES)
        if self._at >= self._reference.size:
            return 0
        block = self._block(number)
        found = memoryview(block)[start : start + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK_BYTES
        end = min(start + BLOCK_BYTES, self._reference.size)
        try:
            (block,) = self._store.read_ranges(self._key, [(start, end)])
            is_same = self._is_pinned or self._store.info(self._key).tag == self._reference.etag
        except ObjectMissingError as error:
            raise self._replaced("is gone") from error
        if not is_same:
            raise self._replaced("was replaced")
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _replaced(self, what: str) -> StoreError:
        return StoreError(
            f"{self._store.shown}/{self._key} {what} since it was referred to",
            hint="Run `corpus download --by-reference` again with the same --source, then this command.",
        )
