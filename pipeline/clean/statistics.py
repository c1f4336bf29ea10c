"""Counting the characters of many texts at once: Han, digits, signs, blanks, runs and repeated spans.

In: strings. Out: counts for each.
Invariant: the counts of a text do not depend on its neighbours.
Cost: one pass over the characters by a kernel, or one table lookup and a few sums a character by numpy; Python only
measures the length of each text.
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
"""From this length on repeated spans are first searched in a sixteenth of all spans."""
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
class SurveySettings:
    """What a survey counts besides characters."""

    span: int
    """Characters of a span."""
    spans_share: float
    """Share of a text's spans above which those that occurred before may be too many."""
    fewest_lines: int
    """Fewest lines of a text whose lines are compared."""
    lines_share: float
    """Share of a text's characters above which those in lines that occurred before may be too many."""
    beginnings: np.ndarray
    """[65536] bool: whether a phrase begins with two neighbours, by the upper half of their `pair_hashes`."""
    longest: int
    """Characters of the longest text in which phrases are searched."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Counts of texts. Every array is [texts], int64; those named `may_` are bool."""

    lengths: np.ndarray
    han: np.ndarray
    signs: np.ndarray
    """Digits, punctuation and symbols."""
    visible: np.ndarray
    """Non-blank characters."""
    may_be_lost: np.ndarray
    """Whether any character is one that a lost encoding leaves."""
    runs: np.ndarray
    """Non-blank characters that repeat the one before."""
    phrase_starts: np.ndarray
    """Places where a phrase may begin; 0 for texts longer than `SurveySettings.longest`."""
    may_repeat_spans: np.ndarray
    """Whether more than `spans_share` of the spans may have occurred before; sampled from SAMPLED_CHARACTERS on."""
    may_repeat_lines: np.ndarray
    """Whether lines that occurred before may hold more than `lines_share` of the characters; lines of one length with
    the same characters at four places count as equal.
    """


_FIELD = 16  # bits; four counts share a 64-bit sum
_PART = 1 << (_FIELD - 1)  # characters; no count of so many overflows into the next
_HANS, _SIGNS, _BLANKS, _LOSTS = (1 << field * _FIELD for field in range(4))


def pair_hashes(codes: np.ndarray) -> np.ndarray:
    """[characters - 1] uint32: a hash of every character and its neighbour."""
    return np.asarray(codes[:-1] * _FACTORS[0] + codes[1:] * _FACTORS[1])


@functools.cache
def _classes() -> np.ndarray:
    """[0x110000] uint8: the class of each character."""
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
    table[[ord(character) for character in f"锟拷烫屯{mojibake.mojibake_han()}"]] = _LOST_HAN
    table[[ord(character) for character in "\ufffdïâÃ"]] = _LOST
    return table


@functools.cache
def _fields() -> np.ndarray:
    """[0x110000] uint64: what each character adds to the four counts that share a sum."""
    fields = np.zeros(7, dtype=np.uint64)
    fields[[_HAN, _DIGIT, _SIGN, _BLANK, _LOST_HAN, _LOST]] = (_HANS, _SIGNS, _SIGNS, _BLANKS, _HANS | _LOSTS, _LOSTS)
    return np.asarray(fields[_classes()])


def survey(texts: Sequence[str], settings: SurveySettings) -> Survey:
    """Count the characters of one text or more."""
    columns, keys, line_keys, widths = (_by_kernel if kernels.compiled else _by_numpy)(texts, settings)
    lengths, han, signs, blanks, lost, runs, lines, phrase_starts, different, sampled = columns.T
    again = np.bincount(_again(np.sort(keys)) >> _HASH, minlength=len(texts))
    few = sampled < lengths / (2 * _SAMPLE)  # a repeated phrase can hide between the samples
    order = np.argsort(line_keys)
    in_order = line_keys[order]
    same = order[1:][in_order[1:] == in_order[:-1]]  # all but the first of each
    in_lines = np.bincount(line_keys[same] >> _HASH, weights=widths[same], minlength=len(texts))
    return Survey(
        lengths=lengths,
        han=han,
        signs=signs,
        visible=lengths - blanks,
        may_be_lost=lost > 0,
        runs=runs,
        phrase_starts=phrase_starts,
        may_repeat_spans=np.where(
            lengths >= SAMPLED_CHARACTERS,
            few | (again > (settings.spans_share - 0.2) * sampled),
            different <= (1 - settings.spans_share) * lengths + settings.span,
        ),
        may_repeat_lines=(in_lines > settings.lines_share * (lengths - lines + 1))
        | ((lines >= settings.fewest_lines) & (lines > _MANY_LINES)),
    )


