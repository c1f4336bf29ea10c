"""Score of a text by its character n-grams, and whether a document of that score stays.

In: texts and a model: a weight for each of 2^18 buckets of hashed n-grams. Out: scores from 0 to 1, four digits.
Invariants: weights are integers and their sums exact, so a score depends on text and model alone: not on its
neighbours, the order of its n-grams, or the machine. Whether a document stays depends on its score and its id.
Method: the logistic function of the mean weight of a text's bigrams and trigrams. A document stays when a draw from the
Pareto distribution (Lomax, of shape 9) is above 1 - score (Brown et al., 2020, appendix A); the draw is the hash of
dataset and id, so a document has the same one in every run.
Cost: 100 MB of Chinese text a second on one core, in numpy.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import hashes_up_to

ORDERS = (2, 3)
"""Characters of an n-gram."""
BUCKETS = 1 << 18
UNIT = 1 << 12
"""Weights and bias are integers in units of 1 / UNIT."""
ALPHA = 9.0
"""GPT-3's shape of the Pareto distribution."""
DIGITS = 4
_SHIFT = np.uint64(64 - 18)
_BLOCK_CHARACTERS = 100_000
"""Arrays of a larger block do not stay in a cache."""
_DRAW_BITS = 53


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A trained logistic regression."""

    weights: np.ndarray
    """[BUCKETS] int32, in units of 1 / UNIT."""
    bias: int


def buckets_of(codes: np.ndarray) -> Iterator[np.ndarray]:
    """[len(codes) - order + 1] int64 for each of `ORDERS`: the bucket of each n-gram; empty for fewer codes."""
    for order, hashes in enumerate(hashes_up_to(codes, ORDERS[-1]), 1):
        if order in ORDERS:
            yield (hashes >> _SHIFT).view(np.int64)


def scores_of(texts: Sequence[str], model: Weights) -> np.ndarray:
    """[texts] float64: the scores. A text of a single character has no n-grams: the bias alone scores it."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    blocks = np.cumsum(lengths) // _BLOCK_CHARACTERS
    edges = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), len(texts)]
    bounds = itertools.pairwise(edges)
    sums = [_sums("".join(texts[begin:end]), lengths[begin:end], model.weights) for begin, end in bounds]
    total = np.concatenate([np.zeros(0, np.int64), *sums])
    counts = sum(np.maximum(lengths - order + 1, 0) for order in ORDERS)
    logits = (model.bias + total / np.maximum(counts, 1)) / UNIT
    return np.round(1 / (1 + np.exp(-np.clip(logits, -50, 50))), DIGITS)


def _sums(joined: str, lengths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[texts] int64: the sum of the weights of the n-grams of each text in joined ones."""
    codes, ends = codes_of(joined), np.cumsum(lengths)
    total = np.zeros(len(lengths), dtype=np.int64)
    for order, found in zip(ORDERS, buckets_of(codes), strict=True):
        before = np.zeros(len(found) + 1, dtype=np.int64)
        np.cumsum(weights.take(found), dtype=np.int64, out=before[1:])
        inside = np.flatnonzero(lengths >= order)  # a difference of sums leaves n-grams that cross a seam out
        total[inside] += before[ends[inside] - order + 1] - before[ends[inside] - lengths[inside]]
    return total


def keys_of(dataset: str, ids: Iterable[str]) -> np.ndarray:
    """[documents, 2] uint64: two random numbers of each document, from its dataset and id.

    The first decides whether it stays, the second whether it is in the training sample.
    """
    prefix = hashlib.blake2b(f"{dataset}:".encode(), digest_size=16)
    digests = list[bytes]()
    for each in ids:
        digest = prefix.copy()
        digest.update(each.encode("utf-8", "surrogatepass"))
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def draws_of(keys: np.ndarray) -> np.ndarray:
    """[documents] float64 in [0, 1), from the first column of `keys_of`."""
    return np.asarray((keys[:, 0] >> np.uint64(64 - _DRAW_BITS)).astype(np.float64) / 2**_DRAW_BITS)


def stay_probability(scores: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """[documents] float64: the probability that a document of this score stays, (2 - score)^-alpha.

    >>> [round(float(share), 3) for share in stay_probability(np.array([0, 0.5, 0.9, 1]))]
    [0.002, 0.026, 0.424, 1.0]
    """
    return np.asarray((2 - scores) ** -alpha)


def stays(scores: np.ndarray, draws: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """[documents] bool: `np.random.pareto(alpha) > 1 - score`, with the given draws in place of random ones."""
    return np.asarray(draws < stay_probability(scores, alpha))
