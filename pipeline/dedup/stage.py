"""The stage that finds documents which repeat others, within a dataset and across all of them.

In: `documents/<dataset>/` of every dataset. Out: `dedup/<dataset>.parquet`, the documents to leave out and which one
stays for each; `dedup/clusters.parquet`, every document that has a like; `dedup/keys/`, what they were compared by.
Invariants: who leaves is like the one that stays for it, which is the first that stays of its likes by split (test,
validation, train), dataset, shard and line; so nothing stays in train that was found to be like what stays in
validation or test; documents = kept + removed in every split; the lists depend on documents and settings alone. Keys
carry the fingerprint of their own documents shard, so another dataset, or a killed run, costs only what is missing.
Cost: see `corpus.pipeline.dedup.signatures` and `corpus.pipeline.dedup.search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.dedup import search
from corpus.pipeline.dedup import signatures as keys_of
from corpus.pipeline.dedup.search import Found
from corpus.pipeline.dedup.signatures import KEEP_FIRST, Keys, Shard, between
from corpus.pipeline.errors import BooksError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, part_number, parts, reading_part
from corpus.pipeline.storage.selection import datasets_of, documents_of
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.files import atomic, remove_leftovers
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    changes,
    fingerprint,
    read_ledger,
    write_ledger,
)

STAGE = "dedup"
VERSION = 1
EXACT = "exact_duplicate"
NEAR = "near_duplicate"
THRESHOLD = 0.8
CLUSTERS = "clusters.parquet"
CLUSTERS_SCHEMA = pa.schema(
    [
        pa.field("cluster", pa.int64(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("document", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""Every document that has a like, in order of dataset and document; `reason` is null where it is kept, `similarity` is
to the one that is kept."""
_LEAST_THRESHOLD = 0.5
_LARGEST = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a repetition, and where it is sought."""

    datasets: tuple[str, ...] = ()
    """Datasets that are compared, with themselves and each other; all that have documents when empty."""
    near: bool = True
    """Whether documents that are only nearly alike count too."""
    threshold: float = THRESHOLD
    """Least similarity of documents that are nearly alike: shingles they share, of those of both (Jaccard)."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not _LEAST_THRESHOLD <= self.threshold <= 1:
            raise ValueError(f"--threshold must be at least {_LEAST_THRESHOLD} and at most 1, is {self.threshold}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


def run(config: DedupConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Find what repeats; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents.
        DamageError: a documents shard is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun goes on.

    """
    watch, folder = Stopwatch(), workspace.dedup
    names = datasets_of(workspace, config.datasets)
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER) for name in names]
    ledgers = {name: documents_of(workspace, name) for name in names}
    settings = {
        "datasets": names,
        "near": config.near,
        "threshold": config.threshold if config.near else None,
        **keys_of.settings(config.threshold),
    }
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    remove_leftovers(folder)
    before = read_ledger(folder)
    reasons = changes(before, folder, VERSION, settings, inputs, workspace.digest)
    if before is not None and not reasons:
        return Report(ledger=before, folder=folder, skipped=True)
    for reason in reasons:
        progress.say(f"duplicates are sought again: {reason}")
    (folder / LEDGER).unlink(missing_ok=True)
    keys = Keys(list(_shards(workspace, ledgers, keys_of.settings(config.threshold))))
    _make_keys(keys.shards, folder, config, progress)
    found = search.search(
        keys, config.threshold if config.near else None, folder / "shingles", workers=config.workers, progress=progress
    )
    lists = _Lists(keys, found, names)
    _write(lists, folder, progress)
    counts = _counts(lists)
    _check_books(keys, ledgers, folder, counts)
    ledger = Ledger(
        stage=STAGE, dataset=None, version=VERSION, config=settings, inputs=inputs,
        outputs=workspace.file_digests(sorted(folder.glob("*.parquet")), folder),
        counts=counts, fingerprint=identity,
    )  # fmt: skip
    write_ledger(folder, ledger, {"seconds": watch.seconds, "workers": worker_count(config.workers, None)})
    return Report(ledger=ledger, folder=folder, reasons=tuple(reasons), seconds=watch.seconds)


def _shards(workspace: Workspace, ledgers: Mapping[str, Ledger], settings: Mapping[str, Any]) -> Iterator[Shard]:
    first = 0
    for name, ledger in ledgers.items():
        known = {output.path: output for output in ledger.outputs}
        for path in parts(workspace.documents(name)):
            if path.name not in known:
                continue
            source = FileDigest(workspace.relative(path), known[path.name].bytes, known[path.name].sha256)
            identity = fingerprint(f"{STAGE} keys", VERSION, settings, [source])
            with reading_part(path):
                count = pq.read_metadata(path).num_rows
            yield Shard(name, path, workspace.dedup / "keys" / name / path.name, identity, first, count)
            first += count


def _make_keys(shards: Sequence[Shard], folder: Path, config: DedupConfig, progress: Progress) -> None:
    """The keys of every shard: where they are of this very work they are kept."""
    missing = [shard for shard in shards if not keys_of.is_current(shard)]
    if len(missing) < len(shards):
        progress.say(f"dedup: the keys of {len(shards) - len(missing)} of {len(shards)} shards are kept")
    wanted = {shard.keys for shard in shards}
    for name in {shard.dataset for shard in shards}:  # the keys of datasets that are not compared now stay
        for path in parts(folder / "keys" / name):
            if path not in wanted:
                path.unlink()
    progress.begin("dedup: keys", sum(shard.count for shard in missing), "documents")
    work = partial(keys_of.make_keys, rows=keys_of.settings(config.threshold)["rows"])
    try:
        for shard in run_pieces(work, missing, workers=worker_count(config.workers, len(missing))):
            progress.advance(shard.count)
    finally:
        progress.end()


class _Lists:
    """What is written about the members of clusters."""

    def __init__(self, keys: Keys, found: Found, names: Sequence[str]) -> None:
        self.keys, self.found, self.names = keys, found, names
        self.kept, self.clusters = np.unique(found.kept, return_inverse=True)
        """The documents that are kept, and [members] which of these is each one's."""
        self.split, self.characters = (keys.take(name, found.members) for name in ("split", "characters"))
        self.ids = self._named()

    def _named(self) -> pa.ChunkedArray:
        """[clusters] `<dataset>:<id>` of the documents that are kept."""
        found = [pa.array([], pa.string())]
        for shard in self.keys.shards:
            ids = _ids(shard, self.kept[between(self.kept, shard.first, shard.count)])
            found += pc.binary_join_element_wise(shard.dataset, ids, ":").chunks
        return pa.chunked_array(found)

    def rows(self, shard: Shard) -> pa.Table:
        """The members of a shard, with the columns of a list and of the table of clusters."""
        here = between(self.found.members, shard.first, shard.count)
        members, clusters = self.found.members[here], self.clusters[here]
        kept = members == self.found.kept[here]
        exact, similarity = self.found.exact[here], self.found.similarity[here]
        stays = self.ids.take(pa.array(clusters)).to_pylist()
        details = [
            name if equal else f"{name} {value:.3f}"
            for name, equal, value in zip(stays, exact.tolist(), similarity.tolist(), strict=True)
        ]
        return pa.table(
            {
                "cluster": clusters,
                "dataset": np.full(len(members), shard.dataset),
                "document": document_ref(part_number(shard.path), members.astype(np.int64) - shard.first),
                "id": _ids(shard, members),
                "split": np.array(KEEP_FIRST)[self.split[here]],
                "kept": kept,
                "reason": pa.array(np.where(exact, EXACT, NEAR), pa.string(), mask=kept),
                "similarity": similarity,
                "detail": details,
                "start": np.zeros(len(members), dtype=np.int32),
                "end": self.characters[here],
                "whole": np.ones(len(members), dtype=np.bool_),
            }
        )


def _ids(shard: Shard, documents: np.ndarray) -> pa.ChunkedArray:
    """[documents] ids of some documents of a shard."""
    if not len(documents):
        return pa.chunked_array([], pa.string())
    with reading_part(shard.path), pq.ParquetFile(shard.path) as file:
        return file.read(columns=["id"])["id"].take(pa.array(documents.astype(np.int64) - shard.first))


def _write(lists: _Lists, folder: Path, progress: Progress) -> None:
    """Write the list of each dataset and the table of clusters, and leave no other."""
    for stray in {*folder.glob("*.parquet")} - {folder / f"{name}.parquet" for name in lists.names}:
        stray.unlink()
    progress.begin("dedup: lists", lists.keys.count, "documents")
    try:
        with _writer(folder / CLUSTERS, CLUSTERS_SCHEMA) as everyone:
            for name in lists.names:
                with _writer(folder / f"{name}.parquet", REMOVED_SCHEMA) as removed:
                    for shard in (shard for shard in lists.keys.shards if shard.dataset == name):
                        rows = lists.rows(shard)
                        if rows.num_rows:
                            everyone.write_table(rows.select(CLUSTERS_SCHEMA.names).cast(CLUSTERS_SCHEMA))
                            gone = rows.filter(pc.invert(rows["kept"]))
                            removed.write_table(gone.select(REMOVED_SCHEMA.names).cast(REMOVED_SCHEMA))
                        progress.advance(shard.count)
    finally:
        progress.end()


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    with atomic(path) as out, pq.ParquetWriter(out, schema, compression="zstd") as writer:
        yield writer


def _counts(lists: _Lists) -> dict[str, Any]:
    """As the ledger holds them."""
    keys, found, names = lists.keys, lists.found, lists.names
    shape = (len(names), len(KEEP_FIRST))
    starts = np.cumsum([0] + [sum(part.count for part in keys.shards if part.dataset == name) for name in names])
    splits = keys.load("split")
    gone = found.members != found.kept
    dataset, other = (np.searchsorted(starts, part[gone], side="right") - 1 for part in (found.members, found.kept))
    seen = [np.bincount(splits[begin:end], minlength=shape[1]) for begin, end in pairwise(starts)]
    tables = {"documents": np.stack(seen)}
    for reason, which in ((EXACT, found.exact[gone]), (NEAR, ~found.exact[gone])):
        cells = dataset[which] * shape[1] + lists.split[gone][which]
        tables[reason] = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    pairs = np.bincount(dataset * len(names) + other, minlength=len(names) ** 2).reshape(len(names), -1)
    sizes = np.sort(np.bincount(lists.clusters))[::-1]
    return {
        "datasets": {
            name: {what: _named(KEEP_FIRST, table[row]) for what, table in tables.items()}
            for row, name in enumerate(names)
        },
        "pairs": {name: _named(names, pairs[row]) for row, name in enumerate(names) if pairs[row].any()},
        "clusters": len(sizes),
        "largest_clusters": sizes[:_LARGEST].tolist(),
        "too_short_to_shingle": int(np.count_nonzero(keys.load("shingles") == 0)),
        **found.counts,
    }


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, int]:
    return {name: value for name, value in zip(names, values.tolist(), strict=True) if value}


def _check_books(keys: Keys, ledgers: Mapping[str, Ledger], folder: Path, counts: Mapping[str, Any]) -> None:
    """Every row of a list is a document, and in each split the kept and the removed make all documents.

    Raises:
        BooksError: they do not.

    """
    splits, end = keys.load("split"), 0
    for name, ledger in ledgers.items():
        shards = [shard for shard in keys.shards if shard.dataset == name]
        start, end = end, end + sum(shard.count for shard in shards)
        with reading_part(folder / f"{name}.parquet"):
            table = pq.read_table(folder / f"{name}.parquet", columns=["document", "split"])
        documents = table["document"].to_numpy()
        stays = np.ones(end - start, dtype=np.bool_)
        for shard in shards:
            reference = document_ref(part_number(shard.path), 0)
            here = documents[between(documents, reference, shard.count)]
            stays[here - reference + shard.first - start] = False
        listed = pc.index_in(table["split"], pa.array(KEEP_FIRST)).to_numpy()
        if not np.array_equal(splits[start:end][~stays], listed):
            raise BooksError(f"{name}: not every row of its list is a document of its own and of that split")
        kept = _named(KEEP_FIRST, np.bincount(splits[start:end][stays], minlength=len(KEEP_FIRST)))
        removed = Counter(counts["datasets"][name][EXACT]) + Counter(counts["datasets"][name][NEAR])
        if Counter(kept) + removed != +Counter(ledger.counts["splits"]):
            raise BooksError(
                f"{name}: {ledger.counts['splits']} documents are not {kept} kept + {dict(removed)} removed"
            )
