"""Search for duplicates among the signatures of all documents.

In: signatures (`dedup.signatures`).
Out: the documents that have duplicates, and the one that is kept for each.
Invariants: equal documents are found by 128 bits of their folded characters. Candidates share a band, and are tested by
the exact similarity of their texts. A removed document is similar to the one kept for it, which is the first by split
(`KEEP_FIRST`) and number. The number of workers changes nothing.
Cost: 0.64 GB of memory for 20 million documents; a temporary file of four bytes for each character of candidates.
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
from corpus.pipeline.dedup.signatures import BANDS, DIGESTS, SignatureStore, range_slice, read_batches
from corpus.pipeline.progress import Progress
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.files import disk_errors, scratch

_SHINGLES_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The documents that have duplicates, in order of their numbers."""

    members: np.ndarray
    """[members] uint32."""
    kept: np.ndarray
    """[members] uint32: the document kept for each; its own number where it is kept itself."""
    exact: np.ndarray
    """[members] bool: whether it folds to the same characters as the kept document."""
    similarity: np.ndarray
    """[members] float64: Jaccard similarity to the kept document."""
    counts: Mapping[str, int]
    """Numbers of candidates and of compared pairs."""


def search(
    store: SignatureStore, threshold: float | None, path: Path, *, workers: int, progress: Progress
) -> Duplicates:
    """Find all duplicates, near ones from similarity `threshold` on; None finds only equal documents.

    `path` names a temporary file; `workers` processes read the texts of candidates.
    """
    joined = Clusters(store.count)
    copies = _join_equal(store, joined)
    if threshold is None:
        return _select_kept(store, joined, None, 1.0, {})
    chosen = store.load("shingles") > 0
    chosen[copies] = False
    candidates = np.zeros(store.count, dtype=np.bool_)
    for band in _bands(progress, "dedup: documents that share a band"):
        candidates[store.groups(band, chosen).members] = True
    with scratch(path) as file:
        sets = ShingleFile(file, store, np.flatnonzero(candidates).astype(np.uint32))
        sets.fill(workers, progress)
        tested = verified = 0

        def is_similar(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return np.asarray(sets.similarity(first, second, threshold) >= threshold)

        for band in _bands(progress, "dedup: comparing"):
            more = clusters.join_similar(store.groups(band, candidates), joined, is_similar)
            tested, verified = tested + more[0], verified + more[1]
        counts = {"candidate_documents": len(sets.documents), "candidate_pairs": tested, "verified_pairs": verified}
        return _select_kept(store, joined, sets, threshold, counts)


def _bands(progress: Progress, label: str) -> Iterator[str]:
    with progress.bar(label, len(BANDS), "bands"):
        for band in BANDS:
            yield band
            progress.advance(1)


def _join_equal(store: SignatureStore, joined: Clusters) -> np.ndarray:
    """Merge documents that fold to the same characters. Returns all of these except the first of each group."""
    members = np.sort(store.groups(DIGESTS[0], store.load("folded") > 0).members)
    equal = clusters.groups_by_columns(members, *(store.take(name, members) for name in DIGESTS))
    leaders = equal.leaders()
    joined.union(leaders, equal.members)
    return np.asarray(equal.members[equal.members != leaders])


def _select_kept(
    store: SignatureStore, joined: Clusters, sets: ShingleFile | None, threshold: float, counts: Mapping[str, int]
) -> Duplicates:
    """Select the kept documents, and compute the similarity of the others to them."""
    members, numbers = joined.members()
    equal = clusters.groups_by_columns(members, *(store.take(name, members) for name in DIGESTS))
    originals = np.empty_like(members)
    originals[np.searchsorted(members, equal.members)] = equal.leaders()

    def similarity(first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        one, other = originals[np.searchsorted(members, [first, second])]
        values, differ = np.ones(len(first)), one != other
        if sets is not None:  # without it, a cluster contains equal documents only
            values[differ] = sets.similarity(one[differ], other[differ], least)
        return values

    kept, values = clusters.pick_kept(members, numbers, store.take("split", members), similarity, threshold)
    _, of, sizes = np.unique(kept, return_inverse=True, return_counts=True)
    many = sizes[of] > 1
    exact = originals == originals[np.searchsorted(members, kept)]
    return Duplicates(members[many], kept[many], exact[many], values[many], counts)


class ShingleFile:
    """The shingle sets of some documents in a file, each at an offset that leaves room for all its shingles."""

    def __init__(self, path: Path, store: SignatureStore, documents: np.ndarray) -> None:
        self.path, self.store, self.documents = path, store, documents
        room = store.take("shingles", documents).astype(np.int64)
        self.offsets = np.cumsum(room) - room
        """[documents] int64: where each begins, in shingles."""
        self.sizes = np.zeros(len(documents), dtype=np.int64)
        """[documents] int64: size of each set, after `fill`."""

    def fill(self, workers: int, progress: Progress) -> None:
        """Read the texts and write their shingle sets."""
        pieces = []
        for shard in self.store.shards:
            within = range_slice(self.documents, shard.first, shard.count)
            if within.start < within.stop:
                pieces.append((shard.path, self.documents[within] - shard.first, self.offsets[within]))
        work, filled = partial(_write_sets, file=self.path), 0
        with progress.bar("dedup: shingles of candidates", len(self.documents), "documents"):
            for sizes in run_pieces(work, pieces, workers=worker_count(workers, len(pieces))):
                self.sizes[filled : filled + len(sizes)] = sizes
                filled += len(sizes)
                progress.advance(len(sizes))

    def similarity(self, first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        """[pairs] float64: Jaccard similarity of documents; 0 where their sizes imply that it is below `least`."""
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

    def _read(self, file: int, which: np.ndarray) -> minhash.ShingleSets:
        starts = np.concatenate(([0], np.cumsum(self.sizes[which])))
        flat = np.empty(starts[-1], dtype="<u4")
        bounds = zip(starts[:-1].tolist(), starts[1:].tolist(), self.offsets[which].tolist(), strict=True)
        for begin, end, offset in bounds:
            os.preadv(file, [flat[begin:end].data], offset * flat.itemsize)
        return minhash.ShingleSets(flat, starts)


def _write_sets(piece: tuple[Path, np.ndarray, np.ndarray], *, file: Path) -> np.ndarray:
    """Write the shingle sets of some lines of a shard at their offsets; runs in a worker. Returns their sizes."""
    path, lines, offsets = piece
    sizes: list[int] = []
    with disk_errors(file), file.open("r+b", buffering=0) as out:
        for texts, _ in read_batches(path, lines):
            sets = minhash.shingle_sets(texts, TRANSLATE)
            flat = sets.flat.astype("<u4", copy=False)
            for begin, end in itertools.pairwise(sets.starts.tolist()):
                os.pwrite(out.fileno(), flat[begin:end].data, int(offsets[len(sizes)]) * flat.itemsize)
                sizes.append(end - begin)
    return np.array(sizes, dtype=np.int64)
