"""Parquet sources: row groups as pieces, rows as records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import ArchiveError
from corpus.pipeline.read.raw_files import source_of
from corpus.pipeline.read.spans import Block, ReadSizes, RecordFile, Reject, Span

_ROWS = 2048
_BATCH_BYTES = 8 << 20
"""Rows that are unpacked at once, and about their bytes."""


def parquet_spans(path: Path, file: RecordFile, piece_bytes: int) -> Iterator[Span]:
    """Spans of row groups of about `piece_bytes`; offsets are row numbers."""
    try:
        metadata = pq.read_metadata(source_of(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be opened: {error}", hint="Delete it and fetch it again.") from error
    start = row = size = 0
    for group in range(metadata.num_row_groups):
        row += metadata.row_group(group).num_rows
        size += metadata.row_group(group).total_byte_size
        if size >= piece_bytes or group == metadata.num_row_groups - 1:
            yield Span(file, start, row)
            start, size = row, 0


def parquet_blocks(path: Path, span: Span, sizes: ReadSizes) -> Iterator[Block]:
    """The rows of a span as JSON records, block by block."""
    row = 0
    try:
        with pq.ParquetFile(source_of(path)) as parquet:
            fields = list(parquet.schema_arrow)
            kept = [field.name for field in fields if not _is_binary(field.type)]
            columns = kept if len(kept) < len(fields) else None
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if span.start < row + rows and (span.end is None or row < span.end):
                    size = max(1, parquet.metadata.row_group(group).total_byte_size)
                    at_once = min(_ROWS, max(1, _BATCH_BYTES * rows // size))
                    for batch in parquet.iter_batches(at_once, row_groups=[group], columns=columns):
                        yield _without_too_large(*_parquet_block(batch, row, span), sizes)
                        row += batch.num_rows
                else:
                    row += rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}", hint="Delete it and fetch it again.") from error


def _is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, such as pictures, which are no text."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _plain(value: Any) -> str | None:
    """A value that JSON has no word for; bytes in a nested column are left out."""
    return None if isinstance(value, bytes) else str(value)


def _without_too_large(records: list[tuple[int, bytes]], rejects: list[Reject], sizes: ReadSizes) -> Block:
    """The block without the records that are too long, as JSON; these are rejected."""
    if max((len(record) for _, record in records), default=0) <= sizes.record:
        return records, rejects
    large = [
        Reject.too_large(at, record[: sizes.rejected], len(record), sizes)
        for at, record in records
        if len(record) > sizes.record
    ]
    return [each for each in records if len(each[1]) <= sizes.record], [*rejects, *large]


def _parquet_block(batch: pa.RecordBatch, row: int, span: Span) -> Block:
    """Rows as records; a row with strings that are not UTF-8 is rejected."""
    first = max(span.start - row, 0)
    last = batch.num_rows if span.end is None else min(span.end - row, batch.num_rows)
    batch = batch.slice(first, max(0, last - first))
    try:
        return [
            (at, orjson.dumps(record, default=_plain)) for at, record in enumerate(batch.to_pylist(), row + first)
        ], []
    except (UnicodeDecodeError, TypeError):
        pass
    records: list[tuple[int, bytes]] = []
    rejects: list[Reject] = []
    for at in range(batch.num_rows):
        try:
            records.append((row + first + at, orjson.dumps(batch.slice(at, 1).to_pylist()[0], default=_plain)))
        except (UnicodeDecodeError, TypeError) as error:
            strings = [column.cast(pa.binary())[at].as_py() for column in batch if column.type == pa.string()]
            raw = b"\n".join(string or b"" for string in strings)
            rejects.append(Reject(row + first + at, "not_utf8", str(error), raw))
    return records, rejects
