"""Counting the characters of many texts at once: Han, digits, signs, blanks, runs and repeated spans.

In: strings. Out: counts for each.
Invariant: what is found for a text does not depend on the texts beside it.
Cost: one table lookup a character and a few sums; nothing is done for each text in Python but measuring its length.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline import mojibake

_OTHER, _HAN, _DIGIT, _SIGN, _BLANK, _LOST_HAN, _LOST = range(7)
SAMPLED_CHARACTERS = 192
"""From this length on repeated spans are first looked for in a sixteenth of all spans."""
_SAMPLE = 16
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77], dtype=np.uint32)
_BITS = np.zeros((2, 128), dtype=np.uint64)
_BITS[0, :64] = _BITS[1, 64:] = np.uint64(1) << np.arange(64, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of texts: every array but `lost` is [texts] int64."""

    lengths: np.ndarray
    han: np.ndarray
    digits: np.ndarray
    signs: np.ndarray
    """Punctuation and symbols."""
    visible: np.ndarray
    """All that is not blank."""
    lost: np.ndarray
    """[texts] bool: whether any character may tell of a lost encoding."""
    runs: np.ndarray
    """Characters that repeat the one before and are not blank."""


_FIRST = np.zeros(7, dtype=np.uint64)
_FIRST[[_HAN, _DIGIT, _LOST_HAN]] = (1, 1 << 32, 1)  # a record has 2**24 bytes
_SECOND = np.zeros(7, dtype=np.uint64)
_SECOND[[_SIGN, _BLANK]] = (1, 1 << 32)


def codes_of(text: str) -> np.ndarray:
    """[characters] uint32: code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@functools.cache
def _classes() -> np.ndarray:
    """[0x110000] uint8: what each character counts as."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in (
        *range(0x3400),
        *range(0x4DC0, 0x4E00),
        *range(0xA000, 0xAC00),
        *range(0xD7A4, 0xD800),
        *range(0xFB00, 0x20000),
    ):
        table[code] = _class(chr(code))
    for first, last in ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)):
        table[first : last + 1] = _HAN
    table[ord("〇")] = _HAN
    table[[ord(character) for character in f"锟拷烫屯{mojibake.strangers()}"]] = _LOST_HAN
    table[[ord(character) for character in "\ufffdïâÃ"]] = _LOST
    return table


def _class(character: str) -> int:
    if character.isspace():
        return _BLANK
    return {"N": _DIGIT, "P": _SIGN, "S": _SIGN}.get(unicodedata.category(character)[0], _OTHER)


def sums(text: str) -> tuple[int, int, int, int]:
    """Han, digits, signs and all visible characters of one text."""
    counts = np.bincount(_classes()[codes_of(text)], minlength=7).tolist()
    return counts[_HAN] + counts[_LOST_HAN], counts[_DIGIT], counts[_SIGN], len(text) - counts[_BLANK]


def runs(text: str) -> int:
    """Characters of one text that repeat the one before and are not blank."""
    codes = codes_of(text)
    return int(np.count_nonzero((codes[1:] == codes[:-1]) & (_classes()[codes[1:]] != _BLANK)))


@dataclass(frozen=True, slots=True)
class Joined:
    """Texts with a newline after each, as one array."""

    codes: np.ndarray
    """[characters] uint32."""
    starts: np.ndarray
    """[texts] int64: where each text begins."""
    lengths: np.ndarray
    """[texts] int64: characters of each, without the newline."""


def join(texts: Sequence[str]) -> Joined:
    """Texts, at least one, as one array."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate(([0], np.cumsum(lengths + 1)[:-1]))
    return Joined(codes_of("\n".join(texts) + "\n"), starts, lengths)


def count(joined: Joined) -> Counted:
    """Counts of all texts."""
    codes, starts = joined.codes, joined.starts
    classes = _classes()[codes]
    first, second = (np.add.reduceat(weights[classes], starts) for weights in (_FIRST, _SECOND))
    same = np.zeros(len(codes), dtype=np.uint8)
    same[1:] = (codes[1:] == codes[:-1]) & (classes[1:] != _BLANK)
    blanks = (second >> np.uint64(32)).astype(np.int64) - 1  # the newline after the text
    return Counted(
        lengths=joined.lengths,
        han=(first & np.uint64(0xFFFFFFFF)).astype(np.int64),
        digits=(first >> np.uint64(32)).astype(np.int64),
        signs=(second & np.uint64(0xFFFFFFFF)).astype(np.int64),
        visible=joined.lengths - blanks,
        lost=np.maximum.reduceat(classes, starts) >= _LOST_HAN,
        runs=np.add.reduceat(same, starts, dtype=np.int64),
    )


def different(joined: Joined) -> np.ndarray:
    """[texts] int64: how many different characters a text has at least, and at most 128.

    Every character sets one of 128 bits of its text; two that set the same one count once.
    """
    bits = joined.codes * _FACTORS[0] >> np.uint32(25)
    halves = (np.bitwise_or.reduceat(half[bits], joined.starts) for half in _BITS)
    return np.asarray(sum(np.bitwise_count(half).astype(np.int64) for half in halves))


def may_repeat(texts: Sequence[str], span: int, share: float) -> np.ndarray:
    """[texts] bool: which texts may have more than `share` of their spans of `span` characters repeated.

    Looks at about a sixteenth of the spans, those that begin with certain pairs of characters; meant for texts of
    SAMPLED_CHARACTERS and more.
    """
    joined = join(texts)
    codes = joined.codes
    pairs = codes[:-span] * _FACTORS[0] + codes[1 : 1 - span] * _FACTORS[1]
    sampled = np.flatnonzero(pairs < np.uint32((1 << 32) // _SAMPLE))
    owners = np.searchsorted(joined.starts, sampled, side="right") - 1
    whole = sampled + span <= (joined.starts + joined.lengths)[owners]
    sampled, owners = sampled[whole], owners[whole]
    hashes = np.zeros(len(sampled), dtype=np.uint64)
    for offset in range(span):
        hashes = hashes * _BASE + codes[sampled + offset]
    order = np.lexsort((hashes, owners))
    again = (np.diff(hashes[order]) == 0) & (np.diff(owners[order]) == 0)
    total = np.bincount(owners, minlength=len(texts))
    repeated = np.bincount(owners[order][1:][again], minlength=len(texts))
    few = total < joined.lengths / (2 * _SAMPLE)  # a repeated phrase can hide between the samples
    return np.asarray(few | (repeated > (share - 0.2) * total))
