"""What bounds the memory of a search among very many documents, and how many one search takes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline.dedup import search
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import SILENT
from corpus.pipeline.signatures import bands
from corpus.pipeline.signatures.files import SignatureShard, SignatureStore


def test_a_partition_is_divided_where_it_would_take_much_memory() -> None:
    assert [bands.parts(total) for total in (0, 10**9, 2 * 10**9, 10**11)] == [1, 1, 2, 128]
    assert all(total / bands.RANGES / bands.parts(total) <= 1 << 24 for total in (10**10, 10**11, 2**32 * 20))
    assert [bands.parts(0, count) for count in (1, 64, 65, 256)] == [1, 1, 2, 4]


@pytest.mark.parametrize("count", [1, 3, 64, 256])
def test_parts_have_each_row_of_their_partition_once(tmp_path: Path, count: int) -> None:
    random, path = np.random.default_rng(count), tmp_path / "part.parquet"
    values = np.sort(random.integers(0, 2**64, 500, dtype=np.uint64))
    edges = np.searchsorted(values >> np.uint64(58), np.arange(bands.RANGES + 1)).tolist()
    with pq.ParquetWriter(path, bands.SCHEMA, **bands.STORED) as writer:
        for begin, end in pairwise(edges):
            lines = np.arange(begin, end, dtype=np.uint32)
            writer.write_table(pa.table([values[begin:end], lines], schema=bands.SCHEMA))
    files, parts = [(path, 7)], bands.parts(0, count)
    found = [
        bands.rows(bands.Partition(begin, end, files, part, parts))
        for begin, end in bands.partitions(0, count)
        for part in range(parts)
    ]
    assert len(found) == count
    rows, documents = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(rows)
    assert np.array_equal(rows[order], values)
    assert np.array_equal(documents[order], np.arange(500) + 7)


def test_more_documents_than_32_bits_number_are_refused(tmp_path: Path) -> None:
    shards = [SignatureShard("demo", tmp_path, tmp_path, tmp_path, "", 0, count) for count in (7, 2**32 - 6)]
    with pytest.raises(WorkspaceError, match="at most 4,294,967,296 documents, and there are 4,294,967,297"):
        search.search(SignatureStore(shards), None, tmp_path, workers=1, progress=SILENT)
