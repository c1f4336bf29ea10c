"""Signatures of documents on disk: a file in `dedup/keys/` and one in `dedup/bands/` for each documents shard.

In: documents shards.
Out: `keys/*/part-NNNNN.parquet` with a row for each document, `bands/*/part-NNNNN.parquet` (`dedup.bands`), written by
workers; and columns over all shards.
Invariants: documents are numbered in the order of their shards and lines. A file carries the fingerprint of its inputs
and a checksum of each page, so a rerun keeps files that are current and undamaged. Workers and order change no byte.
Cost: 272 bytes a document on disk; one column at a time in memory.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.dedup import bands, clusters, minhash
from corpus.pipeline.storage.document_shards import part_metadata, read_part, reading_part
from corpus.pipeline.storage.row_shards import with_metadata
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workspace.files import atomic

KEEP_FIRST = ("test", "validation", "train")
"""Splits in order of preference for the kept document."""
DIGESTS = ("digest_0", "digest_1")
SCHEMA = pa.schema(
    [("split", pa.uint8()), ("characters", pa.int32()), ("folded", pa.uint32()), ("shingles", pa.uint32())]
    + [(name, pa.uint64()) for name in DIGESTS]
)
"""Signatures of documents: `split` is an index in `KEEP_FIRST`, the others are columns of `minhash.Signatures`."""
_CHARACTERS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class SignatureShard:
    """A documents shard and its file of signatures."""

    dataset: str
    path: Path
    keys: Path
    bands: Path
    identity: str
    """Fingerprint of the signatures."""
    first: int
    """Number of its first document, over all shards."""
    count: int


def settings(threshold: float) -> dict[str, Any]:
    """Everything that a document's signature depends on, except its text."""
    return {
        "shingle": minhash.SHINGLE,
        "bands": minhash.BANDS,
        "rows": minhash.rows_for(threshold),
        "opencc": version("OpenCC"),
        "unicode": unicodedata.unidata_version,
    }


def is_current(shard: SignatureShard) -> bool:
    """Whether a shard's signatures have the current fingerprint and are undamaged."""
    for path in (shard.keys, shard.bands):
        if (part_metadata(path) or ("",))[0] != shard.identity:
            return False
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                rows = file.read().num_rows
        except (pa.ArrowException, OSError):
            return False
        if path == shard.keys and rows != shard.count:
            return False
    return True


def write_signatures(shard: SignatureShard, *, rows: int) -> SignatureShard:
    """Write the signatures of one documents shard; runs in a worker. Raises DamageError if it cannot be read."""
    tables, made = [SCHEMA.empty_table()], [np.zeros((0, minhash.BANDS), np.uint64)]
    for texts, splits in read_batches(shard.path):
        found = minhash.signatures_of(texts, rows, TRANSLATE)
        ranks = np.fromiter(map(KEEP_FIRST.index, splits), dtype=np.uint8, count=len(texts))
        characters = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))
        columns = [ranks, characters, found.folded, found.shingles, *found.digests.T]
        tables.append(pa.Table.from_arrays([pa.array(np.ascontiguousarray(part)) for part in columns], schema=SCHEMA))
        made.append(found.bands)
    table = with_metadata(pa.concat_tables(tables).combine_chunks(), shard.identity, {})
    bands.write(shard.bands, shard.identity, np.concatenate(made), table["shingles"].to_numpy() > 0)
    with atomic(shard.keys) as out:
        pq.write_table(
            table, out, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
        )
    return shard


def read_batches(path: Path, lines: np.ndarray | None = None) -> Iterator[tuple[list[str], list[str]]]:
    """Texts and splits of all or some lines of a shard, in batches of about `_CHARACTERS_AT_ONCE`."""
    for _, line, batch in read_part(path, ["text", "split"]):
        chosen = batch
        if lines is not None:
            within = range_slice(lines, line, batch.num_rows)
            chosen = batch.take(pa.array(lines[within] - line))
        texts, splits = chosen["text"].to_pylist(), chosen["split"].to_pylist()
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64) // _CHARACTERS_AT_ONCE
        bounds = [*np.flatnonzero(np.diff(ends, prepend=-1)).tolist(), len(texts)]
        for begin, end in itertools.pairwise(bounds):
            yield texts[begin:end], splits[begin:end]


def range_slice(numbers: np.ndarray, first: int, count: int) -> slice:
    """The slice of sorted numbers that are in `range(first, first + count)`."""
    edges = np.array([first, first + count], dtype=numbers.dtype)  # another dtype would convert all numbers
    return slice(*np.searchsorted(numbers, edges).tolist())


class SignatureStore:
    """The signatures of all documents, read column by column."""

    def __init__(self, shards: Sequence[SignatureShard]) -> None:
        self.shards = shards
        self.count = sum(shard.count for shard in shards)

    def column(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """A column as (number of the first document, [documents] values), shard by shard."""
        for shard in self.shards:
            with (
                reading_part(shard.keys),
                pq.ParquetFile(shard.keys, page_checksum_verification=True) as file,
            ):
                yield shard.first, file.read(columns=[name])[name].to_numpy()

    def load(self, name: str) -> np.ndarray:
        """[documents] a whole column in memory."""
        values = np.empty(self.count, dtype=SCHEMA.field(name).type.to_pandas_dtype())
        for first, part in self.column(name):
            values[first : first + len(part)] = part
        return values

    def take(self, name: str, documents: np.ndarray) -> np.ndarray:
        """[documents] values of the given documents, which are sorted."""
        values = np.empty(len(documents), dtype=SCHEMA.field(name).type.to_pandas_dtype())
        for first, part in self.column(name):
            within = range_slice(documents, first, len(part))
            values[within] = part[documents[within] - first]
        return values

    def groups(self, name: str, chosen: np.ndarray) -> clusters.Groups:
        """Groups of the chosen documents ([documents] bool) that share the lower 32 bits of a column's values."""
        packed = np.empty(np.count_nonzero(chosen), dtype="<u8")
        filled = 0
        for first, values in self.column(name):
            which = np.flatnonzero(chosen[first : first + len(values)])
            part = packed[filled : filled + len(which)]
            part[:] = values[which]
            part <<= 32
            part |= (which + first).astype(np.uint64)
            filled += len(which)
        return clusters.groups_by_half(packed)
