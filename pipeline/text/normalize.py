"""Folding: normalizes script, width and case, and removes punctuation and blanks.

In: strings. Out: arrays of folded code points with their positions in the texts.
Invariants: Traditional and Simplified, full and half width, and any punctuation or spacing of the same characters fold
to the same codes; folding maps one character at a time, so a part of a text folds to a part of its folding.
Cost: one table lookup a character.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline.text.codepoints import codes_of, text_of

_REMOVED = frozenset("PZC")  # categories: punctuation, separators, controls
_ORNAMENTS = frozenset("~`^¨¯´¸|")
_UNCHANGED = ((0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x2F7FF), (0x2FA20, 0x3FFFF))
"""Han and Hangul, which have neither width nor case."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Folded texts, concatenated."""

    codes: np.ndarray
    """[characters] uint32: folded code points."""
    positions: np.ndarray
    """[characters] int64: position of each in its own text."""
    starts: np.ndarray
    """[texts + 1] int64: begin of each text in `codes`, and the end of the last."""

    def owners(self) -> np.ndarray:
        """[characters] int64: which text each code belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@functools.cache
def table() -> np.ndarray:
    """[0x110000] uint32: the folded code of every character, 0 for removed ones; read-only."""
    import opencc  # noqa: PLC0415  # slow: it loads its dictionaries

    folded = np.zeros(0x110000, dtype=np.uint32)
    for first, last in _UNCHANGED:
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
    """The character without width and case, or nothing if it is removed."""
    for part in unicodedata.normalize("NFKC", character).casefold():
        if unicodedata.category(part)[0] not in _REMOVED and part not in _ORNAMENTS:
            return part
    return ""


def fold(text: str) -> str:
    """Fold a text.

    >>> fold("臺灣，２０１９ 年！")
    '台湾2019年'
    """
    return text_of(fold_all([text]).codes)


def fold_all(texts: Sequence[str]) -> Folded:
    """Fold many texts at once."""
    codes = table()[codes_of("".join(texts))]
    kept = np.flatnonzero(codes)
    bounds = np.cumsum([0, *map(len, texts)])
    starts = np.searchsorted(kept, bounds)
    positions = kept - np.repeat(bounds[:-1], np.diff(starts))
    return Folded(codes[kept], positions, starts)
