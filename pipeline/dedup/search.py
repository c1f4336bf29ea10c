"""Search for duplicates among the signatures of all documents.

In: signatures (`corpus.pipeline.signatures`).
Out: the documents that have duplicates, and the one that is kept for each.
Invariants: equal documents are found by 128 bits of their folded characters. Candidates share a band, and are tested by
the exact similarity of their texts. A removed document is similar to the one kept for it, which is the first by split
(`KEEP_FIRST`) and number. The number of workers changes nothing.
Cost: eight bytes of memory for each place in a group, and while a column is read 20 for each document; a temporary file
of four bytes for each character of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corpus.pipeline.dedup import clusters
from corpus.pipeline.dedup.clusters import Clusters, Groups
from corpus.pipeline.dedup.shingles import ShingleFile
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.signatures import bands, minhash
from corpus.pipeline.signatures.files import DIGESTS, SignatureStore
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.files import scratch

MOST_DOCUMENTS = 1 << 32
"""Documents are numbered in 32 bits."""


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
    store: SignatureStore, threshold: float | None, scratch_path: Path, *, workers: int, progress: Progress,
    partitions: int = 0,
) -> Duplicates:  # fmt: skip
    """Find all duplicates, near ones from similarity `threshold` on; None finds only equal documents.

    `scratch_path` names temporary files. `workers` processes read texts and bands and compare; with `partitions` the
    bands are grouped in so many, else in as many as bound the memory.

    Raises:
        WorkspaceError: there are more than `MOST_DOCUMENTS`.

    """
    if store.count > MOST_DOCUMENTS:
        raise WorkspaceError(
            f"one search takes at most {MOST_DOCUMENTS:,} documents, and there are {store.count:,}",
            hint="Search some datasets with `corpus dedup --dataset NAME`, the others in a workspace of their own.",
        )
    joined = Clusters(store.count)
    copies = _join_equal(store, joined)
    if threshold is None:
        return _select_kept(store, joined, None, 1.0, {})
    chosen = store.load("shingles") > 0
    chosen[copies] = False
    groups = _groups(store, chosen, partitions, workers=workers, progress=progress)
    with scratch(scratch_path.with_name("shingles")) as file:
        sets = ShingleFile(file, store, np.unique(groups.members), workers=workers)
        sets.fill(progress)

        def is_similar(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            passed = np.asarray(sets.similarity(first, second, threshold) >= threshold)
            progress.advance(len(passed))
            return passed

        with progress.bar("dedup: comparing", None, "pairs"):
            tested, verified = clusters.join_similar(groups, joined, is_similar)
        counts = {"candidate_documents": len(sets.documents), "candidate_pairs": tested, "verified_pairs": verified}
        return _select_kept(store, joined, sets, threshold, counts)


def _groups(store: SignatureStore, chosen: np.ndarray, count: int, *, workers: int, progress: Progress) -> Groups:
    """Groups of chosen documents ([documents] bool) that share a band."""
    total = store.count * minhash.BANDS
    runs, parts = bands.partitions(total, count), bands.parts(total, count)
    files = [
        (shard.bands, shard.first) for shard in store.shards if chosen[shard.first : shard.first + shard.count].any()
    ]
    members, numbers, before = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)], 0
    with progress.bar("dedup: grouping", len(runs) * parts, "partitions"):
        pieces = [bands.Partition(begin, end, files, part, parts) for begin, end in runs for part in range(parts)]
        for shared in run_pieces(groups_of, pieces, workers=worker_count(workers, len(pieces)), here=True):
            found = shared.where(chosen[shared.members]).of_many()
            members.append(found.members)
            numbers.append(found.numbers + np.uint32(before))
            before += int(found.numbers[-1]) + 1 if len(found.numbers) else 0
            progress.advance(1)
    return Groups(np.concatenate(members), np.concatenate(numbers))


def groups_of(partition: bands.Partition) -> Groups:
    """Groups of documents that share a value of a partition, whatever the order of its files; runs in a worker.

    Raises DamageError if a file is damaged.
    """
    return clusters.groups_by_value(*bands.rows(partition))


def _join_equal(store: SignatureStore, joined: Clusters) -> np.ndarray:
    """Merge documents that fold to the same characters. Returns all of these except the first of each group."""
    members = np.sort(_by_half(store, DIGESTS[0], store.load("folded") > 0).members)
    equal = clusters.groups_by_columns(members, *(store.take(name, members) for name in DIGESTS))
    leaders = equal.leaders()
    joined.union(leaders, equal.members)
    return np.asarray(equal.members[equal.members != leaders])


def _by_half(store: SignatureStore, name: str, chosen: np.ndarray) -> Groups:
    """Groups of the chosen documents ([documents] bool) that share the lower 32 bits of a column's values."""
    packed = np.empty(np.count_nonzero(chosen), dtype="<u8")
    filled = 0
    for first, values in store.column(name):
        which = np.flatnonzero(chosen[first : first + len(values)])
        part = packed[filled : filled + len(which)]
        part[:] = values[which]
        part <<= 32
        part |= (which + first).astype(np.uint64)
        filled += len(which)
    return clusters.groups_by_half(packed)


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
