"""Which documents a piece of an export holds, on disk.

In: the documents of a piece, and where they lie in its file. Out: the Parquet file in `lineage/`, which carries the
fingerprint of the work and the counts of the piece; and before it is known where they lie, the documents alone.
Invariants: a lineage has the same bytes whether its documents were on disk meanwhile or not.
Cost: the ids of one piece in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.storage.document_shards import COUNTS_KEY, FINGERPRINT_KEY, reading_part


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a piece, in order."""

    references: np.ndarray
    """[documents] int64: shard and line of each."""
    ids: pa.ChunkedArray
    """[documents] as they were written, one chunk for each batch: pages of Parquet follow the chunks."""
    lengths: np.ndarray
    """[documents] int64, in tokens or characters."""


def write_documents(documents: Documents, out: IO[bytes]) -> None:
    """Write the documents of a piece."""
    table = pa.table({"document": documents.references, "id": documents.ids, "length": documents.lengths})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


def read_documents(path: Path) -> Documents:
    """The documents of a piece. Raises DamageError if they cannot be read."""
    with reading_part(path), pa.ipc.open_stream(pa.py_buffer(path.read_bytes())) as reader:
        table = reader.read_all()
    references, lengths = (table[name].combine_chunks().to_numpy() for name in ("document", "length"))
    return Documents(references, table["id"], lengths)


def write_lineage(
    documents: Documents, file: str, starts: np.ndarray, identity: str, counts: Mapping[str, Any], out: IO[bytes]
) -> None:
    """Write the lineage of a piece: its documents, with the name of its file and where each begins there."""
    count = len(documents.lengths)
    table = pa.table(
        {
            "document": documents.references,
            "id": documents.ids,
            "file": pa.chunked_array([pa.repeat(file, count)]),
            "start": pa.chunked_array([pa.array(starts, pa.int64())]),
            "length": documents.lengths,
        }
    )
    metadata = {FINGERPRINT_KEY: identity.encode(), COUNTS_KEY: json.dumps(counts, sort_keys=True).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), out, compression="zstd")


def read_lengths(lineage: Path) -> np.ndarray:
    """[documents] int64: the lengths of the documents of a piece, from its lineage."""
    return np.asarray(pq.read_table(lineage, columns=["length"])["length"].to_numpy(), dtype=np.int64)
