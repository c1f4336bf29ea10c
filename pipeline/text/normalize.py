"""Folding: what is left of a text when script, width, case, punctuation and blanks no longer count.

In: strings. Out: arrays of folded code points with where each came from, and hashes of their n-grams.
Invariants: a Traditional and a Simplified spelling, full and half width, and any punctuation or spacing of the same
characters fold to the same codes; folding looks at one character at a time, so a part of a text folds to the part of
its folding.
Cost: one table lookup a character; a hash of an n-gram takes about two multiplications per doubling of n.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)
_UNSEEN = frozenset("PZC")  # punctuation, separators and controls do not count
_ORNAMENTS = frozenset("~`^¨¯´¸|")
_AS_THEY_ARE = ((0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x2F7FF), (0x2FA20, 0x3FFFF))
"""Han and Hangul, which neither width nor case changes."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Texts folded together, one after another."""

    codes: np.ndarray
    """[characters] uint32: folded code points."""
    positions: np.ndarray
    """[characters] int64: where each stands in its own text."""
    starts: np.ndarray
    """[texts + 1] int64: where each text begins in `codes`."""

    def owners(self) -> np.ndarray:
        """[characters] int64: which text each code belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def codes_of(text: str) -> np.ndarray:
    """[characters] uint32: code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@functools.cache
def table() -> np.ndarray:
    """[0x110000] uint32: the folded code of every character, 0 for what does not count; read-only."""
    import opencc  # noqa: PLC0415  # loads its dictionaries; only those who fold pay

    folded = np.zeros(0x110000, dtype=np.uint32)
    for first, last in _AS_THEY_ARE:
        folded[first : last + 1] = np.arange(first, last + 1)
    for code in (
        *range(0x3400),
        *range(0xA000, 0xAC00),
        *range(0xD7A4, 0xD800),
        *range(0xF900, 0x20000),
        *range(0x2F800, 0x2FA20),
    ):
        folded[code] = ord(_plain(chr(code)) or "\0")
    written = sorted({*folded[folded >= 0x2E80].tolist()})  # OpenCC knows no others
    simplified = opencc.OpenCC("t2s").convert("\n".join(map(chr, written))).split("\n")
    simple = np.arange(0x110000, dtype=np.uint32)
    simple[written] = [ord(character[0]) for character in simplified]
    folded = simple[folded]
    folded.flags.writeable = False
    return folded


def _plain(character: str) -> str:
    """The one character that stands for it whatever its width and case, or nothing."""
    for part in unicodedata.normalize("NFKC", character).casefold():
        if unicodedata.category(part)[0] not in _UNSEEN and part not in _ORNAMENTS:
            return part
    return ""


def fold(text: str) -> str:
    """A text folded.

    >>> fold("臺灣，２０１９ 年！")
    '台湾2019年'
    """
    return fold_all([text]).codes.astype("<u4").tobytes().decode("utf-32-le")


def fold_all(texts: Sequence[str]) -> Folded:
    """Many texts folded at once."""
    codes = table()[codes_of("".join(texts))]
    kept = np.flatnonzero(codes)
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=bounds[1:])
    starts = np.searchsorted(kept, bounds)
    positions = kept - np.repeat(bounds[:-1], np.diff(starts))
    return Folded(codes[kept], positions, starts)


@functools.cache
def _values() -> np.ndarray:
    """[0x110000] uint64: a fixed random number for every code."""
    with np.errstate(over="ignore"):
        mixed = (np.arange(0x110000, dtype=np.uint64) + np.uint64(1)) * _BASE  # splitmix64 (Steele et al., 2014)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def ngram_hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """[len(codes) - n + 1] uint64: a hash of every n neighbours, none when there are fewer.

    Polynomial over random values of the codes (Karp and Rabin, 1987), modulo 2**64, built by doubling. The same n-gram
    has the same hash in every run and on every machine.
    """
    return rolling(_values().take(codes), n)


def rolling(values: np.ndarray, n: int) -> np.ndarray:
    """[len(values) - n + 1] uint64: the polynomial hash of every n neighbours among values of 64 bits."""
    if n < 1:
        raise ValueError(f"n must be at least 1, is {n}")
    if len(values) < n:
        return np.zeros(0, dtype=np.uint64)
    power = values  # hashes of the 2**k-grams
    length, base = 1, int(_BASE)
    whole: np.ndarray | None = None
    covered = 0
    while True:
        if n & length:
            whole = power if whole is None else whole[: len(power) - covered] * np.uint64(base) + power[covered:]
            covered += length
        if covered == n:
            return np.asarray(whole[: len(values) - n + 1]) if whole is not None else power
        power = power[: len(power) - length] * np.uint64(base) + power[length:]
        base = base * base % 2**64
        length *= 2


def inner(starts: np.ndarray, n: int, count: int) -> np.ndarray:
    """[count - n + 1] bool: which n-grams of texts that stand one after another lie within one text.

    Args:
        starts: [texts + 1] where each text begins, `count` at the end.
        n: neighbours of an n-gram.
        count: codes in all.

    """
    whole = np.ones(max(0, count - n + 1), dtype=np.bool_)
    for back in range(1, n):  # an n-gram that begins fewer than n before a seam crosses it
        crossing = starts[1:-1] - back
        whole[crossing[(crossing >= 0) & (crossing < len(whole))]] = False
    return whole
