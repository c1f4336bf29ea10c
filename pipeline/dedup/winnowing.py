"""Fingerprints of texts: n-grams of which every long enough run has one. Pure.

In: texts, and the characters of a run.
Out: of each text the hashes and positions of some of its n-grams, about `2 / (window + 1)` of them.
Invariants: a run of `least` characters has a fingerprint at the same place within it wherever it stands, so two texts
with a common run have a common fingerprint. A text shorter than a run has none. What is chosen within a run depends on
its characters alone.
Method: winnowing (Schleimer, Wilkerson and Aiken, 2003, Winnowing: local algorithms for document fingerprinting): of
each window of n-grams the one with the least hash, the last one of those. A window and its n-grams span a run. The
kernel `winnow` does it in one pass over a text; `reference_fingerprints` is the same in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import code_values, ngram_hashes

_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Fingerprints of texts, text by text in order of position."""

    hashes: np.ndarray
    """[fingerprints] uint64."""
    positions: np.ndarray
    """[fingerprints] uint32: where the n-gram begins in its text."""
    counts: np.ndarray
    """[texts] int64: how many each text has."""


def shape(least: int) -> tuple[int, int]:
    """Characters of an n-gram, and n-grams of a window, for runs of `least` characters; half of a run each.

    >>> shape(200)
    (100, 101)
    """
    if least < 2:
        raise ValueError(f"a run has at least two characters, not {least}")
    return least // 2, least - least // 2 + 1


def fingerprints(texts: Sequence[str], least: int) -> Fingerprints:
    """Fingerprints of texts for runs of at least `least` characters."""
    if kernels.compiled is None:
        return reference_fingerprints(texts, least)
    found = kernels.compiled.winnow(list(texts), code_values(), *shape(least))
    return Fingerprints(*map(np.frombuffer, found, (np.uint64, np.uint32, np.int64)))


def reference_fingerprints(texts: Sequence[str], least: int) -> Fingerprints:
    """The same without the kernel."""
    gram, window = shape(least)
    hashes, positions, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)], np.zeros(len(texts), np.int64)
    for number, text in enumerate(texts):
        if len(text) < least:
            continue
        own = ngram_hashes(codes_of(text), gram)
        keys = own >> _HALF << _HALF | _LOW - np.arange(len(own), dtype=np.uint64)
        places = np.unique(_LOW - (_window_minima(keys, window) & _LOW)).astype(np.uint32)
        hashes.append(own[places])
        positions.append(places)
        counts[number] = len(places)
    return Fingerprints(np.concatenate(hashes), np.concatenate(positions), counts)


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of texts, in which n-grams begin."""

    owners: np.ndarray
    """[parts] int64: the text of each."""
    begins: np.ndarray
    """[parts] int64: where the first n-gram begins in its text."""
    counts: np.ndarray
    """[parts] int64: how many n-grams begin in each, at least one."""


def gram_hashes(texts: Sequence[str], parts: Parts, gram: int) -> np.ndarray:
    """[n-grams] uint64: hashes of the n-grams of `gram` characters that begin in parts of texts, part by part."""
    if kernels.compiled is None:
        return reference_gram_hashes(texts, parts, gram)
    hashes = np.empty(int(parts.counts.sum()), dtype=np.uint64)
    given = (parts.owners, parts.begins, parts.counts)
    owners, begins, counts = (np.ascontiguousarray(column, np.int64) for column in given)
    kernels.compiled.gram_hashes(
        list(texts), code_values(), gram, owners, begins, counts, len(owners), hashes, len(hashes)
    )
    return hashes


def reference_gram_hashes(texts: Sequence[str], parts: Parts, gram: int) -> np.ndarray:
    """The same without the kernel."""
    columns = (column.tolist() for column in (parts.owners, parts.begins, parts.counts))
    pieces = [texts[owner][begin : begin + count + gram - 1] for owner, begin, count in zip(*columns, strict=True)]
    return np.concatenate([np.zeros(0, np.uint64), *(ngram_hashes(codes_of(piece), gram) for piece in pieces)])


def _window_minima(keys: np.ndarray, window: int) -> np.ndarray:
    """[len(keys) - window + 1] the least key of each window, from the minima of blocks (van Herk, 1992)."""
    blocks = np.pad(keys, (0, -len(keys) % window), constant_values=np.iinfo(np.uint64).max).reshape(-1, window)
    ahead = np.minimum.accumulate(blocks, axis=1).reshape(-1)
    behind = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    count = len(keys) - window + 1
    return np.asarray(np.minimum(behind[:count], ahead[window - 1 : window - 1 + count]))
