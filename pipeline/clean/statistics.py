"""Counting the characters of many texts at once: Han, digits, signs, blanks, runs and repeated spans.

In: strings. Out: counts for each.
Invariant: what is found for a text does not depend on the texts beside it.
Cost: one look at every character by a kernel, or one table lookup and a few sums by numpy; nothing is done for each
text in Python but measuring its length.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean import mojibake
from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import ngram_hashes

_OTHER, _HAN, _DIGIT, _SIGN, _BLANK, _LOST_HAN, _LOST = range(7)
SAMPLED_CHARACTERS = 192
"""From this length on repeated spans are first looked for in a sixteenth of all spans."""
_SAMPLE = 16
_SAMPLED_BELOW = (1 << 32) // _SAMPLE  # hashes of the pair that a span begins with
_COLUMNS = 10
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77], dtype=np.uint32)
_BITS = np.zeros((2, 128), dtype=np.uint64)
_BITS[0, :64] = _BITS[1, 64:] = np.uint64(1) << np.arange(64, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_HASH = 40  # bits of a hash beside its owner
_NEWLINE = ord("\n")
_MANY_LINES = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What a survey looks for beside its counts."""

    span: int
    """Characters of a span."""
    spans_share: float
    """Share of the spans of a text from which on they may be too many that stood before."""
    fewest_lines: int
    """Lines from which on a text's lines are compared."""
    lines_share: float
    """Share of the characters of a text from which on those in lines that stood before may be too many."""
    beginnings: np.ndarray
    """[65536] bool: whether a phrase begins with two neighbours, by the upper half of their `pair_hashes`."""
    longest: int
    """Characters of a text up to which phrases are looked for."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in texts: every array is [texts], of int64 or, what `may` be, of bool."""

    lengths: np.ndarray
    han: np.ndarray
    signs: np.ndarray
    """Digits, punctuation and symbols."""
    visible: np.ndarray
    """All that is not blank."""
    may_be_lost: np.ndarray
    """Whether any character may tell of a lost encoding."""
    runs: np.ndarray
    """Characters that repeat the one before and are not blank."""
    begun: np.ndarray
    """Places where a phrase may begin; 0 for texts that are longer than was asked for."""
    may_repeat_spans: np.ndarray
    """Whether more than their share of spans may have stood before; sampled from SAMPLED_CHARACTERS on."""
    may_repeat_lines: np.ndarray
    """Whether lines that stood before may hold more than their share of characters; lines of one length with the same
    characters at four places count as one.
    """


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


def survey(texts: Sequence[str], asked: Asked) -> Survey:
    """Look at every character of texts, at least one."""
    columns, keys, line_keys, widths = (_by_kernel if kernels.compiled else _by_numpy)(texts, asked)
    lengths, han, signs, blanks, lost, runs, lines, begun, different, sampled = columns.T
    again = np.bincount(_again(np.sort(keys)) >> _HASH, minlength=len(texts))
    few = sampled < lengths / (2 * _SAMPLE)  # a repeated phrase can hide between the samples
    order = np.argsort(line_keys)
    in_order = line_keys[order]
    same = order[1:][in_order[1:] == in_order[:-1]]  # but the first of each
    in_lines = np.bincount(line_keys[same] >> _HASH, weights=widths[same], minlength=len(texts))
    return Survey(
        lengths=lengths,
        han=han,
        signs=signs,
        visible=lengths - blanks,
        may_be_lost=lost > 0,
        runs=runs,
        begun=begun,
        may_repeat_spans=np.where(
            lengths >= SAMPLED_CHARACTERS,
            few | (again > (asked.spans_share - 0.2) * sampled),
            different <= (1 - asked.spans_share) * lengths + asked.span,
        ),
        may_repeat_lines=(in_lines > asked.lines_share * (lengths - lines + 1))
        | ((lines >= asked.fewest_lines) & (lines > _MANY_LINES)),
    )


def sums(text: str) -> tuple[int, int, int, int]:
    """Han, digits, signs and all visible characters of one text."""
    counts = np.bincount(_classes()[codes_of(text)], minlength=7).tolist()
    return counts[_HAN] + counts[_LOST_HAN], counts[_DIGIT], counts[_SIGN], len(text) - counts[_BLANK]


def runs(text: str) -> int:
    """Characters of one text that repeat the one before and are not blank."""
    codes = codes_of(text)
    return int(np.count_nonzero((codes[1:] == codes[:-1]) & (_classes()[codes[1:]] != _BLANK)))


