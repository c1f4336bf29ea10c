"""The files other programs open: documents in Parquet, packed rows in Arrow, and how a row names its documents.

In: Arrow tables and numpy arrays. Out: files that pyarrow, polars, duckdb and `datasets.load_from_disk` open with one
line.
Invariant: a packed row is exactly `seq_length` tokens, its segments lie side by side from position 0, and what
follows the last is padding.
Cost: two bytes a token (four above 65,536 entries) and 16 bytes a segment; rows are memory-mapped, never loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import DamageError, WorkspaceError

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("prompt_length", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)
REMOVED_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("whole", pa.bool_(), nullable=False),
    ]
)
"""What is kept out of the rows once all documents were seen, in order of (document, start): characters `start` to
`end` of a document, all of it when `whole`."""
SEGMENT_TYPE = pa.struct([("document", pa.int64()), ("start", pa.int32()), ("length", pa.int32())])
ROWS_PER_BATCH = 256
COUNTS_KEY = b"corpus.counts"
FINGERPRINT_KEY = b"corpus.fingerprint"


def part_name(number: int) -> str:
    """File name of a documents shard.

    >>> part_name(7)
    'part-00007.parquet'
    """
    return f"part-{number:05d}.parquet"


def part_number(path: Path) -> int:
    """The number in a shard's file name."""
    return int(path.stem.rpartition("-")[2])


def document_ref(shard: int, line: int | np.ndarray) -> Any:
    """The number by which a segment names a document: shard number in the upper, line in the lower 32 bits."""
    return (shard << 32) | line


def split_ref(document: int) -> tuple[int, int]:
    """Shard number and line of a document.

    >>> split_ref(document_ref(3, 17))
    (3, 17)
    """
    return document >> 32, document & 0xFFFFFFFF


def token_type(vocab_size: int) -> pa.DataType:
    """The narrowest type that holds every id of a vocabulary."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


def row_schema(seq_length: int, vocab_size: int) -> pa.Schema:
    """Schema of packed rows."""
    return pa.schema(
        [
            pa.field("input_ids", pa.list_(token_type(vocab_size), seq_length)),
            pa.field("segments", pa.list_(SEGMENT_TYPE)),
        ]
    )


def rows_table(
    ids: np.ndarray,
    row_starts: np.ndarray,
    documents: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    *,
    vocab_size: int,
) -> pa.Table:
    """Rows from flat arrays, without a Python object per row.

    Args:
        ids: [rows, seq_length] token ids, padding included.
        row_starts: [rows + 1] index of each row's first segment.
        documents: [segments] document references.
        starts: [segments] first token of the document in the segment.
        lengths: [segments] tokens of the segment, separator included.
        vocab_size: entries of the tokenizer.

    """
    seq_length = ids.shape[1]
    schema = row_schema(seq_length, vocab_size)
    flat = pa.array(np.ascontiguousarray(ids).reshape(-1), type=token_type(vocab_size))
    segments = pa.StructArray.from_arrays(
        [pa.array(documents, pa.int64()), pa.array(starts, pa.int32()), pa.array(lengths, pa.int32())],
        fields=list(SEGMENT_TYPE),
    )
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, seq_length),
        pa.ListArray.from_arrays(pa.array(row_starts, pa.int32()), segments),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_rows(file: IO[bytes], table: pa.Table) -> None:
    """Write rows as an Arrow stream of batches of `ROWS_PER_BATCH` rows, with metadata as the table carries it."""
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS_PER_BATCH)


def describe_rows(seq_length: int, vocab_size: int, *, name: str) -> bytes:
    """`dataset_info.json`, which lets `datasets` open the shards without guessing."""
    kind = "uint16" if vocab_size <= 1 << 16 else "uint32"
    scalar = {"document": "int64", "start": "int32", "length": "int32"}
    info = {
        "citation": "",
        "description": f"Packed rows of {seq_length} tokens: {name}.",
        "features": {
            "input_ids": {"feature": {"dtype": kind, "_type": "Value"}, "length": seq_length, "_type": "List"},
            "segments": {
                "feature": {key: {"dtype": dtype, "_type": "Value"} for key, dtype in scalar.items()},
                "_type": "List",
            },
        },
        "homepage": "",
        "license": "",
    }
    return (json.dumps(info, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()


def describe_state(file_names: Sequence[str], *, split: str, fingerprint: str) -> bytes:
    """`state.json` of one split: which files it is made of."""
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in file_names],
        "_fingerprint": fingerprint[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    return (json.dumps(state, sort_keys=True, indent=2) + "\n").encode()


def part_metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts that a Parquet shard carries, or None when it is unreadable or not ours."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return metadata[FINGERPRINT_KEY].decode(), json.loads(metadata[COUNTS_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def rows_metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts that a shard of rows carries, or None when it is unreadable or not ours."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            metadata = reader.schema.metadata or {}
            counts = json.loads(metadata[COUNTS_KEY])
            if sum(batch.num_rows for batch in reader) != counts["rows"]:
                return None
            return metadata[FINGERPRINT_KEY].decode(), counts
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def with_metadata(table: pa.Table, fingerprint: str, counts: Mapping[str, Any]) -> pa.Table:
    """The table with what a rerun needs to take the shard as finished: whose work it is, and what was counted."""
    return table.replace_schema_metadata(
        {
            FINGERPRINT_KEY: fingerprint.encode(),
            COUNTS_KEY: json.dumps(counts, sort_keys=True, ensure_ascii=False).encode(),
        }
    )


def parts(folder: Path) -> list[Path]:
    """The documents shards of a folder in order of their numbers."""
    return sorted(folder.glob("part-*.parquet"), key=part_number)


def read_part(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """The documents of one shard, as (shard number, first line, batch), one row group at a time."""
    line = 0
    with reading_part(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, columns=columns).to_batches():
                yield part_number(path), line, batch
                line += batch.num_rows


def first_texts(path: Path, most: int) -> pa.Array:
    """The texts with which a documents shard begins, as strings; no more of it is unpacked."""
    with reading_part(path), pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=most, columns=["text"]), None)
        return pa.nulls(0, pa.string()) if batch is None else batch["text"].cast(pa.string())


def document_at(folder: Path, document: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """A document by its reference, as a segment or a list names it.

    Raises:
        WorkspaceError: there is none.
        DamageError: its shard cannot be read.

    """
    shard, line = split_ref(document)
    path = folder / part_name(shard)
    with reading_part(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if line < rows:
                found: dict[str, Any] = file.read_row_group(group, columns=columns).slice(line, 1).to_pylist()[0]
                return found
            line -= rows
    raise WorkspaceError(f"{path} has no document {split_ref(document)[1]}", hint="Run `corpus verify`.")


@contextmanager
def reading_part(path: Path) -> Iterator[None]:
    """Turn what an unreadable documents shard raises into a DamageError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DamageError(
            f"{path} cannot be read: {error}", hint="`corpus verify` names every damaged file and how to rebuild it."
        ) from error


def open_rows(folder: Path) -> Any:
    """The packed rows of a dataset as a `datasets.DatasetDict`, memory-mapped.

    Raises:
        WorkspaceError: there are none.

    """
    if not (folder / "dataset_dict.json").is_file():
        form = " --form chat" if folder.parent.name == "chat" else ""
        raise WorkspaceError(f"{folder} holds no rows", hint=f"Run `corpus pack{form} --dataset {folder.name}` first.")
    import datasets  # noqa: PLC0415  # 1 s that only those who open rows should pay

    return datasets.load_from_disk(str(folder))
