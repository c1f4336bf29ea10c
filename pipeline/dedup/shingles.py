"""The shingle sets of candidates in one temporary file, and the similarity of pairs of them.

In: documents shards and the documents that share a band.
Out: the Jaccard similarity of pairs, computed by workers.
Invariants: the number of workers changes nothing. A set lies at an offset that leaves room for all its shingles, so
workers write without knowing of each other.
Cost: four bytes on disk for each character of candidates, of which a worker reads 8 MB at a time.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.progress import Progress
from corpus.pipeline.signatures import minhash
from corpus.pipeline.signatures.files import SignatureStore, range_slice, read_batches
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.files import disk_errors

_SHINGLES_AT_ONCE = 1 << 21
_PIECE_PAIRS = 1 << 15


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of sets: where each begins in the file and how large it is."""

    offsets: np.ndarray
    """[2, pairs] int64, in shingles."""
    sizes: np.ndarray
    """[2, pairs] int64."""


class ShingleFile:
    """The shingle sets of some documents."""

    def __init__(self, path: Path, store: SignatureStore, documents: np.ndarray, *, workers: int) -> None:
        self.path, self.store, self.documents, self.workers = path, store, documents, workers
        room = store.take("shingles", documents).astype(np.int64)
        self.offsets = np.cumsum(room) - room
        """[documents] int64: where each begins, in shingles."""
        self.sizes = np.zeros(len(documents), dtype=np.int64)
        """[documents] int64: size of each set, after `fill`."""

    def fill(self, progress: Progress) -> None:
        """Read the texts and write their shingle sets."""
        pieces = []
        for shard in self.store.shards:
            within = range_slice(self.documents, shard.first, shard.count)
            if within.start < within.stop:
                pieces.append((shard.path, self.documents[within] - shard.first, self.offsets[within]))
        work, filled = partial(_write_sets, file=self.path), 0
        with progress.bar("dedup: shingles of candidates", len(self.documents), "documents"):
            for sizes in run_pieces(work, pieces, workers=worker_count(self.workers, len(pieces)), here=True):
                self.sizes[filled : filled + len(sizes)] = sizes
                filled += len(sizes)
                progress.advance(len(sizes))

    def similarity(self, first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        """[pairs] float64: Jaccard similarity of documents; 0 where it is below `least`."""
        both = np.searchsorted(self.documents, [first, second])
        sizes = self.sizes[both]
        near = np.flatnonzero(sizes.min(axis=0) >= least * sizes.max(axis=0))
        near = near[np.lexsort(both[:, near][::-1])]  # in order of the first: see `minhash.jaccard`
        pieces = []
        for begin in range(0, len(near), _PIECE_PAIRS):
            pairs = near[begin : begin + _PIECE_PAIRS]
            pieces.append(_Pairs(self.offsets[both[:, pairs]], sizes[:, pairs]))
        values = np.zeros(len(first))
        work = partial(_similarity, file=self.path, least=least)
        found = run_pieces(
            work, pieces, workers=min(worker_count(self.workers, len(pieces)), max(1, len(pieces))), here=True
        )
        values[near] = np.concatenate([np.zeros(0), *found])
        return values


def _similarity(pairs: _Pairs, *, file: Path, least: float) -> np.ndarray:
    """[pairs] float64, 0 where it is below `least`; runs in a worker."""
    values = np.zeros(pairs.sizes.shape[1])
    batches = np.cumsum(pairs.sizes.sum(axis=0)) // _SHINGLES_AT_ONCE
    bounds = [*np.flatnonzero(np.diff(batches, prepend=-1)).tolist(), len(values)]
    with disk_errors(file), file.open("rb", buffering=0) as opened:
        for begin, end in itertools.pairwise(bounds):
            offsets, sizes = pairs.offsets[:, begin:end].reshape(-1), pairs.sizes[:, begin:end].reshape(-1)
            begins, which, members = np.unique(offsets, return_index=True, return_inverse=True)
            first, second = members.reshape(2, -1)
            sets = _read_sets(opened.fileno(), begins, sizes[which])
            values[begin:end] = minhash.jaccard(sets, first, second, least)
    return values


def _read_sets(file: int, begins: np.ndarray, sizes: np.ndarray) -> minhash.ShingleSets:
    """Sets, none of them empty, from where they begin in the file.

    They are read and not mapped: a mapping takes 64 KiB of memory for each set, however small.
    """
    flat = np.empty(int(sizes.sum()), dtype="<u4")
    starts = np.cumsum(sizes) - sizes
    if kernels.compiled is not None:
        kernels.compiled.gather(file, begins, sizes, len(begins), flat)
    else:
        reference_gather(file, begins, sizes, flat)
    return minhash.ShingleSets(flat, starts, sizes)


def reference_gather(file: int, begins: np.ndarray, sizes: np.ndarray, flat: np.ndarray) -> None:
    """Fill `flat` with ranges of a file, in items of four bytes; without the kernel."""
    out, filled = flat.view(np.uint8).data, 0
    for begin, size in zip((begins * flat.itemsize).tolist(), (sizes * flat.itemsize).tolist(), strict=True):
        end = filled + size
        while filled < end:
            read = os.preadv(file, [out[filled:end]], begin + size - (end - filled))
            if not read:
                raise EOFError("a range beyond the end of the file")
            filled += read


def _write_sets(piece: tuple[Path, np.ndarray, np.ndarray], *, file: Path) -> np.ndarray:
    """Write the shingle sets of some lines of a shard at their offsets; runs in a worker. Returns their sizes."""
    path, lines, offsets = piece
    sizes = [np.zeros(0, dtype=np.int64)]
    with disk_errors(file), file.open("r+b", buffering=0) as out:
        for texts, _ in read_batches(path, lines):
            sets = minhash.shingle_sets(texts, TRANSLATE)
            flat = sets.flat.astype("<u4", copy=False)  # with the room of each set
            _write_at(out.fileno(), flat, int(offsets[sum(map(len, sizes))]))
            sizes.append(sets.sizes)
    return np.concatenate(sizes)


def _write_at(file: int, flat: np.ndarray, offset: int) -> None:
    """Write shingles at an offset, in shingles."""
    left, at = flat.view(np.uint8).data, offset * flat.itemsize
    while left:  # a disk that gets full takes a part first
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
