"""What documents share, written down: runs of each documents shard, the passages that most documents repeat, counts.

In: the runs that `dedup.spans` found. Out: `spans/<dataset>/part-NNNNN.parquet` for each documents shard with runs, in
order of document and start; `passages.parquet`, the `MOST` passages that most documents repeat.
Invariants: characters that several runs of a document cover count once.
Cost: the rows of one shard, the ids of the first documents, and the passages' texts, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.dedup import places, span_texts
from corpus.pipeline.dedup.places import Runs
from corpus.pipeline.dedup.spans import FoundSpans
from corpus.pipeline.errors import BooksError
from corpus.pipeline.signatures.files import KEEP_FIRST, SignatureShard, SignatureStore, ids_of, range_slice
from corpus.pipeline.storage.document_shards import document_ref, part_number, parts, reading_part
from corpus.pipeline.workspace.files import atomic

SPANS = "spans"
"""Folder of the runs of each documents shard."""
PASSAGES = "passages.parquet"
MOST = 1_000
"""Passages in the table."""
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("document", pa.int64()),
            ("id", pa.string()),
            ("split", pa.string()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("first_dataset", pa.string()),
            ("first_document", pa.int64()),
            ("first_id", pa.string()),
            ("first_start", pa.int32()),
        )
    ]
)
"""Characters `start` to `end` of a document, which stand in an earlier one from `first_start` on."""
PASSAGES_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("documents", pa.int64()),
            ("runs", pa.int64()),
            ("characters", pa.int64()),
            ("dataset", pa.string()),
            ("document", pa.int64()),
            ("id", pa.string()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("text", pa.string()),
        )
    ]
)
"""Passages of first documents by the number of other `documents` that repeat a part, with all their runs and the
characters of these. `start`, `end` and `text` are the part that is repeated most often."""


@dataclass(frozen=True, slots=True)
class Owners:
    """The documents that were first to have a run."""

    numbers: np.ndarray
    """[documents] int64, ascending."""
    table: pa.Table
    """[documents] dataset, document (its reference) and id."""

    def rows(self, documents: np.ndarray) -> pa.Table:
        """What is known of some of them."""
        return self.table.take(pa.array(np.searchsorted(self.numbers, documents)))


def write(found: FoundSpans, owners: Owners, store: SignatureStore, names: Sequence[str], folder: Path) -> list[Path]:
    """Write runs and passages, and delete other files of runs. Returns the files."""
    documents = places.documents_of(found.runs.places)
    written = [folder / PASSAGES]
    with atomic(folder / PASSAGES) as out:
        pq.write_table(_passages(found, owners), out, compression="zstd")
    for name in names:
        for shard in (shard for shard in store.shards if shard.dataset == name):
            own = range_slice(documents, shard.first, shard.count)
            if own.start < own.stop:
                written.append(folder / SPANS / name / shard.path.name)
                with atomic(written[-1]) as out:
                    pq.write_table(_rows(found, own, shard, owners), out, compression="zstd")
    delete_others(folder, written)
    return written


def delete_others(folder: Path, written: Sequence[Path]) -> None:
    """Delete the files of runs and passages that were not written."""
    for path in (folder / PASSAGES, *(folder / SPANS).glob("*/*.parquet")):
        if path not in written:
            path.unlink(missing_ok=True)


def owners_of(found: FoundSpans, store: SignatureStore) -> Owners:
    """The first documents of all runs."""
    numbers = np.unique(places.documents_of(found.runs.firsts))
    tables = [pa.schema([("dataset", pa.string()), ("document", pa.int64()), ("id", pa.string())]).empty_table()]
    for shard in store.shards:
        here = numbers[range_slice(numbers, shard.first, shard.count)]
        if len(here):
            columns = [[shard.dataset] * len(here), document_ref(part_number(shard.path), here - shard.first)]
            tables.append(pa.table([*columns, ids_of(shard, here)], names=tables[0].schema.names))
    return Owners(numbers, pa.concat_tables(tables))


def _rows(found: FoundSpans, own: slice, shard: SignatureShard, owners: Owners) -> pa.Table:
    """The runs of a shard."""
    runs = found.runs.take(own)
    numbers, starts = places.documents_of(runs.places), places.positions_of(runs.places)
    first = owners.rows(places.documents_of(runs.firsts))
    single, at = np.unique(numbers, return_inverse=True)
    return pa.table(
        [
            document_ref(part_number(shard.path), numbers - shard.first),
            ids_of(shard, single).take(pa.array(at)),
            np.array(KEEP_FIRST)[places.ranks_of(runs.places)],
            starts,
            starts + runs.lengths,
            first["dataset"],
            first["document"],
            first["id"],
            places.positions_of(runs.firsts),
        ],
        names=SCHEMA.names,
    ).cast(SCHEMA)


def _passages(found: FoundSpans, owners: Owners) -> pa.Table:
    """The passages that most documents repeat."""
    runs, count = found.runs, len(found.texts.begins)
    of, documents = found.texts.passages_of(runs.firsts), places.documents_of(runs.places)
    pairs = np.unique(of.astype(np.uint64) << np.uint64(32) | documents.astype(np.uint64))
    repeats = np.bincount((pairs >> np.uint64(32)).astype(np.int64), minlength=count)
    chosen = np.lexsort((np.arange(count), -repeats))[:MOST]
    chosen = chosen[repeats[chosen] > 0]
    firsts, lengths = _most_frequent(runs.take(np.isin(of, chosen)), found.texts.passages_of)
    rank = np.searchsorted(np.sort(chosen), chosen)
    firsts, lengths = firsts[rank], lengths[rank]
    owner, starts = owners.rows(places.documents_of(firsts)), places.positions_of(firsts)
    columns = [
        repeats[chosen],
        np.bincount(of, minlength=count)[chosen],
        np.bincount(of, weights=runs.lengths, minlength=count)[chosen].astype(np.int64),
        *(owner[name] for name in ("dataset", "document", "id")),
        starts,
        starts + lengths,
        pa.array(map(found.texts.text, firsts, lengths.tolist()), pa.string()),
    ]
    return pa.table(columns, names=PASSAGES_SCHEMA.names).cast(PASSAGES_SCHEMA)


def _most_frequent(runs: Runs, passages_of: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[passages] first places and lengths of the run that is repeated most often in each passage, then the longest."""
    order = np.lexsort((runs.lengths, runs.firsts))
    firsts, lengths = runs.firsts[order], runs.lengths[order]
    changes = np.ones(len(order), dtype=np.bool_)
    changes[1:] = (firsts[1:] != firsts[:-1]) | (lengths[1:] != lengths[:-1])
    opens = np.flatnonzero(changes)
    equal, firsts, lengths = np.diff(opens, append=len(order)), firsts[opens], lengths[opens]
    of = passages_of(firsts)
    order = np.lexsort((firsts, -lengths, -equal, of))
    leading = order[np.unique(of[order], return_index=True)[1]]
    return firsts[leading], lengths[leading]


