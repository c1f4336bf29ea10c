"""The dedup stage: finds exact and near duplicates, within a dataset and across all of them.

In: `documents/<dataset>/` of every dataset. Out: `dedup/lists/`, for each documents shard the duplicates to leave out,
each with the document kept for it; `dedup/clusters.parquet`, every document that has a duplicate; `dedup/keys/` and
`dedup/bands/`, the keys of each documents shard; and where they are looked for `dedup/spans/` and
`dedup/passages.parquet`, runs of characters that documents share.
Invariants: a removed document is similar to the one kept for it, the first kept one among its duplicates by split
(test, validation, train), dataset, shard and line; so no duplicate of a kept test or validation document stays in
train; documents = kept + removed in every split; the lists depend on documents and settings alone. Keys carry the
fingerprint of their documents shard, so after a new dataset or a killed run only missing keys are computed.
Cost: see `corpus.pipeline.signatures` and `corpus.pipeline.dedup.search`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.dedup import keys, search, span_lists, spans
from corpus.pipeline.dedup.search import Duplicates
from corpus.pipeline.dedup.span_cuts import SpanCuts
from corpus.pipeline.errors import BooksError, DamageError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.signatures import files as signatures
from corpus.pipeline.signatures.files import KEEP_FIRST, SignatureShard, SignatureStore, ids_of, range_slice
from corpus.pipeline.storage import removal_lists
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, part_number
from corpus.pipeline.storage.selection import datasets_of, documents_of
from corpus.pipeline.workers import worker_count
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, Report, Stopwatch
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun

STAGE = "dedup"
VERSION = 3
EXACT = "exact_duplicate"
NEAR = "near_duplicate"
THRESHOLD = signatures.THRESHOLD
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
"""Every document that has a duplicate, by dataset and document; `reason` is null where it is kept, `similarity` is to
the kept one."""
LEAST_SPAN = 50
"""Characters of the shortest run that may be looked for; shorter ones are idioms, names and formulas."""
_LEAST_THRESHOLD = 0.5
_LARGEST = 10
_ORDER = ("document", "start")
"""Order of the rows of a list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a duplicate, and in which datasets."""

    datasets: tuple[str, ...] = ()
    """Datasets to compare, with themselves and each other; all that have documents when empty."""
    near: bool = True
    """Whether near duplicates count too."""
    threshold: float = THRESHOLD
    """Least similarity of near duplicates: Jaccard index of their shingles."""
    spans: int | None = None
    """Characters of the shortest run that is looked for in several documents; runs are not looked for when None."""
    cut: bool = False
    """Whether runs that an earlier document has are cut out of prose; else they are only listed."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        if not _LEAST_THRESHOLD <= self.threshold <= 1:
            raise ValueError(f"--threshold must be at least {_LEAST_THRESHOLD} and at most 1, is {self.threshold}")
        if self.spans is not None and self.spans < LEAST_SPAN:
            raise ValueError(f"--spans must be at least {LEAST_SPAN}, is {self.spans}")
        if self.cut and self.spans is None:
            raise ValueError("--cut needs --spans N, which says how long a run is")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


