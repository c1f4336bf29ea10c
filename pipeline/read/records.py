"""Reading the records of spans, from any container.

In: spans of the files in `raw/<dataset>/`. Out: their records with byte offsets, in blocks.
Invariants: a span is the records that *begin* in its range, so cuts fall between records and do not depend on the
reader; nothing is unpacked to disk, so no archive can write anywhere; a stream is bounded by a ratio, a record by
`ReadSizes.record`.
Cost: workers read plain files, small zip members and ranges of deflated members themselves; the parent reads any other
large compressed member once, splits records only at cuts, and holds one piece at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.archives import open_file
from corpus.pipeline.read.convert import converted
from corpus.pipeline.read.parquet import parquet_blocks
from corpus.pipeline.read.pieces import read_chunks, record_offsets
from corpus.pipeline.read.restart import open_deflate
from corpus.pipeline.read.spans import SIZES, Block, Chunk, ReadSizes, RecordFile, Reject, Span

_Run = tuple[list[int], list[bytes], int]
"""Offsets, records, 0; or for a record that is too long its offset, head and size."""


def read(raw: Path, span: Span, *, sizes: ReadSizes = SIZES) -> Iterator[Block]:
    """The records of a span, block by block."""
    if span.chunks is not None:
        yield from _blocks(_records(span.chunks, span.delimiter, 0, None, sizes), sizes)
    elif span.file.codec == "parquet":
        yield from parquet_blocks(raw / span.file.container, span, sizes)
    elif span.restart is not None:
        at = max(0, span.start - 1)  # as in a plain file
        with open_deflate(raw, span.file, span.restart) as stream:
            stream.skip_to(at)
            delimiter, chunks = read_chunks(stream, span.file, at, sizes)
            yield from _blocks(_records(chunks, delimiter, span.start, span.end, sizes), sizes)
    else:
        with open_file(raw, span.file) as stream:
            at = 0
            if span.start > 0 and span.file.codec == "plain" and span.file.layout == "lines":
                at = stream.seek(span.start - 1)  # a record that ends at the first newline from here began before
            delimiter, chunks = read_chunks(converted(stream, span.file, sizes), span.file, at, sizes)
            yield from _blocks(_records(chunks, delimiter, span.start, span.end, sizes), sizes)


def record_at(raw: Path, file: RecordFile, offset: int) -> bytes:
    """The bytes of one record, by its offset."""
    return records_at(raw, file, [offset])[offset]


def records_at(raw: Path, file: RecordFile, offsets: Sequence[int]) -> dict[int, bytes]:
    """The bytes of records, by their offsets; the file is read once, from the first to the last of them.

    Raises:
        SourceError: no record begins at one of the offsets.

    """
    wanted = set(offsets)
    found: dict[int, bytes] = {}
    if wanted:
        for records, rejects in read(raw, Span(file, min(wanted), max(wanted) + 1)):
            found.update((at, record) for at, record in records if at in wanted)
            found.update((reject.offset, reject.raw) for reject in rejects if reject.offset in wanted)
    for missing in sorted(wanted - found.keys()):
        raise SourceError(f"{file.path}: no record begins at {missing}")
    return found


def _blocks(runs: Iterable[_Run], sizes: ReadSizes) -> Iterator[Block]:
    """Group records by the mebibyte in which they begin."""
    held: list[tuple[int, bytes]] = []
    rejects: list[Reject] = []
    window = 0
    for offsets, records, size in runs:
        first = 0
        while first < len(offsets):
            if offsets[first] // sizes.block != window and (held or rejects):
                yield held, rejects
                held, rejects = [], []
            window = offsets[first] // sizes.block
            beyond = bisect_left(offsets, (window + 1) * sizes.block, first)
            if size:
                rejects.append(Reject.too_large(offsets[0], records[0], size, sizes))
            else:
                held += zip(offsets[first:beyond], records[first:beyond], strict=True)
            first = beyond
    if held or rejects:
        yield held, rejects


def _records(
    chunks: Iterable[Chunk], delimiter: bytes, start: int, end: int | None, sizes: ReadSizes
) -> Iterator[_Run]:
    """Records starting in [start, end). Blank lines are skipped."""
    for chunk in chunks:
        for offsets, records, size in _split(chunk, delimiter, sizes):
            if offsets[0] == 0 and records[0].startswith(b"\xef\xbb\xbf"):
                records[0] = records[0][3:]
            first = bisect_left(offsets, start)
            last = len(offsets) if end is None else bisect_left(offsets, end)
            yield from _without_blank(offsets[first:last], records[first:last], size)
            if last < len(offsets):
                return


def _without_blank(offsets: list[int], records: list[bytes], size: int) -> Iterator[_Run]:
    """The run without blank records; nothing if all are blank."""
    if not all(records) or any(map(bytes.isspace, records)):
        filled = [at for at, record in enumerate(records) if record and not record.isspace()]
        offsets, records = [offsets[at] for at in filled], [records[at] for at in filled]
    if records:
        yield offsets, records, size


def _split(chunk: Chunk, delimiter: bytes, sizes: ReadSizes) -> Iterator[_Run]:
    """The records of a chunk; only the head of a record that is too long."""
    if chunk.size:
        yield [chunk.offset], [chunk.data], chunk.size
        return
    records = chunk.data.split(delimiter)
    offsets = record_offsets(chunk.offset, records, delimiter)
    if not records[-1]:
        del records[-1], offsets[-1]
    if max(map(len, records), default=0) > sizes.record:
        for at, record in zip(offsets, records, strict=True):
            too_long = len(record) > sizes.record
            yield [at], [record[: sizes.rejected] if too_long else record], len(record) if too_long else 0
    elif records:
        yield offsets, records, 0
