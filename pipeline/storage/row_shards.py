"""Packed rows in Arrow: schema, files, and how `datasets.load_from_disk` finds them.

In: numpy arrays.
Out: files that pyarrow, polars, duckdb and `datasets.load_from_disk` open with one line.
Invariant: a row is exactly `seq_length` slots. Its segments lie side by side from slot 0; the rest is padding.
Cost: two bytes a token (four above 65,536 entries) and 16 bytes a segment. Rows are memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.storage.document_shards import COUNTS_KEY, FINGERPRINT_KEY

SEGMENT_TYPE = pa.struct([("document", pa.int64()), ("start", pa.int32()), ("length", pa.int32())])
ROWS_PER_BATCH = 256
HEAD_BYTES = 4096
"""The first bytes of a shard, in which its metadata are; a longer schema is read once more."""


def token_type(vocab_size: int) -> pa.DataType:
    """The narrowest type that holds every id of a vocabulary."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


def rows_table(
    ids: np.ndarray,
    row_starts: np.ndarray,
    documents: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    *,
    vocab_size: int,
) -> pa.Table:
    """Rows from flat arrays, without a Python object for each row.

    Args:
        ids: [rows, seq_length] token ids, padding included.
        row_starts: [rows + 1] index of each row's first segment.
        documents: [segments] document references.
        starts: [segments] first token of the document in the segment.
        lengths: [segments] tokens of the segment, separator included.
        vocab_size: entries of the tokenizer.

    """
    seq_length, kind = ids.shape[1], token_type(vocab_size)
    schema = pa.schema({"input_ids": pa.list_(kind, seq_length), "segments": pa.list_(SEGMENT_TYPE)})
    flat = pa.array(np.ascontiguousarray(ids).reshape(-1), type=kind)
    segments = pa.StructArray.from_arrays(
        [pa.array(documents, pa.int64()), pa.array(starts, pa.int32()), pa.array(lengths, pa.int32())],
        fields=list(SEGMENT_TYPE),
    )
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, seq_length),
        pa.ListArray.from_arrays(pa.array(row_starts, pa.int32()), segments),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_rows(file: IO[bytes], table: pa.Table) -> list[int]:
    """Write rows as an Arrow stream of batches of `ROWS_PER_BATCH` rows, with metadata as the table carries it.

    Returns the rows of each batch.
    """
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS_PER_BATCH)
    return [batch.num_rows for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH)]


def describe_rows(seq_length: int, vocab_size: int, *, name: str) -> bytes:
    """`dataset_info.json`, from which `datasets` takes the features of the shards."""
    kind, scalar = str(token_type(vocab_size)), {"document": "int64", "start": "int32", "length": "int32"}
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


def rows_metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts in the metadata of a shard; None if it is unreadable or has no such metadata."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            metadata = reader.schema.metadata or {}
            counts = json.loads(metadata[COUNTS_KEY])
            if sum(batch.num_rows for batch in reader) != counts["rows"]:
                return None
            return metadata[FINGERPRINT_KEY].decode(), counts
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def counts_of(read: Callable[[int], bytes]) -> Mapping[str, Any] | None:
    """The counts in the metadata of a shard; `read` gives its first bytes. None if it has no such metadata."""
    try:
        head = read(HEAD_BYTES)
        size = 8 + int.from_bytes(head[4:8], "little")  # a mark, the length of the schema, the schema
        head = head if size <= len(head) else read(size)
        counts: Mapping[str, Any] = json.loads((pa.ipc.read_schema(pa.py_buffer(head)).metadata or {})[COUNTS_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return counts


def with_metadata(table: pa.Table, fingerprint: str, counts: Mapping[str, Any]) -> pa.Table:
    """The table with the metadata by which a rerun knows a finished shard: fingerprint and counts."""
    return table.replace_schema_metadata(
        {
            FINGERPRINT_KEY: fingerprint.encode(),
            COUNTS_KEY: json.dumps(counts, sort_keys=True, ensure_ascii=False).encode(),
        }
    )


def open_rows(folder: Path) -> Any:
    """The packed rows, or the rankings, of a dataset as a `datasets.DatasetDict`, memory-mapped.

    The caller has compared them with their ledger: Arrow trusts what it maps, and damage can end the process.

    Raises:
        WorkspaceError: there are no rows.
        DamageError: they cannot be opened.

    """
    if not (folder / "dataset_dict.json").is_file():
        form = f" --form {folder.parent.name}" if folder.parent.name in {"chat", "ranking"} else ""
        raise WorkspaceError(f"{folder} holds no rows", hint=f"Run `corpus pack{form} --dataset {folder.name}` first.")
    import datasets  # noqa: PLC0415  # 1 s that only those who open rows should pay

    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DamageError(
            f"{folder} cannot be opened: {error}",
            hint="`corpus verify` names every damaged file and how to rebuild it.",
        ) from error
