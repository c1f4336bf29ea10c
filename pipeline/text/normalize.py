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

from corpus.pipeline.text.codepoints import codes_of, text_of

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
    return text_of(fold_all([text]).codes)


def fold_all(texts: Sequence[str]) -> Folded:
    """Many texts folded at once."""
    codes = table()[codes_of("".join(texts))]
    kept = np.flatnonzero(codes)
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=bounds[1:])
    starts = np.searchsorted(kept, bounds)
    positions = kept - np.repeat(bounds[:-1], np.diff(starts))
    return Folded(codes[kept], positions, starts)
