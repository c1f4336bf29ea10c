"""Signatures of documents on disk: a file in `dedup/keys/` and one in `dedup/bands/` for each documents shard.

In: documents shards.
Out: `keys/*/part-NNNNN.parquet` with a row for each document, `bands/*/part-NNNNN.parquet` (`signatures.bands`),
written by the workers of ingest, or by those of dedup where they are missing; and columns over all shards.
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
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.signatures import bands, minhash
from corpus.pipeline.storage.document_shards import part_metadata, read_part, reading_part
from corpus.pipeline.storage.row_shards import with_metadata
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workspace.files import HashedFile, atomic
from corpus.pipeline.workspace.ledger import FileDigest, fingerprint
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt

VERSION = 3
THRESHOLD = 0.7
"""Least similarity of near duplicates by default, which decides the rows of a band."""
AREAS = ("keys", "bands")
"""Folders of `dedup/` with a file for each documents shard."""
KEEP_FIRST = ("test", "validation", "train")
"""Splits in order of preference for the kept document."""
DIGESTS = ("digest_0", "digest_1")
SCHEMA = pa.schema(
    [("split", pa.uint8()), ("characters", pa.int32()), ("folded", pa.uint32()), ("shingles", pa.uint32())]
    + [(name, pa.uint64()) for name in DIGESTS]
)
"""Signatures of documents: `split` is an index in `KEEP_FIRST`, the others are columns of `minhash.Signatures`."""
_CHARACTERS_AT_ONCE = 1 << 20
_KEYS_IN_A_GROUP = 1 << 20


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

    @property
    def piece(self) -> str:
        """Its name in its receipt."""
        return f"{self.dataset}-{self.path.stem}"


@dataclass(frozen=True, slots=True)
class Signing:
    """Where the signatures of a dataset's shards are, and how they are made."""

    folder: Path
    """`dedup/` of the workspace."""
    dataset: str
    threshold: float = THRESHOLD

    def places(self, part: str) -> tuple[Path, Path]:
        """Keys and bands of a documents shard."""
        keys, beside = (self.folder / area / self.dataset / part for area in AREAS)
        return keys, beside

    def write(self, writer: SignatureWriter, name: str, shard: HashedFile) -> None:
        """Write the signatures of a documents shard that lies in its place."""
        source = FileDigest(f"documents/{self.dataset}/{name}", shard.bytes, shard.sha256)
        writer.write(*self.places(name), identity(source, self.threshold))


def identity(source: FileDigest, threshold: float) -> str:
    """Fingerprint of the signatures of a documents shard."""
    return fingerprint("dedup keys", VERSION, settings(threshold), [source])


def settings(threshold: float) -> dict[str, Any]:
    """Everything that a document's signature depends on, except its text."""
    return {
        "shingle": minhash.SHINGLE,
        "bands": minhash.BANDS,
        "rows": minhash.rows_for(threshold),
        "opencc": version("OpenCC"),
        "unicode": unicodedata.unidata_version,
    }


def is_current(shard: SignatureShard, *, thorough: bool = False) -> bool:
    """Whether a shard's signatures have the current fingerprint and undamaged keys; with `thorough` undamaged bands,
    which are nine tenths of the bytes.
    """
    for path in (shard.keys, shard.bands):
        if (part_metadata(path) or ("",))[0] != shard.identity:
            return False
        if path == shard.bands and not thorough:
            continue
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                rows = file.read().num_rows
        except (pa.ArrowException, OSError):
            return False
        if path == shard.keys and rows != shard.count:
            return False
    return True


class SignatureWriter:
    """Signatures of the documents of one shard, made as its texts come."""

    def __init__(self, threshold: float) -> None:
        self.rows = minhash.rows_for(threshold)
        self._tables, self._bands = [SCHEMA.empty_table()], [np.zeros((0, minhash.BANDS), np.uint64)]

    def add(self, texts: Sequence[str], splits: Sequence[str]) -> None:
        """Sign some documents."""
        found = minhash.signatures_of(texts, self.rows, TRANSLATE)
        ranks = np.fromiter(map(KEEP_FIRST.index, splits), dtype=np.uint8, count=len(texts))
        characters = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))
        columns = [ranks, characters, found.folded, found.shingles, *found.digests.T]
        table = pa.Table.from_arrays([pa.array(np.ascontiguousarray(part)) for part in columns], schema=SCHEMA)
        self._tables.append(table)
        self._bands.append(found.bands)

    def write(self, keys: Path, bands_file: Path, identity: str) -> None:
        """Write what was made, both files under one fingerprint."""
        with atomic(bands_file) as out:
            self.write_bands(out, identity)
        with atomic(keys) as out:
            self.write_keys(out, identity)

    def write_bands(self, out: IO[bytes], identity: str) -> list[int]:
        """Write the bands of what was made; returns the rows of each row group."""
        has_shingles = pa.concat_tables(self._tables)["shingles"].to_numpy() > 0
        return bands.write(out, identity, np.concatenate(self._bands), has_shingles)

    def write_keys(self, out: IO[bytes], identity: str) -> list[int]:
        """Write the keys of what was made; returns the rows of each row group."""
        table = with_metadata(pa.concat_tables(self._tables).combine_chunks(), identity, {})
        pq.write_table(table, out, row_group_size=_KEYS_IN_A_GROUP, **bands.STORED)
        full, rest = divmod(table.num_rows, _KEYS_IN_A_GROUP)
        return [*[_KEYS_IN_A_GROUP] * full, *([rest] if rest or not full else [])]


def write_signatures(shard: SignatureShard, *, threshold: float, folder: Path, work: str) -> Receipt:
    """Write the signatures of one documents shard, and the receipt of both files; runs in a worker.

    Raises:
        DamageError: the shard cannot be read.

    """
    writer = SignatureWriter(threshold)
    for texts, splits in read_batches(shard.path):
        writer.add(texts, splits)
    files = PieceWriter(folder, work, shard.piece)
    with files.output(shard.bands.relative_to(folder).as_posix()) as out:
        out.groups += writer.write_bands(out, shard.identity)
    with files.output(shard.keys.relative_to(folder).as_posix()) as out:
        out.groups += writer.write_keys(out, shard.identity)
    return files.finish({"documents": shard.count})


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


def ids_of(shard: SignatureShard, documents: np.ndarray) -> pa.ChunkedArray:
    """[documents] the ids of documents of a shard, by their numbers."""
    if not len(documents):
        return pa.chunked_array([], pa.string())
    with reading_part(shard.path), pq.ParquetFile(shard.path) as file:
        return file.read(columns=["id"])["id"].take(pa.array(documents.astype(np.int64) - shard.first))


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
