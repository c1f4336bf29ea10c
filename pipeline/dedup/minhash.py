"""Similarity of texts: signatures that find candidate pairs among millions, and the exact similarity of a pair.

In: texts.
Out: for each a digest of its folded characters, `BANDS` hashes, and the set of its shingles. A shingle is `SHINGLE`
neighbouring folded characters; similarity is Jaccard's, shared shingles over all shingles of both texts.
Invariants: a signature depends on its text alone, not on its neighbours, the run or the machine. A prefix that begins
every text of a form gives no shingles, else short texts would all be similar. A text with fewer folded characters than
a shingle has no shingles, and is similar to no other.
Method: MinHash and shingles (Broder, 1997, On the resemblance and containment of documents), banding (Indyk and
Motwani, 1998, Approximate nearest neighbors), computed by rensa's full-set R-MinHash (Dahlgaard, Knudsen and Thorup,
2017, Fast similarity sketching). Two texts of similarity s share a band with probability 1 - (1 - s^rows)^BANDS; with
the 7 rows of threshold 0.8:

    s    0.50  0.60  0.70  0.75  0.80  0.85  0.90  0.95
    P    0.15  0.43  0.82  0.94  0.99  1.00  1.00  1.00

Cost: 45 MB of long texts a second on one core, 15 MB of texts of a hundred characters.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline.text.ngrams import ngram_hashes
from corpus.pipeline.text.normalize import Folded, fold_all

SHINGLE = 5
"""Folded characters of a shingle."""
BANDS = 20
"""Hashes of a text; texts that share one are candidates."""
MIN_RECALL = 0.99
"""Minimum probability that a pair at the threshold shares a band."""
SEED = 20190219
_MOST_ROWS = 16
_TEXTS_AT_ONCE = 512
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signatures of texts, in order."""

    digests: np.ndarray
    """[texts, 2] uint64: 128 bits of BLAKE2b over the folded characters."""
    bands: np.ndarray
    """[texts, BANDS] uint32; undefined for a text without shingles."""
    folded: np.ndarray
    """[texts] uint32: number of folded characters."""
    shingles: np.ndarray
    """[texts] uint32: number of shingles, with repetitions."""


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The sets of shingles of texts, one text after another."""

    flat: np.ndarray
    """[shingles] uint32: hashes, sorted and unique within a text."""
    starts: np.ndarray
    """[texts + 1] int64: where each text begins in `flat`."""


def rows_for(threshold: float) -> int:
    """Signature rows of a band: as many as give a pair at the threshold a common band with probability `MIN_RECALL`.

    >>> rows_for(0.8)
    7
    """
    share = 1 - (1 - MIN_RECALL) ** (1 / BANDS)
    return _MOST_ROWS if threshold >= 1 else max(1, min(_MOST_ROWS, int(math.log(share) / math.log(threshold))))


def signatures_of(texts: Sequence[str], rows: int, prefix: str = "") -> Signatures:
    """Signatures of texts, with bands of `rows` rows; shingles begin after `prefix` where a text begins with it."""
    folded = fold_all(texts)
    hashes, starts = _shingles(folded, prefix)
    return Signatures(
        digests=_digests(folded),
        bands=_bands(hashes, starts, rows),
        folded=np.diff(folded.starts).astype(np.uint32),
        shingles=np.diff(starts).astype(np.uint32),
    )


def shingle_sets(texts: Sequence[str], prefix: str = "") -> ShingleSets:
    """The set of shingles of each text; shingles begin after `prefix` where a text begins with it."""
    hashes, starts = _shingles(fold_all(texts), prefix)
    owned = hashes >> np.uint64(32)
    owned |= np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(32), np.diff(starts))
    owned.sort()
    first = np.ones(len(owned), dtype=np.bool_)
    first[1:] = owned[1:] != owned[:-1]
    owned = owned[first]
    bounds = np.searchsorted(owned, np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    return ShingleSets(owned.astype(np.uint32), bounds)


def jaccard(sets: ShingleSets, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[pairs] float64: similarity of the texts `first` and `second` of `sets`; 0 where one has no shingles."""
    sizes = np.diff(sets.starts)
    members = np.stack([first, second], axis=1).reshape(-1)
    places = concat_ranges(sets.starts[members], sizes[members])
    pairs = np.repeat(np.arange(len(members), dtype=np.uint64) >> np.uint64(1), sizes[members])
    tagged = np.sort(pairs << np.uint64(32) | sets.flat[places])
    twice = tagged[1:][tagged[1:] == tagged[:-1]] >> np.uint64(32)
    shared = np.bincount(twice.astype(np.int64), minlength=len(first))
    return np.asarray(shared / np.maximum(sizes[first] + sizes[second] - shared, 1))


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


def _digests(folded: Folded) -> np.ndarray:
    codes, starts = folded.codes.astype("<u4", copy=False), folded.starts.tolist()
    texts = (codes[start:end].data for start, end in itertools.pairwise(starts))
    digests = b"".join([hashlib.blake2b(text, digest_size=16).digest() for text in texts])
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _bands(hashes: np.ndarray, starts: np.ndarray, rows: int) -> np.ndarray:
    """[texts, BANDS] uint32: one hash for each `rows` values of a text's MinHash signature."""
    import rensa  # noqa: PLC0415  # reads RAYON_NUM_THREADS once, on first use

    bands = np.zeros((len(starts) - 1, BANDS), dtype=np.uint32)
    packed = struct.Struct(f"<{BANDS * rows}I").pack
    for line in range(0, len(bands), _TEXTS_AT_ONCE):  # `to_rows` gives a Python int for each value
        bounds = starts[line : line + _TEXTS_AT_ONCE + 1]
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes[bounds[0] : bounds[-1]], (bounds - bounds[0]).astype(np.uint64), BANDS * rows, SEED
        )
        values = np.frombuffer(b"".join([packed(*row) for row in matrix.to_rows()]), dtype="<u4")
        bands[line : line + _TEXTS_AT_ONCE] = _mixed(values.reshape(-1, BANDS, rows))
    return bands


def _mixed(values: np.ndarray) -> np.ndarray:
    """From [texts, bands, rows] uint32 to [texts, bands] uint32: the upper half of a polynomial hash."""
    mixed = np.zeros(values.shape[:2], dtype=np.uint64)
    for row in range(values.shape[2]):
        mixed = (mixed ^ values[:, :, row]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed * _MIX >> np.uint64(32)).astype(np.uint32)
