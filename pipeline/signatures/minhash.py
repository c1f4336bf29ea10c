"""Similarity of texts: signatures that find candidate pairs among millions, and the exact similarity of a pair.

In: texts.
Out: for each a digest of its folded characters, `BANDS` hashes, and the set of its shingles. A shingle is `SHINGLE`
neighbouring folded characters; similarity is Jaccard's, shared shingles over all shingles of both texts.
Invariants: a signature depends on its text alone, not on its neighbours, the run or the machine. A prefix that begins
every text of a form gives no shingles, else short texts would all be similar. A text with fewer folded characters than
a shingle has no shingles, and is similar to no other.
Method: MinHash and shingles (Broder, 1997, On the resemblance and containment of documents), banding (Indyk and
Motwani, 1998, Approximate nearest neighbors), signatures by fast similarity sketching (Dahlgaard, Knudsen and Thorup,
2017, algorithm 1): one hash a shingle where a text has many, about size x ln(size) hashes where it has few. Two texts
of similarity s share a band with probability 1 - (1 - s^rows)^BANDS; with the 5 rows of threshold 0.7:

    s    0.30  0.40  0.50  0.60  0.65  0.70  0.80  0.90
    P    0.05  0.19  0.47  0.80  0.92  0.97  1.00  1.00

The kernel `signatures` does this in one pass over a text; `reference_signatures` is the same in numpy.
Cost: 180 MB of long texts a second on one core, 75 MB of texts of a hundred characters; a tenth of that in numpy.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.text.ngrams import code_values, ngram_hashes
from corpus.pipeline.text.normalize import Folded, fold_all, table

SHINGLE = 5
"""Folded characters of a shingle."""
BANDS = 20
"""Hashes of a text; texts that share one are candidates."""
MIN_RECALL = 0.97
"""Minimum probability that a pair at the threshold shares a band."""
SEED = 20190219
_MOST_ROWS = 16
_CODE_BYTES = 4
_BASE = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_EMPTY, _LOW, _HALF = np.uint64(2**64 - 1), np.uint64(2**32 - 1), np.uint64(32)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signatures of texts, in order."""

    digests: np.ndarray
    """[texts, 2] uint64: 128 bits of BLAKE2b over the folded characters."""
    bands: np.ndarray
    """[texts, BANDS] uint64; 0 for a text without shingles."""
    folded: np.ndarray
    """[texts] uint32: number of folded characters."""
    shingles: np.ndarray
    """[texts] uint32: number of shingles, with repetitions."""


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The sets of shingles of texts, one text after another."""

    flat: np.ndarray
    """[shingles] uint32: hashes, sorted and unique within a text; zeros for those that a text has more than once."""
    starts: np.ndarray
    """[texts] int64: where each text begins in `flat`."""
    sizes: np.ndarray
    """[texts] int64: size of each set."""


def rows_for(threshold: float) -> int:
    """Signature rows of a band: as many as give a pair at the threshold a common band with probability `MIN_RECALL`.

    >>> rows_for(0.7)
    5
    """
    share = 1 - (1 - MIN_RECALL) ** (1 / BANDS)
    return _MOST_ROWS if threshold >= 1 else max(1, min(_MOST_ROWS, int(math.log(share) / math.log(threshold))))


def signatures_of(texts: Sequence[str], rows: int, prefix: str = "") -> Signatures:
    """Signatures of texts, with bands of `rows` rows; shingles begin after `prefix` where a text begins with it."""
    if kernels.compiled is None:
        return reference_signatures(texts, rows, prefix)
    bands = np.zeros((len(texts), BANDS), dtype=np.uint64)
    codes, ends, shingles = kernels.compiled.signatures(
        list(texts), table(), code_values(), fold_all([prefix]).codes, SHINGLE, BANDS, rows, SEED, bands
    )
    starts = np.concatenate((np.zeros(1, np.int64), np.frombuffer(ends, np.int64)))
    return Signatures(
        digests=_digests(memoryview(codes), starts),
        bands=bands,
        folded=np.diff(starts).astype(np.uint32),
        shingles=np.frombuffer(shingles, np.int64).astype(np.uint32),
    )


def reference_signatures(texts: Sequence[str], rows: int, prefix: str = "") -> Signatures:
    """The same without the kernel."""
    folded = fold_all(texts)
    hashes, starts = _shingles(folded, prefix)
    return Signatures(
        digests=_digests(memoryview(folded.codes.astype("<u4", copy=False).tobytes()), folded.starts),
        bands=_bands(hashes, starts, rows),
        folded=np.diff(folded.starts).astype(np.uint32),
        shingles=np.diff(starts).astype(np.uint32),
    )


def shingle_sets(texts: Sequence[str], prefix: str = "") -> ShingleSets:
    """The set of shingles of each text; shingles begin after `prefix` where a text begins with it."""
    if kernels.compiled is None:
        return reference_shingle_sets(texts, prefix)
    flat, starts, sizes = kernels.compiled.shingle_sets(
        list(texts), table(), code_values(), fold_all([prefix]).codes, SHINGLE
    )
    return ShingleSets(*map(np.frombuffer, (flat, starts, sizes), (np.uint32, np.int64, np.int64)))


def reference_shingle_sets(texts: Sequence[str], prefix: str = "") -> ShingleSets:
    """The same without the kernel."""
    hashes, starts = _shingles(fold_all(texts), prefix)
    owned = hashes >> np.uint64(32)
    owned |= np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(32), np.diff(starts))
    owned.sort()
    first = np.ones(len(owned), dtype=np.bool_)
    first[1:] = owned[1:] != owned[:-1]
    sizes = np.bincount(np.repeat(np.arange(len(texts)), np.diff(starts))[first], minlength=len(texts))
    flat = np.zeros(len(owned), dtype=np.uint32)
    flat[concat_ranges(starts[:-1], sizes)] = owned[first].astype(np.uint32)
    return ShingleSets(flat, starts[:-1], sizes)


def jaccard(sets: ShingleSets, first: np.ndarray, second: np.ndarray, least: float = 0.0) -> np.ndarray:
    """[pairs] float64: similarity of the texts `first` and `second` of `sets`; 0 where it is below `least`, or one has
    no shingles. It is fast where pairs with the same first text are in turn.
    """
    shared = overlaps(sets, first, second, least)
    values = np.asarray(shared / np.maximum(sets.sizes[first] + sets.sizes[second] - shared, 1))
    values[values < least] = 0
    return values


def overlaps(sets: ShingleSets, first: np.ndarray, second: np.ndarray, least: float = 0.0) -> np.ndarray:
    """[pairs] int64: how many shingles the texts `first` and `second` share; for a similarity below `least` it may be
    0 instead.
    """
    if kernels.compiled is None:
        return reference_overlaps(sets, first, second)
    shared = np.zeros(len(first), dtype=np.int64)
    parts = (sets.starts, sets.sizes, first, second)
    starts, sizes, one, other = (np.ascontiguousarray(part, dtype=np.int64) for part in parts)
    kernels.compiled.overlaps(sets.flat, starts, sizes, len(starts), one, other, len(shared), least, shared)
    return shared


def reference_overlaps(sets: ShingleSets, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The same without the kernel, for each pair."""
    sizes = sets.sizes
    members = np.stack([first, second], axis=1).reshape(-1)
    places = concat_ranges(sets.starts[members], sizes[members])
    pairs = np.repeat(np.arange(len(members), dtype=np.uint64) >> np.uint64(1), sizes[members])
    tagged = np.sort(pairs << np.uint64(32) | sets.flat[places])
    twice = tagged[1:][tagged[1:] == tagged[:-1]] >> np.uint64(32)
    return np.bincount(twice.astype(np.int64), minlength=len(first))


