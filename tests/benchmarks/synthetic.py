"""Documents of which only the signatures are made, so that the search for duplicates can be run on many millions.

In: a number of documents. Out: `documents/wiki2019zh/` and the keys and bands of its shards in a workspace; `corpus
dedup` takes them as ingest would have written them.
Invariants: a twentieth of the documents repeat another one exactly, a twentieth are alike to another one by about 0.9;
these and their originals have texts, of which the search makes shingles; the signatures of all others are random
numbers, and their texts are empty. Equal numbers give equal bytes.
Cost: 280 bytes of disk and ten microseconds a document, one shard in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.dedup import keys
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.signatures import bands, files, minhash
from corpus.pipeline.storage.row_shards import with_metadata
from corpus.pipeline.storage.selection import documents_of
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import ROWS_PER_SHARD, SEED, Row, lay_documents
from tests.benchmarks.job import Clock

DATASET = "wiki2019zh"
COPIES = 20
"""One document in so many repeats another one exactly; as many are alike to another one."""
_CHARACTERS = 120
_BYTES = 280
_HAN = (0x4E00, 0x5A00)


def make(_: Clock, *, workspace: str, documents: int) -> None:
    """`lay` as a job, in a process of its own."""
    lay(Workspace(Path(workspace)), documents)


def lay(workspace: Workspace, documents: int, rows: int = ROWS_PER_SHARD) -> None:
    """Write documents, keys and bands, `rows` documents a shard.

    Raises:
        click.UsageError: there is no room for them.

    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(workspace.root).free
    if 1.5 * _BYTES * documents > free:
        raise click.UsageError(f"{documents:,} documents need {1.5 * _BYTES * documents / 1e9:.1f} GB of disk")
    sizes = [min(rows, documents - first) for first in range(0, documents, rows)]
    lay_documents(workspace, DATASET, (_rows(shard, size) for shard, size in enumerate(sizes)))
    shards = keys.shards_of(workspace, {DATASET: documents_of(workspace, DATASET)}, dedup.THRESHOLD)
    before = None
    for number, shard in enumerate(shards):
        before = _signatures(number, shard.count, before)
        columns = [np.full(shard.count, files.KEEP_FIRST.index("train"), np.uint8), *before[:-1]]
        table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=files.SCHEMA)
        with atomic(shard.bands) as out:
            bands.write(out, shard.identity, before[-1], table["shingles"].to_numpy() > 0)
        with atomic(shard.keys) as out:
            pq.write_table(with_metadata(table, shard.identity, {}), out, **bands.STORED)


def _rows(shard: int, size: int) -> list[Row]:
    texts = _alike(shard, size)
    texts += [""] * (size - len(texts))
    return [(f"{shard}-{line}", "train", text) for line, text in enumerate(texts)]


def _alike(shard: int, size: int) -> list[str]:
    """Texts of which a later shard has edited copies, and such copies of the shard before."""
    originals, copies = _codes(shard, size // COPIES), _codes(max(0, shard - 1), size // COPIES)
    random = np.random.default_rng([SEED, shard, 1])
    lines = np.arange(len(copies))
    copies[lines, random.integers(0, _CHARACTERS, len(copies))] = random.integers(*_HAN, len(copies), dtype=np.uint32)
    joined = np.concatenate([originals, copies]).astype("<u4").tobytes().decode("utf-32-le")
    return [joined[start : start + _CHARACTERS] for start in range(0, len(joined), _CHARACTERS)]


def _codes(shard: int, count: int) -> np.ndarray:
    """[count, characters] uint32 random Han: the texts of a shard that others are like."""
    return np.random.default_rng([SEED, shard]).integers(*_HAN, (count, _CHARACTERS), dtype=np.uint32)


def _signatures(shard: int, size: int, before: Sequence[np.ndarray] | None) -> Sequence[np.ndarray]:
    """The columns of keys but the split, then the bands ([documents, bands]); the next rows repeat the shard before."""
    random = np.random.default_rng([SEED, shard, 2])
    digests = list(random.integers(0, 2**64, (2, size), dtype=np.uint64))
    made = random.integers(1, 2**64, (size, minhash.BANDS), dtype=np.uint64)
    folded, shingles = np.full(size, 300, np.uint32), np.full(size, 296, np.uint32)
    texts = _alike(shard, size)
    found = minhash.signatures_of(texts, minhash.rows_for(dedup.THRESHOLD), TRANSLATE)
    near = slice(0, len(texts))
    for column, values in zip((folded, shingles, *digests, made), _columns(found), strict=True):
        column[near] = values
    if before is not None:
        copies = slice(len(texts), len(texts) + size // COPIES)
        for column, values in zip((*digests, made), before[-3:], strict=True):
            column[copies] = values[len(values) - size // COPIES :]
    return [folded.astype(np.int32), folded, shingles, *digests, made]


def _columns(found: minhash.Signatures) -> Iterator[np.ndarray]:
    yield from (found.folded, found.shingles, *found.digests.T, found.bands)