def run(config: DedupConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Find duplicates; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents.
        DamageError: a documents shard is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    stage, ledgers, threshold = prepare(config, workspace, progress)
    if report := stage.skipped():
        return report
    folder, names = stage.folder, list(ledgers)
    stage.begin()
    store = SignatureStore(keys.shards_of(workspace, ledgers, config.threshold))
    sign = partial(keys.make, stage, store.shards, config.threshold, config.workers)
    sign()
    look = partial(search.search, store, threshold, folder / "scratch", workers=config.workers, progress=progress)
    try:
        found = look()
    except DamageError:  # of bands, which are compared with their checksums only as they are read
        sign(thorough=True)
        found = look()
    lists = _Lists(store, found, names)
    written, shared, cuts = list[Path](), None, None
    if config.spans is None:
        span_lists.delete_others(folder, [])
    else:
        written, shared, cuts = _find_spans(lists, config, folder, ledgers, progress)
    written += _write(lists, workspace, cuts, progress)
    counts = _counts(lists)
    if shared is not None:
        counts["spans"] = shared
        for name, cut in cuts.counts.items() if cuts else ():
            shared["datasets"][name] |= {key: dict(sorted(sums.items())) for key, sums in cut.items()}
    return stage.finish(
        outputs=written,
        counts=counts,
        check_books=partial(_check_books, store, ledgers, folder, counts),
        timings={"workers": worker_count(config.workers, None)},
    )


def run_share(config: DedupConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Sign a share of the documents that ingest has not signed; the caller holds `workspace.sharing()`.

    Raises:
        WorkspaceError, DamageError, WorkerError, DiskError: as `run`.

    """
    stage, ledgers, _ = prepare(config, workspace, progress, share)
    if stage.skipped():
        return stage.already_finished()
    shards = keys.shards_of(workspace, ledgers, config.threshold)
    return keys.make_share(stage, shards, config.threshold, config.workers)


def prepare(
    config: DedupConfig, workspace: Workspace, progress: Progress, share: Share | None = None
) -> tuple[StageRun, dict[str, Ledger], float | None]:
    """The run of the stage, or of a share of it, the ledgers of the documents, and the threshold of near duplicates."""
    watch = Stopwatch()
    names = datasets_of(workspace, config.datasets)
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER) for name in names]
    ledgers = {name: documents_of(workspace, name, progress, read=False) for name in names}
    threshold = config.threshold if config.near else None
    made_by = signatures.settings(config.threshold)
    settings = {"datasets": names, "near": config.near, "threshold": threshold, **made_by}
    if config.spans is not None:  # else the ledger is as it was before there were runs
        settings["spans"] = config.spans
        settings |= {"cut": True} if config.cut else {}
    stage = StageRun(
        workspace, workspace.dedup, stage=STAGE, version=VERSION, config=settings, inputs=inputs, watch=watch,
        progress=progress, share=share,
    )  # fmt: skip
    return stage, ledgers, threshold


def _find_spans(
    lists: _Lists, config: DedupConfig, folder: Path, ledgers: Mapping[str, Ledger], progress: Progress
) -> tuple[list[Path], dict[str, Any], SpanCuts | None]:
    """Write the runs that documents share which are not removed. Returns the files, the counts, and what is cut."""
    store, found, least = lists.store, lists.found, config.spans or LEAST_SPAN
    stays = np.ones(store.count, dtype=np.bool_)
    stays[found.members[found.members != found.kept]] = False
    stays &= store.load("characters") >= least
    with spans.search(store, stays, least, folder, workers=config.workers, progress=progress) as shared:
        owners = span_lists.owners_of(shared, store)
        written = span_lists.write(shared, owners, store, lists.names, folder)
        counts = span_lists.counts_of(shared, store, lists.names)
    span_lists.check_books(store, folder, stays, counts)
    shortest = {name: ledger.config["min_length"] for name, ledger in ledgers.items()}
    return written, counts, SpanCuts(shared.runs, owners, store, shortest) if config.cut else None


class _Lists:
    """The rows to write about the members of clusters."""

    def __init__(self, store: SignatureStore, found: Duplicates, names: Sequence[str]) -> None:
        self.store, self.found, self.names = store, found, names
        kept, self.clusters = np.unique(found.kept, return_inverse=True)
        """[members] the index of each one's kept document among all kept ones."""
        self.split, self.characters = (store.take(name, found.members) for name in ("split", "characters"))
        ids = [pa.array([], pa.string())]
        for shard in store.shards:
            here = kept[range_slice(kept, shard.first, shard.count)]
            ids += pc.binary_join_element_wise(shard.dataset, ids_of(shard, here), ":").chunks
        self.ids = pa.chunked_array(ids)
        """[clusters] `<dataset>:<id>` of the kept documents."""

    def rows(self, shard: SignatureShard) -> pa.Table:
        """The members in a shard, with the columns of a list and of the table of clusters."""
        here = range_slice(self.found.members, shard.first, shard.count)
        members, clusters = self.found.members[here], self.clusters[here]
        kept = members == self.found.kept[here]
        exact, similarity = self.found.exact[here], self.found.similarity[here]
        kept_ids = self.ids.take(pa.array(clusters)).to_pylist()
        details = [
            name if equal else f"{name} {value:.3f}"
            for name, equal, value in zip(kept_ids, exact.tolist(), similarity.tolist(), strict=True)
        ]
        return pa.table(
            {
                "cluster": clusters,
                "dataset": np.full(len(members), shard.dataset),
                "document": document_ref(part_number(shard.path), members.astype(np.int64) - shard.first),
                "id": ids_of(shard, members),
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


def _write(lists: _Lists, workspace: Workspace, cuts: SpanCuts | None, progress: Progress) -> list[Path]:
    """Write the lists and the table of clusters, and delete all other lists. Returns the files."""
    folder = workspace.dedup
    removal_lists.delete_others(folder, lists.names, [CLUSTERS, span_lists.PASSAGES])
    written = [folder / CLUSTERS]
    with (
        progress.bar("dedup: lists", lists.store.count, "documents"),
        atomic(folder / CLUSTERS) as out,
        pq.ParquetWriter(out, CLUSTERS_SCHEMA, compression="zstd") as members,
    ):
        for name in lists.names:
            shards = (shard for shard in lists.store.shards if shard.dataset == name)
            rows = _lists(lists, shards, members, cuts, progress)
            written += removal_lists.write(folder, name, rows, workspace.digest)
    return written


def _lists(
    lists: _Lists, shards: Iterable[SignatureShard], members: pq.ParquetWriter, cuts: SpanCuts | None,
    progress: Progress,
) -> Iterator[tuple[int, pa.Table]]:  # fmt: skip
    """The number and the removed documents of each shard; what is known of its members is written to `members`."""
    for shard in shards:
        rows = lists.rows(shard)
        if rows.num_rows:
            members.write_table(rows.select(CLUSTERS_SCHEMA.names).cast(CLUSTERS_SCHEMA))
        removed = rows.filter(pc.invert(rows["kept"]))
        if cuts is not None:
            removed = removed.select(REMOVED_SCHEMA.names).cast(REMOVED_SCHEMA)
            removed = pa.concat_tables([removed, cuts.rows(shard)]).sort_by([(key, "ascending") for key in _ORDER])
        yield part_number(shard.path), removed
        progress.advance(shard.count)


def _counts(lists: _Lists) -> dict[str, Any]:
    store, found, names = lists.store, lists.found, lists.names
    shape = (len(names), len(KEEP_FIRST))
    starts = np.cumsum([0] + [sum(part.count for part in store.shards if part.dataset == name) for name in names])
    splits = store.load("split")
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
        "too_short_to_shingle": int(np.count_nonzero(store.load("shingles") == 0)),
        **found.counts,
    }


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, int]:
    return {name: value for name, value in zip(names, values.tolist(), strict=True) if value}


def _check_books(store: SignatureStore, ledgers: Mapping[str, Ledger], folder: Path, counts: Mapping[str, Any]) -> None:
    """Raise BooksError unless every row of a list is a document and, in each split, documents = kept + removed, and
    unless as many characters are cut as were counted.
    """
    splits, end = store.load("split"), 0
    for name, ledger in ledgers.items():
        shards = [shard for shard in store.shards if shard.dataset == name]
        start, end = end, end + sum(shard.count for shard in shards)
        stays = np.ones(end - start, dtype=np.bool_)
        listed, cut = [np.zeros(0, dtype=np.int64)], Counter[str]()
        there = removal_lists.read_index(removal_lists.index_path(folder, name)).shards
        for shard in (shard for shard in shards if shard.path.name in there):
            rows = removal_lists.read_list(removal_lists.list_path(folder, name, shard.path.name))
            table, parts_cut = rows.filter(rows["whole"]), rows.filter(pc.invert(rows["whole"]))
            reference, documents = document_ref(part_number(shard.path), 0), table["document"].to_numpy()
            here = documents[range_slice(documents, reference, shard.count)]
            stays[here - reference + shard.first - start] = False
            listed.append(pc.index_in(table["split"], pa.array(KEEP_FIRST)).to_numpy())
            cut.update(_sizes(parts_cut))
        if not np.array_equal(splits[start:end][~stays], np.concatenate(listed)):
            raise BooksError(
                f"{name}: its lists repeat a document, or have one that does not exist or of another split"
            )
        kept = _named(KEEP_FIRST, np.bincount(splits[start:end][stays], minlength=len(KEEP_FIRST)))
        removed = Counter(counts["datasets"][name][EXACT]) + Counter(counts["datasets"][name][NEAR])
        shared = counts["spans"]["datasets"][name] if "spans" in counts else {}
        removed += Counter(shared.get("left_out", {}))
        counted = ledger.counts["splits"]
        if Counter(kept) + removed != +Counter(counted):
            raise BooksError(f"{name}: {counted} documents are not {kept} kept + {dict(removed)} removed")
        if cut != Counter(shared.get("characters_cut", {})):
            raise BooksError(f"{name}: its lists cut {dict(cut)} characters, not {shared.get('characters_cut')}")


def _sizes(rows: pa.Table) -> dict[str, int]:
    """The characters of the rows of a list, by split."""
    sums = rows.group_by("split").aggregate([("start", "sum"), ("end", "sum")]).to_pylist()
    return {row["split"]: row["end_sum"] - row["start_sum"] for row in sums}