def counts_of(found: FoundSpans, store: SignatureStore, names: Sequence[str]) -> dict[str, Any]:
    """The counts of the ledger."""
    documents, begins, ends = span_texts.stretches(found.runs)
    splits = store.load("split")[documents]
    runs = places.documents_of(found.runs.places)
    datasets = {}
    for name in names:
        shards = [shard for shard in store.shards if shard.dataset == name]
        first, count = (shards[0].first, sum(shard.count for shard in shards)) if shards else (0, 0)
        own, listed = (range_slice(numbers, first, count) for numbers in (documents, runs))
        once = np.unique(documents[own], return_index=True)[1]
        datasets[name] = {
            "documents": _by_split(splits[own][once], np.ones(len(once))),
            "characters": _by_split(splits[own], (ends - begins)[own]),
            "runs": listed.stop - listed.start,
        }
    return {
        "datasets": datasets,
        "passages": len(np.unique(found.texts.passages_of(found.runs.firsts))),
        **found.counts,
    }


def _by_split(splits: np.ndarray, values: np.ndarray) -> dict[str, int]:
    sums = np.bincount(splits, weights=values, minlength=len(KEEP_FIRST)).astype(np.int64)
    return {name: value for name, value in zip(KEEP_FIRST, sums.tolist(), strict=True) if value}


def check_books(store: SignatureStore, folder: Path, stays: np.ndarray, counts: Mapping[str, Any]) -> None:
    """Raise BooksError unless the files of runs name characters of documents that stay ([documents] bool), as many as
    were counted.
    """
    characters, splits = store.load("characters"), store.load("split")
    for name, counted in counts["datasets"].items():
        sums = np.zeros((2, len(KEEP_FIRST)))
        rows = 0
        there = {path.name for path in parts(folder / SPANS / name)}
        for shard in (shard for shard in store.shards if shard.dataset == name and shard.path.name in there):
            path = folder / SPANS / name / shard.path.name
            with reading_part(path):
                table = pq.read_table(path, columns=["document", "start", "end"])
            lines, start, end = (table[key].to_numpy().astype(np.int64) for key in ("document", "start", "end"))
            numbers = lines - document_ref(part_number(shard.path), 0) + shard.first
            rows += len(numbers)
            if not stays[numbers].all() or (start < 0).any() or (end > characters[numbers]).any():
                raise BooksError(f"{path} names characters that no document has, or one that is left out")
            begins = places.places_of(np.zeros_like(numbers), numbers, start)
            starts, ends, _ = places.united(begins, end - start)
            own = splits[places.documents_of(starts)]
            sums[1] += np.bincount(own, weights=(ends - starts).astype(np.float64), minlength=len(KEEP_FIRST))
            sums[0] += np.bincount(splits[np.unique(numbers)], minlength=len(KEEP_FIRST))
        seen = [{split: int(n) for split, n in zip(KEEP_FIRST, row, strict=True) if n} for row in sums.tolist()]
        if [rows, *seen] != [counted["runs"], counted["documents"], counted["characters"]]:
            raise BooksError(f"{name}: the files in {folder / SPANS / name} do not hold the runs that were counted")
