"""Cleaning rules: text in, text out, every change counted by the rule that made it.

In: strings. Out: the same strings with markup, controls, odd widths and odd blanks made plain, and which rule changed
which string.
Invariants: clean(clean(x)) == clean(x), because the table is repeated until a whole pass changes nothing; a string's
result does not depend on
its neighbours; Chinese punctuation is content and passes untouched.
Cost: one table lookup a character tells which rules a string may need, for a whole batch at once; a rule works only on
those, joined into one string so that the price of a call is paid once per batch. Rules are linear in the length of
their input, whatever the input.

Every rule works on strings joined by SEAM, a control character that no rule lets into its output, and treats it as
the end of a text. Where the kernels were built, some work on one string after another instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean import mojibake
from corpus.pipeline.clean.chinese import (
    CLOSERS,
    EMPTY_BRACKET,
    FILLERS,
    OPENERS,
    converters,
    drop_empty_brackets,
    simplify_script,
)
from corpus.pipeline.clean.html import strip_tags, strip_tags_batch, unescape_entities
from corpus.pipeline.clean.unicode import (
    BASIC_PLANE,
    INVISIBLE,
    WIDE,
    basic_characters,
    compose_nfc,
    compose_nfc_batch,
    composed_characters,
    narrow_letters,
    repair_encoding,
    strip_invisible,
)
from corpus.pipeline.clean.whitespace import (
    ODD_BLANKS,
    break_lines,
    collapse_blanks,
    collapse_blanks_batch,
    collapse_lines,
    collapse_lines_batch,
)
from corpus.pipeline.text.codepoints import SEAM, codes_of

_PASSES = 12  # real records need two or three; beyond that the markup is nested to do harm


@dataclass(frozen=True, slots=True)
class Rule:
    """One cleaning rule. `name` is the counter in the ledger; `apply` works on texts joined by SEAM, and `kernel`,
    where there is one, on a list of them.
    """

    name: str
    apply: Callable[[str], str]
    kernel: Callable[[list[str]], list[str]] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The rules of a dataset in order, and what in a text may call for each of them."""

    rules: tuple[Rule, ...]
    flags: np.ndarray
    """[0x110000] uint16: for every character the rules it calls for, as bits by their position, and its `_Kind`."""
    pairs: np.ndarray
    """[64] uint16: the same for two neighbours, by their kinds."""
    bits: dict[str, int]
    """The bit of each rule."""


class _Kind(IntEnum):
    """What a character is to the rules about neighbours."""

    OTHER = 0
    SPACE = 1
    NEWLINE = 2
    SEAM = 3
    BLANK = 4
    OPENER = 5
    FILLER = 6
    CLOSER = 7


_KIND_SHIFT = 13
_MANY_LINES = 1 << 11  # these two are looked at again, by a search
_BRACKET = 1 << 12
_RULE_BITS = _MANY_LINES - 1


@dataclass(slots=True)
class Cleaned:
    """Texts after cleaning, in order, and for each rule the positions it changed."""

    texts: list[str]
    changed: dict[str, set[int]] = field(default_factory=dict)


@functools.cache
def rules(*, simplify: bool, brackets: bool) -> Table:
    """The table of rules, in the order in which they are applied."""
    steps: list[tuple[Callable[[str], str], Iterable[str]]] = [
        (repair_encoding, mojibake.mojibake_characters()),
        (break_lines, "\r\v\f\x85\u2028\u2029"),
        (unescape_entities, "&"),
        (strip_tags, "<"),
        (strip_invisible, basic_characters(INVISIBLE)),
        (compose_nfc, composed_characters()),
        (narrow_letters, basic_characters(WIDE)),
    ]
    if simplify:
        steps.append((simplify_script, converters()[2]))
    if brackets:
        steps.append((drop_empty_brackets, ""))
    steps += [(collapse_blanks, [*basic_characters(re.compile(f"[{ODD_BLANKS}]")), "\t"]), (collapse_lines, "")]
    bits = {rule.__name__: 1 << position for position, (rule, _) in enumerate(steps)}
    flags = np.zeros(0x110000, dtype=np.uint16)
    for rule, characters in steps:
        flags[list(map(ord, characters))] |= bits[rule.__name__]
    flags[0x10000:] = bits["strip_invisible"] | bits["compose_nfc"]
    for kind, characters in _kinds().items():
        flags[list(map(ord, characters))] |= kind << _KIND_SHIFT
    flags[ord(SEAM)] = _Kind.SEAM << _KIND_SHIFT  # stands between texts; one within a text is looked for
    ready = tuple(Rule(rule.__name__, rule, _KERNELS.get(rule)) for rule, _ in steps)
    return Table(ready, flags, _pairs(bits), bits)


def _kinds() -> dict[_Kind, Iterable[str]]:
    """The characters of each kind, but OTHER and SEAM."""
    blanks = set(filter(str.isspace, BASIC_PLANE)) - {" ", "\n", SEAM}
    return {
        _Kind.SPACE: " ",
        _Kind.NEWLINE: "\n",
        _Kind.BLANK: blanks,
        _Kind.OPENER: OPENERS,
        _Kind.FILLER: set(FILLERS) - blanks - {" "},
        _Kind.CLOSER: CLOSERS,
    }


