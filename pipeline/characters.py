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
from corpus.pipeline.fold import codes_of, ngram_hashes

_OTHER, _HAN, _DIGIT, _SIGN, _BLANK, _LOST_HAN, _LOST = range(7)
SAMPLED_CHARACTERS = 192
"""From this length on repeated spans are first looked for in a sixteenth of all spans."""
_SAMPLE = 16
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77], dtype=np.uint32)
_BITS = np.zeros((2, 128), dtype=np.uint64)
_BITS[0, :64] = _BITS[1, 64:] = np.uint64(1) << np.arange(64, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_HASH = np.uint64(40)  # bits of a hash beside its owner
_NEWLINE = ord("\n")
_MANY_LINES = 1 << 20


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of texts: every array but `lost` is [texts] int64."""

    han: np.ndarray
    signs: np.ndarray
    """Digits, punctuation and symbols."""
    visible: np.ndarray
    """All that is not blank."""
    lost: np.ndarray
    """[texts] bool: whether any character may tell of a lost encoding."""
    runs: np.ndarray
    """Characters that repeat the one before and are not blank."""


_FIELD = 16  # bits; four counts share a 64-bit sum
_PART = 1 << (_FIELD - 1)  # characters; no count of so many overflows into the next
_HANS, _SIGNS, _BLANKS, _LOSTS = (1 << field * _FIELD for field in range(4))


def pair_hashes(codes: np.ndarray) -> np.ndarray:
    """[characters - 1] uint32: a hash of every character and its neighbour."""
    hashes: np.ndarray = codes[:-1] * _FACTORS[0] + codes[1:] * _FACTORS[1]
    return hashes


@functools.cache
def _classes() -> np.ndarray:
    """[0x110000] uint8: what each character counts as."""
    table = np.zeros(0x110000, dtype=np.uint8)
    codes = [
        *range(0x3400),
        *range(0x4DC0, 0x4E00),
        *range(0xA000, 0xAC00),
        *range(0xD7A4, 0xD800),
        *range(0xFB00, 0x20000),
    ]
    classes = {"N": _DIGIT, "P": _SIGN, "S": _SIGN}
    table[codes] = [classes.get(category[0], _OTHER) for category in map(unicodedata.category, map(chr, codes))]
    table[[code for code in codes if chr(code).isspace()]] = _BLANK
    for first, last in ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)):
        table[first : last + 1] = _HAN
    table[ord("〇")] = _HAN
    table[[ord(character) for character in f"锟拷烫屯{mojibake.strangers()}"]] = _LOST_HAN
    table[[ord(character) for character in "\ufffdïâÃ"]] = _LOST
    return table


@functools.cache
def _fields() -> np.ndarray:
    """[0x110000] uint64: what each character adds to the four counts that share a sum."""
    fields = np.zeros(7, dtype=np.uint64)
    fields[[_HAN, _DIGIT, _SIGN, _BLANK, _LOST_HAN, _LOST]] = (_HANS, _SIGNS, _SIGNS, _BLANKS, _HANS | _LOSTS, _LOSTS)
    table: np.ndarray = fields[_classes()]
    return table


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

    def owners(self, places: np.ndarray) -> np.ndarray:
        """[places] int64: which text each place in `codes` belongs to."""
        return np.asarray(np.searchsorted(self.starts, places, side="right") - 1)


def join(texts: Sequence[str]) -> Joined:
    """Texts, at least one, as one array."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate(([0], np.cumsum(lengths + 1)[:-1]))
    return Joined(codes_of("\n".join([*texts, ""])), starts, lengths)


def count(joined: Joined) -> Counted:
    """Counts of all texts."""
    codes, starts = joined.codes, joined.starts
    parts = starts if joined.lengths.max() < _PART else np.union1d(starts, np.arange(0, len(codes), _PART))
    sums = np.add.reduceat(_fields().take(codes), parts)
    firsts = np.searchsorted(parts, starts)
    han, signs, blanks, lost = (
        np.add.reduceat(sums >> np.uint64(field * _FIELD) & np.uint64((1 << _FIELD) - 1), firsts).astype(np.int64)
        for field in range(4)
    )
    same = np.flatnonzero(codes[1:] == codes[:-1]) + 1
    same = same[_classes()[codes[same]] != _BLANK]
    return Counted(
        han=han,
        signs=signs,
        visible=joined.lengths - blanks + 1,  # without the newline after the text
        lost=lost > 0,
        runs=np.bincount(joined.owners(same), minlength=len(starts)),
    )


def different(joined: Joined) -> np.ndarray:
    """[texts] int64: how many different characters a text has at least, and at most 128.

    Every character sets one of 128 bits of its text; two that set the same one count once.
    """
    bits = joined.codes * _FACTORS[0] >> np.uint32(25)
    halves = (np.bitwise_or.reduceat(half[bits], joined.starts) for half in _BITS)
    return np.asarray(sum(np.bitwise_count(half).astype(np.int64) for half in halves))


def may_repeat(joined: Joined, span: int, share: float) -> np.ndarray:
    """[texts] bool: which texts may have more than `share` of their spans of `span` characters repeated.

    Looks at about a sixteenth of the spans, those that begin with certain pairs of characters; meant for texts of
    SAMPLED_CHARACTERS and more.
    """
    codes = joined.codes
    sampled = np.flatnonzero(pair_hashes(codes)[: len(codes) - span] < np.uint32((1 << 32) // _SAMPLE))
    owners = joined.owners(sampled)
    whole = sampled + span <= (joined.starts + joined.lengths)[owners]
    sampled, owners = sampled[whole], owners[whole]
    hashes = np.zeros(len(sampled), dtype=np.uint64)
    for offset in range(span):
        hashes = (hashes + codes[sampled + offset]) * _BASE
    keys = np.sort(_keys(hashes, owners))
    again = keys[1:][keys[1:] == keys[:-1]] >> _HASH
    total = np.bincount(owners, minlength=len(joined.lengths))
    repeated = np.bincount(again.astype(np.int64), minlength=len(joined.lengths))
    few = total < joined.lengths / (2 * _SAMPLE)  # a repeated phrase can hide between the samples
    return np.asarray(few | (repeated > (share - 0.2) * total))


def count_repeated_spans(text: str, span: int) -> int:
    """At least as many spans as stand in a text again: those of the same hash count as one."""
    hashes = np.sort(ngram_hashes(codes_of(text), span))
    return int(np.count_nonzero(hashes[1:] == hashes[:-1]))


def may_repeat_lines(joined: Joined, fewest: int, share: float) -> np.ndarray:
    """[texts] bool: which texts of `fewest` lines or more may have over `share` of their characters in repeated ones.

    Lines of one length with the same characters at four places count as one.
    """
    codes, texts = joined.codes, len(joined.lengths)
    ends = np.flatnonzero(codes == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths, owners = ends - starts, joined.owners(starts)
    lines = np.bincount(owners, minlength=texts)
    if len(ends) > _MANY_LINES:  # a record of nothing else; ten numbers a line would be too many
        return np.asarray(lines >= fewest)
    of_many = (lines >= fewest)[owners]
    starts, ends, lengths, owners = starts[of_many], ends[of_many], lengths[of_many], owners[of_many]
    hashes = lengths.astype(np.uint64)
    for place in (starts, starts + lengths // 3, starts + 2 * lengths // 3, ends - (lengths > 0)):
        hashes = (hashes + codes[place]) * _BASE
    keys = _keys(hashes, owners)
    order = np.argsort(keys)
    again = order[1:][np.diff(keys[order]) == 0]
    repeated = np.bincount(owners[again], weights=lengths[again], minlength=texts)
    return np.asarray(repeated > share * (joined.lengths - lines + 1))


def _keys(hashes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """[hashes] uint64: the owner above the high bits of a hash; equal for what may be equal in one text."""
    keys: np.ndarray = owners.astype(np.uint64) << _HASH | hashes >> (np.uint64(64) - _HASH)
    return keys
