"""Values of the readers: files, spans, chunks, pieces, rejected records, size limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFile:
    """One file of records, packed or plain."""

    container: str
    """The file in `raw/<dataset>/` that contains it, relative to that folder."""
    codec: str
    """`plain`, `zip`, `tar`, `gz`, `xz`, `zst` or `parquet`."""
    path: str
    """Its name inside the container, or the container's name: the `source_file` of its documents."""
    tail: str
    """The part of the path that the manifest's pattern describes; it makes ids unique within the dataset."""
    split: str
    shape: str
    layout: str
    """`lines`: a JSON object a line; `array`: one JSON array; `csv`, `tsv`: a table with a header; `text`: documents
    separated by blank lines; `file`: one document; `rows`: Parquet."""
    bytes: int | None
    """Unpacked size, if the container has it."""
    sha256: str | None = None
    """Digest of the official file in the manifest; None for files from --source."""


class ByteStream(Protocol):
    """What a reader of records needs of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; fewer than `size` only at the end."""


class Chunk(NamedTuple):
    """The bytes of consecutive records; or the head of a record that is too long."""

    offset: int
    data: bytes
    size: int = 0
    """Bytes of the record that is too long; 0 otherwise."""


class RestartPoint(NamedTuple):
    """A place in deflate data, between two blocks, from which they can be unpacked."""

    offset: int
    """Unpacked bytes before it."""
    packed: int
    """Bytes of the container before it, the one in which it lies included."""
    bits: int
    """High bits of the last of these bytes that belong to what follows."""
    window: bytes
    """The unpacked bytes before it to which what follows may refer."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one file; with `chunks` if the parent has already read its records."""

    file: RecordFile
    start: int
    end: int | None
    chunks: tuple[Chunk, ...] | None = None
    delimiter: bytes = b"\n"
    """The end of a record in `chunks`."""
    restart: RestartPoint | None = None
    """Where to begin in a compressed file that is read from within."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The spans that one worker makes into one documents shard."""

    number: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSizes:
    """Sizes that bound the memory of a reader, in bytes."""

    record: int = 16 << 20
    """Longest record read; the longest in the real corpora has about a megabyte."""
    rejected: int = 1 << 20
    """Kept in `rejected/` of a longer record."""
    read: int = 1 << 20
    """One read of a stream."""
    sniff: int = 1 << 16
    """First bytes of a text file, in which its delimiter is detected."""
    block: int = 1 << 20
    """Records that begin in the same range of this size make a block."""


SIZES = ReadSizes()


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected record."""

    offset: int
    reason: str
    detail: str
    raw: bytes
    id: str | None = None

    @classmethod
    def too_large(cls, offset: int, head: bytes, size: int, sizes: ReadSizes) -> Self:
        """A record of `size` bytes, of which the head is kept."""
        detail = f"{size:,} bytes, more than {sizes.record:,}; the first {len(head):,} are kept here"
        return cls(offset, "too_large", detail, head)


Block = tuple[list[tuple[int, bytes]], list[Reject]]


@dataclass(slots=True)
class Parsed:
    """Records of one block that are of the shape: parallel lists, but for `texts` and `rejects`."""

    offsets: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The records' own ids, "" without one."""
    texts: list[str] = field(default_factory=list)
    """The parts of the text, `width` a record, in the order of `parts_of(shape)`."""
    metas: list[str] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """The parts of each record, where their number differs; else empty."""
    prompts: list[int] = field(default_factory=list)
    """How many of the parts of each record are its prompt, with the form `ranking`; else empty."""
    splits: list[str] = field(default_factory=list)
    """The split that each record names, "" for none; empty where the shape has no split field."""
