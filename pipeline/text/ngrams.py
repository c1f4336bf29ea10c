"""Rolling hashes of all n-grams of many texts at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)


@functools.cache
def code_values() -> np.ndarray:
    """[0x110000] uint64: a fixed random number for every code point."""
    with np.errstate(over="ignore"):
        mixed = (np.arange(0x110000, dtype=np.uint64) + np.uint64(1)) * _BASE  # splitmix64 (Steele et al., 2014)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def ngram_hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """[len(codes) - n + 1] uint64: a hash of every n adjacent codes; empty for fewer codes.

    Polynomial over random values of the codes (Karp and Rabin, 1987), modulo 2**64, built by doubling. The same n-gram
    has the same hash in every run and on every machine.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, is {n}")
    if len(codes) < n:
        return np.zeros(0, dtype=np.uint64)
    power = code_values().take(codes)  # hashes of the 2**k-grams
    length, base = 1, int(_BASE)
    whole: np.ndarray | None = None
    covered = 0
    while True:
        if n & length:
            whole = power if whole is None else whole[: len(power) - covered] * np.uint64(base) + power[covered:]
            covered += length
        if covered == n:
            return np.asarray(whole[: len(codes) - n + 1]) if whole is not None else power
        power = power[: len(power) - length] * np.uint64(base) + power[length:]
        base = base * base % 2**64
        length *= 2


def hashes_up_to(codes: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """`ngram_hashes` for each n from 1 to `longest`, each from the one before."""
    values = found = code_values().take(codes)
    for order in range(1, longest + 1):
        if order > 1:
            found = found[:-1] * _BASE + values[order - 1 :]
        yield found


def inner(starts: np.ndarray, n: int, count: int) -> np.ndarray:
    """[count - n + 1] bool: which n-grams of concatenated texts lie within one text.

    Args:
        starts: [texts + 1] where each text begins, `count` at the end.
        n: codes of an n-gram.
        count: codes of all texts.

    """
    whole = np.ones(max(0, count - n + 1), dtype=np.bool_)
    for back in range(1, n):  # an n-gram that begins fewer than n before a text crosses into it
        crossing = starts[1:-1] - back
        whole[crossing[(crossing >= 0) & (crossing < len(whole))]] = False
    return whole