def _pairs(bits: Mapping[str, int]) -> np.ndarray:
    """The rules that two neighbours call for."""
    blanks, lines = bits["collapse_blanks"], bits["collapse_lines"]
    pairs = np.zeros((8, 8), dtype=np.uint16)
    pairs[_Kind.SPACE, [_Kind.SPACE, _Kind.NEWLINE]] |= blanks
    pairs[_Kind.NEWLINE, _Kind.NEWLINE] |= _MANY_LINES
    for blank in (_Kind.SPACE, _Kind.NEWLINE, _Kind.BLANK):
        pairs[_Kind.SEAM, blank] |= lines
        pairs[blank, _Kind.SEAM] |= lines
    if "drop_empty_brackets" in bits:
        pairs[_Kind.OPENER, [_Kind.CLOSER, _Kind.FILLER, _Kind.SPACE, _Kind.BLANK]] |= _BRACKET
    return pairs.reshape(-1)


def clean(text: str, table: Table) -> str:
    """One text through the table."""
    return clean_all([text], table).texts[0]


def clean_all(texts: Sequence[str], table: Table) -> Cleaned:
    """Many texts through the table, repeated for those that changed until nothing does."""
    cleaned = Cleaned(list(texts))
    pending: Sequence[int] = range(len(cleaned.texts))
    content: list[set[int]] = [set() for _ in table.rules]  # for each rule the texts that it leaves as they are
    for turn in range(2 * _PASSES):
        if turn == _PASSES:
            _disarm(cleaned, pending)
            content = [set() for _ in table.rules]
        buckets: list[list[int]] = [[] for _ in table.rules]
        for index, called in _called(cleaned.texts, pending, table):
            left = called
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
            # collapse_blanks finds nothing to do in what it gives
            content[position].update(wanted if rule.apply is collapse_blanks else set(wanted).difference(changed))
            if rule.apply is collapse_lines:  # to take newlines away brings a tag under its bound, and nothing else
                changed = [index for index in changed if "<" in cleaned.texts[index]]
            dirty.update(changed)
        if not dirty:
            break
        pending = sorted(dirty)
    return cleaned


def _called(texts: Sequence[str], pending: Sequence[int], table: Table) -> Iterator[tuple[int, int]]:
    """The texts that some rule may change, each with these rules as bits."""
    looked_at = [texts[index] for index in pending]
    for index, text, bits in zip(pending, looked_at, _calls(looked_at, table), strict=True):
        called = bits & _RULE_BITS
        if bits & _BRACKET and EMPTY_BRACKET.search(text):
            called |= table.bits["drop_empty_brackets"]
        if called:
            yield index, called


def _calls(looked_at: list[str], table: Table) -> list[int]:
    """The rules that texts call for, as bits: one look at every character and its neighbour, for all texts at once."""
    if kernels.compiled:
        return kernels.compiled.called(
            looked_at, table.flags, table.pairs, table.bits["strip_invisible"], table.bits["collapse_lines"]
        )
    if not looked_at:
        return []
    joined = f"{SEAM}{SEAM.join(looked_at)}{SEAM}"
    flags = table.flags.take(codes_of(joined))
    marks = flags >= 1 << _KIND_SHIFT
    first = np.flatnonzero(marks[1:] & marks[:-1])
    kinds, next_kinds = flags[first] >> _KIND_SHIFT, flags[first + 1] >> _KIND_SHIFT
    flags[first] |= table.pairs[kinds << 3 | next_kinds]
    ends = np.cumsum(np.fromiter(map(len, looked_at), dtype=np.int64, count=len(looked_at)) + 1)
    called = np.bitwise_or.reduceat(flags, np.concatenate(([0], ends[:-1]))) & ((1 << _KIND_SHIFT) - 1)
    if joined.count(SEAM) > len(looked_at) + 1:
        called[[index for index, text in enumerate(looked_at) if SEAM in text]] |= table.bits["strip_invisible"]
    bits: list[int] = called.tolist()
    for position in np.flatnonzero(called & _MANY_LINES).tolist():
        if "\n\n\n" in looked_at[position]:
            bits[position] |= table.bits["collapse_lines"]
    return bits


def _apply(rule: Rule, cleaned: Cleaned, bucket: Sequence[int]) -> list[int]:
    """Apply one rule to the texts that call for it, by its kernel or as one string; those that it changed."""
    texts = cleaned.texts
    before = [texts[index] for index in bucket]
    # a raw seam is an invisible character like others, taken out ahead of all rules
    pure = [text.replace(SEAM, "") if SEAM in text else text for text in before]
    after = rule.kernel(pure) if rule.kernel and kernels.compiled else rule.apply(SEAM.join(pure)).split(SEAM)
    changed = [index for index, old, new in zip(bucket, before, after, strict=True) if old != new]
    if changed:
        for index, new in zip(bucket, after, strict=True):
            texts[index] = new
        cleaned.changed.setdefault(rule.name, set()).update(changed)
    return changed


_KERNELS: dict[Callable[[str], str], Callable[[list[str]], list[str]]] = {
    strip_tags: strip_tags_batch,
    compose_nfc: compose_nfc_batch,
    collapse_blanks: collapse_blanks_batch,
    collapse_lines: collapse_lines_batch,
}


def _disarm(cleaned: Cleaned, pending: Iterable[int]) -> None:
    """Markup nested a dozen deep is an attack or a ruin: what could open a tag, an entity or code goes."""
    for index in pending:
        cleaned.texts[index] = re.sub("[<&`]", "", cleaned.texts[index])
        cleaned.changed.setdefault("strip_tags", set()).add(index)
