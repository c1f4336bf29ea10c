"""What readers hand on: files, spans, chunks, pieces, rejected records; and the sizes they keep to. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """One file of records, packed or plain."""

    container: str
    """The file in `raw/<dataset>/` that holds it, relative to that folder."""
    codec: str
    """`plain`, `zip`, `tar`, `gz`, `xz`, `zst` or `parquet`."""
    path: str
    """Its name inside the container, or of the container: the `source_file` of its documents."""
    tail: str
    """The part of the path that the manifest's pattern describes; it makes ids unique within the dataset."""
    split: str
    shape: str
    layout: str
    """`lines`: a JSON object a line; `text`: documents divided by blank lines; `rows`: Parquet."""
    bytes: int | None
    """Size unpacked, where the container knows it."""
    sha256: str | None = None
    """Digest that the manifest knows of the official file; None for files that were given."""


class Chunk(NamedTuple):
    """Records that stand one after another, as they came; or the head of one that is too long."""

    offset: int
    data: bytes
    size: int = 0
    """Bytes of the record that is too long; 0 for whole records."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one file. `chunks` are its records when the parent has read them already."""

    file: RecordFile
    start: int
    end: int | None
    chunks: tuple[Chunk, ...] | None = None
    delimiter: bytes = b"\n"
    """What ends a record in `chunks`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker turns into one documents shard."""

    number: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSizes:
    """Sizes that bound the memory of a reader, in bytes."""

    record: int = 16 << 20
    """Longest record read; the longest of the real corpora has about a megabyte."""
    rejected: int = 1 << 20
    """How much of a longer record is kept in `rejected/`."""
    read: int = 1 << 20
    """One read of a stream."""
    sniff: int = 1 << 16
    """First bytes of a text file, which tell what divides its documents."""
    block: int = 1 << 20
    """Records are handed on in blocks that begin in the same range of so many bytes."""


SIZES = ReadSizes()


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is kept out."""

    offset: int
    reason: str
    detail: str
    raw: bytes
    id: str | None = None


Block = tuple[list[tuple[int, bytes]], list[Reject]]
