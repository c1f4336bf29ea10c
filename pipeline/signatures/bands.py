"""Bands of signatures on disk, in ranges of their values: one file in `dedup/bands/` for each documents shard.

In: signatures of a documents shard. Out: `part-NNNNN.parquet`, a row for each band of each document with shingles, in
`RANGES` row groups by the upper bits of the value, in order of the lines; and the rows of a partition, which is a run
of ranges of all files.
Invariants: partitions share no value.
Cost: 240 bytes a document on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.storage.document_shards import reading_part
from corpus.pipeline.storage.row_shards import with_metadata

RANGES = 64
"""Row groups of a file: as many partitions there can be."""
SCHEMA = pa.schema([("value", pa.uint64()), ("line", pa.uint32())])
STORED: dict[str, Any] = {
    "compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True,
}  # fmt: skip
"""How Parquet holds random numbers: as they are, each page with a checksum."""
_SHIFT = np.uint64(58)
_ROWS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Partition:
    """A run of ranges of values, in all files."""

    begin: int
    end: int
    files: Sequence[tuple[Path, int]]
    """Bands of each shard, and the number of its first document."""


def write(out: IO[bytes], identity: str, bands: np.ndarray, has_shingles: np.ndarray) -> list[int]:
    """Write the bands ([documents, bands] uint64) of the documents that have shingles ([documents] bool).

    Returns the rows of each row group.
    """
    lines = np.flatnonzero(has_shingles).astype(np.uint32)
    values = bands[lines].reshape(-1)
    ranges = (values >> _SHIFT).astype(np.uint8)
    order = np.argsort(ranges, kind="stable")  # by radix, in linear time
    owners, values = np.repeat(lines, bands.shape[1])[order], values[order]
    edges = [0, *np.cumsum(np.bincount(ranges, minlength=RANGES)).tolist()]
    with pq.ParquetWriter(out, with_metadata(SCHEMA.empty_table(), identity, {}).schema, **STORED) as writer:
        for begin, end in pairwise(edges):  # an empty range is an empty row group
            writer.write_table(pa.Table.from_arrays([values[begin:end], owners[begin:end]], schema=writer.schema))
    return np.diff(edges).tolist()


def partitions(total: int, count: int = 0) -> list[tuple[int, int]]:
    """Runs of ranges, for `total` rows: as few as bound the memory, or `count`."""
    count = count or max(1, min(RANGES, -(-total // _ROWS_AT_ONCE)))
    edges = [RANGES * part // count for part in range(count + 1)]
    return list(pairwise(edges))


def rows(partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """[rows] uint64 values and [rows] uint32 documents of a partition.

    Raises:
        DamageError: a file is damaged.

    """
    values, documents = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)]
    for path, first in partition.files:
        with reading_part(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read_row_groups(range(partition.begin, partition.end))
        values.append(table["value"].to_numpy())
        documents.append(table["line"].to_numpy() + np.uint32(first))
    return np.concatenate(values), np.concatenate(documents)