def concat_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[sum of counts] int64: `start, start + 1, ...`, `count` numbers for each start.

    >>> concat_ranges(np.array([7, 1]), np.array([2, 3])).tolist()
    [7, 8, 1, 2, 3]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _shingles(folded: Folded, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """[shingles] uint64 hashes of all texts, and [texts + 1] int64 where each text begins."""
    codes = fold_all([prefix]).codes
    begins, lengths = folded.starts[:-1], np.diff(folded.starts)
    framed = np.flatnonzero(lengths >= len(codes))
    heads = folded.codes[begins[framed, None] + np.arange(len(codes))]
    skipped = np.zeros_like(lengths)
    skipped[framed[(heads == codes).all(axis=1)]] = len(codes)
    counts = np.maximum(lengths - skipped - SHINGLE + 1, 0)
    hashes = ngram_hashes(folded.codes, SHINGLE)[concat_ranges(begins + skipped, counts)]
    return hashes, np.concatenate(([0], np.cumsum(counts)))


def _digests(codes: memoryview, starts: np.ndarray) -> np.ndarray:
    """[texts, 2] uint64 from the bytes of all codes, four each."""
    bounds = itertools.pairwise((starts * _CODE_BYTES).tolist())
    digests = b"".join([hashlib.blake2b(codes[begin:end], digest_size=16).digest() for begin, end in bounds])
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _bands(hashes: np.ndarray, starts: np.ndarray, rows: int) -> np.ndarray:
    """[texts, BANDS] uint64: one hash for each `rows` values of a text's sketch; 0 without shingles."""
    counts = np.diff(starts)
    values = sketches(hashes, counts, BANDS * rows).reshape(-1, BANDS, rows)
    mixed = np.zeros(values.shape[:2], dtype=np.uint64)
    for row in range(rows):
        mixed = _mix((mixed ^ values[:, :, row]) * _BASE)
    mixed[counts == 0] = 0
    return mixed


def sketches(hashes: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """[texts, size] uint64: the least value of each slot, with its round in the upper half."""
    slots = np.full((len(counts), size), _EMPTY)
    owners = np.repeat(np.arange(len(counts)), counts)
    for round_ in range(2 * size):
        left = np.flatnonzero((slots == _EMPTY).any(axis=1)[owners])
        if not len(left):
            break
        mixed = _mix(hashes[left] ^ _mix(np.uint64((SEED + round_ * int(_BASE)) % 2**64)))
        slot = ((mixed >> _HALF) * np.uint64(size) >> _HALF).astype(np.int64)
        places = owners[left], slot if round_ < size else np.full(len(left), round_ - size)
        np.minimum.at(slots, places, mixed & _LOW | np.uint64(round_ << 32))
    return slots


def _mix(bits: np.ndarray | np.uint64) -> Any:
    """The finalizer of MurmurHash3 (Appleby, 2011)."""
    with np.errstate(over="ignore"):
        for factor in _FACTORS:
            bits = (bits ^ bits >> np.uint64(33)) * factor
    return bits ^ bits >> np.uint64(33)