def sums(text: str) -> tuple[int, int, int, int]:
    """Han, digits, signs and visible characters of one text."""
    counts = np.bincount(_classes()[codes_of(text)], minlength=7).tolist()
    return counts[_HAN] + counts[_LOST_HAN], counts[_DIGIT], counts[_SIGN], len(text) - counts[_BLANK]


def runs(text: str) -> int:
    """Non-blank characters of one text that repeat the one before."""
    codes = codes_of(text)
    return int(np.count_nonzero((codes[1:] == codes[:-1]) & (_classes()[codes[1:]] != _BLANK)))


def _by_kernel(texts: Sequence[str], settings: SurveySettings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `_by_numpy`."""
    columns = np.empty((len(texts), _COLUMNS), dtype=np.int64)
    found = kernels.compiled.count(
        list(texts),
        _classes(),
        settings.beginnings,
        columns,
        settings.longest,
        settings.span,
        SAMPLED_CHARACTERS,
        _SAMPLED_BELOW,
        settings.fewest_lines,
        _MANY_LINES,
    )
    keys, line_keys, widths = (np.frombuffer(numbers, dtype=np.int64) for numbers in found)
    return columns, keys, line_keys, widths


def _by_numpy(texts: Sequence[str], settings: SurveySettings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The counts behind a survey.

    Returns:
        [texts, columns] the counts of each text, in the order in which `survey` unpacks them; a key for each sampled
        span, equal for equal spans of one text; the same for lines; [lines] characters of each of these.

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
    phrases = np.flatnonzero(settings.beginnings.take(pairs >> np.uint32(16)))
    phrases = phrases[phrases + 1 < (starts + lengths)[texts_of(phrases)]]
    is_long = lengths >= SAMPLED_CHARACTERS
    sampled = np.flatnonzero(pairs[: max(0, len(codes) - settings.span)] < _SAMPLED_BELOW)
    owners = texts_of(sampled)
    whole = is_long[owners] & (sampled + settings.span <= (starts + lengths)[owners])
    sampled, owners = sampled[whole], owners[whole]
    hashes = np.zeros(len(sampled), dtype=np.uint64)
    for offset in range(settings.span):
        hashes = (hashes + codes[sampled + offset]) * _BASE
    ends = np.flatnonzero(codes == _NEWLINE)
    lines = np.searchsorted(ends, starts + lengths, side="right") - np.searchsorted(ends, starts)
    of_many = np.repeat((lines >= settings.fewest_lines) & (lines <= _MANY_LINES), lines)
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
        np.where(lengths <= settings.longest, in_texts(phrases), 0),
        np.where(is_long, 0, _different(codes, starts)),
        np.bincount(owners, minlength=len(texts)),
    )
    return np.column_stack(columns), _keys(hashes, owners), _keys(line_hashes, texts_of(line_starts)), widths


def _different(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[texts] int64: a lower bound, at most 128, for the distinct characters of a text and the newline after it.

    Every character sets one of 128 bits of its text; two that set the same one count once.
    """
    bits = codes * _FACTORS[0] >> np.uint32(25)
    halves = (np.bitwise_or.reduceat(half[bits], starts) for half in _BITS)
    return np.asarray(sum(np.bitwise_count(half).astype(np.int64) for half in halves))


def _again(keys: np.ndarray) -> np.ndarray:
    """Of sorted keys those equal to the one before."""
    return np.asarray(keys[1:][keys[1:] == keys[:-1]])


def count_repeated_spans(text: str, span: int) -> int:
    """An upper bound for the repeated spans of a text: spans with the same hash count as equal."""
    return len(_again(np.sort(ngram_hashes(codes_of(text), span))))


def _keys(hashes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """[hashes] int64: the owner above the high bits of a hash, so that spans of different texts never collide."""
    return np.asarray(owners << _HASH | (hashes >> np.uint64(64 - _HASH)).astype(np.int64))
