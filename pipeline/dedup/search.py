"""Which documents are alike: the search over the keys of all of them.

In: keys (`dedup.signatures`). Out: the documents that have a like, and which one of each cluster is kept.
Invariants: equal documents are found by 128 bits of their folded characters, likely ones by shared bands, and these are
tested by the true similarity of their texts; who leaves is like the one that is kept for it, the first by split
(`KEEP_FIRST`) and number; workers change nothing.
Cost: 0.64 GB of memory for 20 million documents; on disk, meanwhile, four bytes for each character of documents that
share a band.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from corpus.pipeline.dedup import clusters, minhash
from corpus.pipeline.dedup.clusters import Clusters
from corpus.pipeline.dedup.signatures import BANDS, DIGESTS, Keys, between, slices
from corpus.pipeline.progress import Progress
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.files import disk_errors, scratch

_SHINGLES_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class Found:
    """The documents that have a like, in order of their numbers."""

    members: np.ndarray
    """[members] uint32: numbers of documents."""
    kept: np.ndarray
    """[members] uint32: the document that is kept for each, its own number where that is itself."""
    exact: np.ndarray
    """[members] bool: whether it folds to the same characters as the kept one."""
    similarity: np.ndarray
    """[members] float64: Jaccard similarity to the kept one."""
    counts: Mapping[str, int]
    """What was compared: documents and pairs."""


def search(keys: Keys, threshold: float | None, path: Path, *, workers: int, progress: Progress) -> Found:
    """Find all documents that are alike.

    Args:
        keys: keys of all documents.
        threshold: least similarity of documents that are nearly alike; None when only equal ones are sought.
        path: where a file may lie meanwhile.
        workers: processes that read the texts of documents that may be alike.
        progress: who listens.

    """
    joined = Clusters(keys.count)
    copies = _join_equal(keys, joined)
    if threshold is None:
        return _judge(keys, joined, None, 1.0, {})
    chosen = keys.load("shingles") > 0
    chosen[copies] = False
    likely = np.zeros(keys.count, dtype=np.bool_)
    for band in _bands(progress, "dedup: documents that share a band"):
        likely[keys.groups(band, chosen).members] = True
    with scratch(path) as file:
        sets = SetFile(file, keys, np.flatnonzero(likely).astype(np.uint32))
        sets.fill(workers, progress)
        tested = alike = 0
        for band in _bands(progress, "dedup: comparing"):
            more = clusters.join(keys.groups(band, likely), joined, partial(sets.alike, threshold=threshold))
            tested, alike = tested + more[0], alike + more[1]
        counts = {"candidate_documents": len(sets.documents), "candidate_pairs": tested, "verified_pairs": alike}
        return _judge(keys, joined, sets, threshold, counts)


def _bands(progress: Progress, label: str) -> Iterator[str]:
    progress.begin(label, len(BANDS), "bands")
    try:
        for band in BANDS:
            yield band
            progress.advance(1)
    finally:
        progress.end()


def _join_equal(keys: Keys, joined: Clusters) -> np.ndarray:
    """Unite what folds to the same characters. Returns all of these but the first of each."""
    members = np.sort(keys.groups(DIGESTS[0], keys.load("folded") > 0).members)
    equal = clusters.same(members, *(keys.take(name, members) for name in DIGESTS))
    leaders = equal.leaders()
    joined.unite(leaders, equal.members)
    return np.asarray(equal.members[equal.members != leaders])


def _judge(keys: Keys, joined: Clusters, sets: SetFile | None, threshold: float, counts: Mapping[str, int]) -> Found:
    """Who is kept, and how alike the others are to them."""
    members, numbers = joined.together()
    equal = clusters.same(members, *(keys.take(name, members) for name in DIGESTS))
    originals = np.empty_like(members)
    originals[np.searchsorted(members, equal.members)] = equal.leaders()

    def similarity(first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        one, other = originals[np.searchsorted(members, [first, second])]
        values, differ = np.ones(len(first)), one != other
        if sets is not None:  # else only equal ones are together
            values[differ] = sets.similarity(one[differ], other[differ], least)
        return values

    kept, values = clusters.stars(members, numbers, keys.take("split", members), similarity, threshold)
    _, of, sizes = np.unique(kept, return_inverse=True, return_counts=True)
    many = sizes[of] > 1
    exact = originals == originals[np.searchsorted(members, kept)]
    return Found(members[many], kept[many], exact[many], values[many], counts)


class SetFile:
    """The shingles of some documents in a file, each document's at a place of its own."""

    def __init__(self, path: Path, keys: Keys, documents: np.ndarray) -> None:
        self.path, self.keys, self.documents = path, keys, documents
        room = keys.take("shingles", documents).astype(np.int64)
        self.places = np.cumsum(room) - room
        """[documents] int64: where each begins, in shingles."""
        self.sizes = np.zeros(len(documents), dtype=np.int64)
        """[documents] int64: shingles of each, once filled."""

    def fill(self, workers: int, progress: Progress) -> None:
        """Read the texts and write their shingles."""
        pieces = []
        for shard in self.keys.shards:
            within = between(self.documents, shard.first, shard.count)
            if within.start < within.stop:
                pieces.append((shard.path, self.documents[within] - shard.first, self.places[within]))
        progress.begin("dedup: shingles of these", len(self.documents), "documents")
        work, filled = partial(_write_sets, file=self.path), 0
        try:
            for sizes in run_pieces(work, pieces, workers=worker_count(workers, len(pieces))):
                self.sizes[filled : filled + len(sizes)] = sizes
                filled += len(sizes)
                progress.advance(len(sizes))
        finally:
            progress.end()

    def alike(self, first: np.ndarray, second: np.ndarray, *, threshold: float) -> np.ndarray:
        """[pairs] bool: whether documents are as similar as `threshold` says."""
        return np.asarray(self.similarity(first, second, threshold) >= threshold)

    def similarity(self, first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        """[pairs] float64: Jaccard similarity of documents; 0 where their sizes alone say that it is below `least`."""
        one, other = np.searchsorted(self.documents, [first, second])
        larger = np.maximum(self.sizes[one], self.sizes[other])
        near = np.flatnonzero(np.minimum(self.sizes[one], self.sizes[other]) >= least * larger)
        values = np.zeros(len(one))
        batches = np.cumsum(2 * larger[near]) // _SHINGLES_AT_ONCE
        bounds = [*np.flatnonzero(np.diff(batches, prepend=-1)).tolist(), len(near)]
        with disk_errors(self.path), self.path.open("rb", buffering=0) as file:
            for begin, end in itertools.pairwise(bounds):
                pairs = near[begin:end]
                used, at = np.unique(np.stack([one[pairs], other[pairs]]), return_inverse=True)
                values[pairs] = minhash.jaccard(self._read(file.fileno(), used), *at.reshape(2, -1))
        return values

    def _read(self, file: int, which: np.ndarray) -> minhash.Sets:
        starts = np.concatenate(([0], np.cumsum(self.sizes[which])))
        flat = np.empty(starts[-1], dtype="<u4")
        for begin, end, place in zip(
            starts[:-1].tolist(), starts[1:].tolist(), self.places[which].tolist(), strict=True
        ):
            os.preadv(file, [flat[begin:end].data], place * flat.itemsize)
        return minhash.Sets(flat, starts)


def _write_sets(piece: tuple[Path, np.ndarray, np.ndarray], *, file: Path) -> np.ndarray:
    """Write the shingles of some lines of a shard to their places; runs in a worker. Returns how many each has."""
    path, lines, places = piece
    sizes: list[int] = []
    with disk_errors(file), file.open("r+b", buffering=0) as out:
        for texts, _ in slices(path, lines):
            sets = minhash.shingle_sets(texts, TRANSLATE)
            flat = sets.flat.astype("<u4", copy=False)
            for begin, end in itertools.pairwise(sets.starts.tolist()):
                os.pwrite(out.fileno(), flat[begin:end].data, int(places[len(sizes)]) * flat.itemsize)
                sizes.append(end - begin)
    return np.array(sizes, dtype=np.int64)