def _by_kernel(texts: Sequence[str], asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `_by_numpy`."""
    columns = np.empty((len(texts), _COLUMNS), dtype=np.int64)
    found = kernels.compiled.count(
        list(texts),
        _classes(),
        asked.beginnings,
        columns,
        asked.longest,
        asked.span,
        SAMPLED_CHARACTERS,
        _SAMPLED_BELOW,
        asked.fewest_lines,
        _MANY_LINES,
    )
    keys, line_keys, widths = (np.frombuffer(numbers, dtype=np.int64) for numbers in found)
    return columns, keys, line_keys, widths


def _by_numpy(texts: Sequence[str], asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a survey is made of.

    Returns:
        [texts, columns] the counts of each text, in the order in which `survey` takes them; a key for each span looked
        at, which two have in common when they are the same in one text; the same for lines; [lines] characters of
        each of these.

    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate(([0], np.cumsum(lengths + 1)[:-1]))
    codes = codes_of("\n".join([*texts, ""]))

    def texts_of(places: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(starts, places, side="right") - 1)

    def in_texts(places: np.ndarray) -> np.ndarray:
        return np.bincount(texts_of(places), minlength=len(texts))

    parts = starts if lengths.max() < _PART else np.union1d(starts, np.arange(0, len(codes), _PART))
    sums = np.add.reduceat(_fields().take(codes), parts)
    firsts = np.searchsorted(parts, starts)
    han, signs, blanks, lost = (
        np.add.reduceat(sums >> np.uint64(field * _FIELD) & np.uint64((1 << _FIELD) - 1), firsts).astype(np.int64)
        for field in range(4)
    )
    same = np.flatnonzero(codes[1:] == codes[:-1]) + 1
    same = same[_classes()[codes[same]] != _BLANK]
    pairs = pair_hashes(codes)
    begun = np.flatnonzero(asked.beginnings.take(pairs >> np.uint32(16)))
    is_long = lengths >= SAMPLED_CHARACTERS
    sampled = np.flatnonzero(pairs[: max(0, len(codes) - asked.span)] < _SAMPLED_BELOW)
    owners = texts_of(sampled)
    whole = is_long[owners] & (sampled + asked.span <= (starts + lengths)[owners])
    sampled, owners = sampled[whole], owners[whole]
    hashes = np.zeros(len(sampled), dtype=np.uint64)
    for offset in range(asked.span):
        hashes = (hashes + codes[sampled + offset]) * _BASE
    ends = np.flatnonzero(codes == _NEWLINE)
    lines = np.searchsorted(ends, starts + lengths, side="right") - np.searchsorted(ends, starts)
    of_many = np.repeat((lines >= asked.fewest_lines) & (lines <= _MANY_LINES), lines)
    line_starts, ends = np.concatenate(([0], ends[:-1] + 1))[of_many], ends[of_many]
    widths = ends - line_starts
    line_hashes = widths.astype(np.uint64)
    for place in (line_starts, line_starts + widths // 3, line_starts + 2 * widths // 3, ends - (widths > 0)):
        line_hashes = (line_hashes + codes[place]) * _BASE
    columns = (
        lengths,
        han,
        signs,
        blanks - 1,  # without the newline after the text
        lost,
        in_texts(same),
        lines,
        np.where(lengths <= asked.longest, in_texts(begun[begun + 1 < (starts + lengths)[texts_of(begun)]]), 0),
        np.where(is_long, 0, _different(codes, starts)),
        np.bincount(owners, minlength=len(texts)),
    )
    return np.column_stack(columns), _keys(hashes, owners), _keys(line_hashes, texts_of(line_starts)), widths


def _different(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[texts] int64: how many different characters a text and the newline after it have at least, and at most 128.

    Every character sets one of 128 bits of its text; two that set the same one count once.
    """
    bits = codes * _FACTORS[0] >> np.uint32(25)
    halves = (np.bitwise_or.reduceat(half[bits], starts) for half in _BITS)
    return np.asarray(sum(np.bitwise_count(half).astype(np.int64) for half in halves))


def _again(keys: np.ndarray) -> np.ndarray:
    """Of keys in order those that are the same as the one before."""
    return np.asarray(keys[1:][keys[1:] == keys[:-1]])


def count_repeated_spans(text: str, span: int) -> int:
    """At least as many spans as stand in a text again: those of the same hash count as one."""
    hashes = np.sort(ngram_hashes(codes_of(text), span))
    return len(_again(hashes))


def _keys(hashes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """[hashes] int64: the owner above the high bits of a hash; equal for what may be equal in one text."""
    keys: np.ndarray = owners << _HASH | (hashes >> np.uint64(64 - _HASH)).astype(np.int64)
    return keys
