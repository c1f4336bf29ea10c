"""Cleaning rules: text in, text out, every change counted by rule.

In: strings. Out: the same strings with markup and controls removed, widths and blanks normalized, and the strings that
each rule changed.
Invariants: clean(clean(x)) == clean(x), since the rules are repeated until a whole pass changes nothing; a string's
result does not depend on its neighbours; Chinese punctuation is content and stays unchanged.
Cost: one table lookup a character tells which rules a string may need, for a whole batch at once; a rule runs only on
those, joined into one string so that a call is paid once a batch. Rules are linear in any input.

Every rule works on strings joined by SEAM, a control character that no rule outputs, and treats it as the end of a
text. With kernels, some rules work on a list of strings instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean import chinese, html, mojibake, unicode, whitespace
from corpus.pipeline.text.codepoints import SEAM, codes_of

_PASSES = 12  # real records need two or three; more means maliciously nested markup


@dataclass(frozen=True, slots=True)
class Rule:
    """One cleaning rule."""

    name: str  # the counter in the ledger
    apply: Callable[[str], str]  # on texts joined by SEAM
    kernel: Callable[[list[str]], list[str]] | None = None  # on a list of texts


@dataclass(frozen=True, slots=True)
class Table:
    """The rules of a dataset in order, and the characters that trigger them."""

    rules: tuple[Rule, ...]
    flags: np.ndarray
    """[0x110000] uint32: for every character one bit for each rule it triggers, and its `_Kind`."""
    pairs: np.ndarray
    """[64] uint32: the same for two adjacent characters, by their kinds."""
    bits: dict[str, int]
    """The bit of each rule."""


class _Kind(IntEnum):
    """Kind of a character for rules that are triggered by two adjacent ones."""

    OTHER = 0
    SPACE = 1
    NEWLINE = 2
    SEAM = 3
    BLANK = 4
    OPENER = 5
    FILLER = 6
    CLOSER = 7


_KIND_SHIFT = 29
_MANY_LINES = 1 << 27  # this and the next are confirmed by a search
_BRACKET = 1 << 28
_RULE_BITS = _MANY_LINES - 1


@dataclass(slots=True)
class Cleaned:
    """Texts after cleaning, in order, and the positions that each rule changed."""

    texts: list[str]
    changed: dict[str, set[int]] = field(default_factory=dict)


@functools.cache
def rules(*, simplify: bool, brackets: bool) -> Table:
    """The table of rules, in the order in which they are applied."""
    steps: list[tuple[Callable[[str], str], Iterable[str]]] = [
        (mojibake.repair_encoding, mojibake.mojibake_characters()),
        (whitespace.break_lines, "\r\v\f\x85\u2028\u2029"),
        (html.unescape_entities, "&"),
        (html.strip_tags, "<"),
        (unicode.strip_invisible, unicode.basic_characters(unicode.INVISIBLE)),
        (unicode.compose_nfc, unicode.composed_characters()),
        (unicode.narrow_letters, unicode.basic_characters(unicode.WIDE)),
    ]
    if simplify:
        steps.append((chinese.simplify_script, chinese.converters()[2]))
    if brackets:
        steps.append((chinese.drop_empty_brackets, ""))
    steps += [
        (whitespace.collapse_blanks, [*unicode.basic_characters(re.compile(f"[{whitespace.ODD_BLANKS}]")), "\t"]),
        (whitespace.collapse_lines, ""),
    ]
    bits = {rule.__name__: 1 << position for position, (rule, _) in enumerate(steps)}
    flags = np.zeros(0x110000, dtype=np.uint32)
    for rule, characters in steps:
        flags[list(map(ord, characters))] |= bits[rule.__name__]
    flags[0x10000:] = bits["strip_invisible"] | bits["compose_nfc"]
    for kind, characters in _kinds().items():
        flags[list(map(ord, characters))] |= kind << _KIND_SHIFT
    flags[ord(SEAM)] = _Kind.SEAM << _KIND_SHIFT  # separates texts; one within a text is searched
    ready = tuple(Rule(rule.__name__, rule, _KERNELS.get(rule)) for rule, _ in steps)
    return Table(ready, flags, _pairs(bits), bits)


def _kinds() -> dict[_Kind, Iterable[str]]:
    """The characters of each kind except OTHER and SEAM."""
    blanks = set(filter(str.isspace, unicode.BASIC_PLANE)) - {" ", "\n", SEAM}
    return {
        _Kind.SPACE: " ",
        _Kind.NEWLINE: "\n",
        _Kind.BLANK: blanks,
        _Kind.OPENER: chinese.OPENERS,
        _Kind.FILLER: set(chinese.FILLERS) - blanks - {" "},
        _Kind.CLOSER: chinese.CLOSERS,
    }


def _pairs(bits: Mapping[str, int]) -> np.ndarray:
    """The rules that two adjacent characters trigger."""
    blanks, lines = bits["collapse_blanks"], bits["collapse_lines"]
    pairs = np.zeros((8, 8), dtype=np.uint32)
    pairs[_Kind.SPACE, [_Kind.SPACE, _Kind.NEWLINE]] |= blanks
    pairs[_Kind.NEWLINE, _Kind.NEWLINE] |= _MANY_LINES
    for blank in (_Kind.SPACE, _Kind.NEWLINE, _Kind.BLANK):
        pairs[_Kind.SEAM, blank] |= lines
        pairs[blank, _Kind.SEAM] |= lines
    if "drop_empty_brackets" in bits:
        pairs[_Kind.OPENER, [_Kind.CLOSER, _Kind.FILLER, _Kind.SPACE, _Kind.BLANK]] |= _BRACKET
    return pairs.reshape(-1)


def clean(text: str, table: Table) -> str:
    """Clean one text."""
    return clean_all([text], table).texts[0]


def clean_all(texts: Sequence[str], table: Table) -> Cleaned:
    """Clean many texts; those that changed are cleaned again until nothing changes."""
    cleaned = Cleaned(list(texts))
    pending: Sequence[int] = range(len(cleaned.texts))
    content: list[set[int]] = [set() for _ in table.rules]  # for each rule the texts that it would not change
    for turn in range(2 * _PASSES):
        if turn == _PASSES:
            for index in pending:  # what can open a tag, an entity or code
                cleaned.texts[index] = re.sub("[<&`]", "", cleaned.texts[index])
            cleaned.changed.setdefault("strip_tags", set()).update(pending)
            content = [set() for _ in table.rules]
        buckets: list[list[int]] = [[] for _ in table.rules]
        for index, triggered in _triggered(cleaned.texts, pending, table):
            left = triggered
            while left:
                lowest = left & -left
                buckets[lowest.bit_length() - 1].append(index)
                left ^= lowest
        dirty: set[int] = set()
        for position, (rule, bucket) in enumerate(zip(table.rules, buckets, strict=True)):
            wanted = [index for index in bucket if index not in content[position]]
            if not wanted:
                continue
            changed = _apply(rule, cleaned, wanted)
            for other in content:
                other.difference_update(changed)
            idempotent = rule.apply is whitespace.collapse_blanks
            content[position].update(wanted if idempotent else set(wanted).difference(changed))
            if rule.apply is whitespace.collapse_lines:  # fewer newlines can only bring a tag below its bound
                changed = [index for index in changed if "<" in cleaned.texts[index]]
            dirty.update(changed)
        if not dirty:
            break
        pending = sorted(dirty)
    return cleaned


def _triggered(texts: Sequence[str], pending: Sequence[int], table: Table) -> Iterator[tuple[int, int]]:
    """The texts that some rule may change, each with the triggered rules as bits."""
    checked = [texts[index] for index in pending]
    for index, text, bits in zip(pending, checked, _triggers(checked, table), strict=True):
        triggered = bits & _RULE_BITS
        if bits & _BRACKET and chinese.EMPTY_BRACKET.search(text):
            triggered |= table.bits["drop_empty_brackets"]
        if triggered:
            yield index, triggered


def _triggers(checked: list[str], table: Table) -> list[int]:
    """The rules triggered by each text, as bits: one lookup a character and pair, for all texts at once."""
    if kernels.compiled:
        return kernels.compiled.called(
            checked, table.flags, table.pairs, table.bits["strip_invisible"], table.bits["collapse_lines"]
        )
    if not checked:
        return []
    joined = f"{SEAM}{SEAM.join(checked)}{SEAM}"
    flags = table.flags.take(codes_of(joined))
    marks = flags >= 1 << _KIND_SHIFT
    first = np.flatnonzero(marks[1:] & marks[:-1])
    kinds, next_kinds = flags[first] >> _KIND_SHIFT, flags[first + 1] >> _KIND_SHIFT
    flags[first] |= table.pairs[kinds << 3 | next_kinds]
    ends = np.cumsum(np.fromiter(map(len, checked), dtype=np.int64, count=len(checked)) + 1)
    triggered = np.bitwise_or.reduceat(flags, np.concatenate(([0], ends[:-1]))) & ((1 << _KIND_SHIFT) - 1)
    if joined.count(SEAM) > len(checked) + 1:
        triggered[[index for index, text in enumerate(checked) if SEAM in text]] |= table.bits["strip_invisible"]
    bits: list[int] = triggered.tolist()
    for position in np.flatnonzero(triggered & _MANY_LINES).tolist():
        if "\n\n\n" in checked[position]:
            bits[position] |= table.bits["collapse_lines"]
    return bits


def _apply(rule: Rule, cleaned: Cleaned, bucket: Sequence[int]) -> list[int]:
    """Apply one rule to the texts that triggered it, by its kernel or as one string; the positions it changed."""
    texts = cleaned.texts
    before = [texts[index] for index in bucket]
    # a seam in a text is invisible, and removed before all rules
    seamless = [text.replace(SEAM, "") if SEAM in text else text for text in before]
    after = rule.kernel(seamless) if rule.kernel and kernels.compiled else rule.apply(SEAM.join(seamless)).split(SEAM)
    changed = [index for index, old, new in zip(bucket, before, after, strict=True) if old != new]
    if changed:
        for index, new in zip(bucket, after, strict=True):
            texts[index] = new
        cleaned.changed.setdefault(rule.name, set()).update(changed)
    return changed


_KERNELS: dict[Callable[[str], str], Callable[[list[str]], list[str]]] = {
    html.strip_tags: html.strip_tags_batch,
    unicode.compose_nfc: unicode.compose_nfc_batch,
    whitespace.collapse_blanks: lambda texts: kernels.compiled.collapse_blanks(texts),  # noqa: PLW0108  # None without kernels
    whitespace.collapse_lines: whitespace.collapse_lines_batch,
}
