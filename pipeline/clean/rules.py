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
import html
import html.entities
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean import mojibake
from corpus.pipeline.text.normalize import codes_of

SEAM = "\x1e"
_MANY_MARKS = 30
_PASSES = 12  # real records need two or three; beyond that the markup is nested to do harm

_BLANK_CHARACTERS = (
    "\t \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
_ODD_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

_BLOCK_TAGS = (
    "address|article|aside|blockquote|br|caption|center|dd|div|dl|dt|figcaption|figure|footer|form|h1|h2|h3|h4|h5|h6|header|hr|li|main|"
    "nav|ol|p|poem|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
_INLINE_TAGS = (  # without those that texts about programs write as names: source, time, path, q
    "a|abbr|acronym|audio|b|bdi|bdo|big|body|button|cite|code|col|colgroup|del|details|dfn|em|embed|font|gallery|head|html|i|"
    "iframe|img|input|ins|kbd|label|link|mark|math|meta|nobr|noscript|nowiki|object|option|param|ref|references|rp|rt|ruby|s|"
    "samp|script|select|small|span|strike|strong|style|sub|summary|sup|svg|textarea|tt|u|var|video|wbr"
)


def _one_of(words: Iterable[str]) -> str:
    """A pattern that matches any of some words and reads each character once, as a trie.

    >>> _one_of(["p", "pre", "br"])
    '(?:br|p(?:re)?)'
    """
    heads: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        heads.setdefault(word[:1], []).append(word[1:])
    whole = [] if heads.pop("", None) is None else [""]
    branches = [head + _one_of(tails) for head, tails in heads.items()]
    if not branches:
        return ""
    body = branches[0] if len(branches) == 1 and not whole else f"(?:{'|'.join(branches)})"
    return f"{body}?" if whole else body


_TAGS = [*_INLINE_TAGS.split("|"), *_BLOCK_TAGS.split("|")]
_GAP = r"[ \t\n\r\f\v]"  # `\s` would match the seam
_ATTRIBUTES = (  # with a value, or known to need none: `a<b and c>d` is no tag; possessive: no run is tried twice
    rf"""(?:{_GAP}++(?:[A-Za-z_:@][\w:.-]{{0,60}}+{_GAP}*+=(?>{_GAP}*(?:"[^"<>{SEAM}]{{0,2000}}"|'[^'<>{SEAM}]{{0,2000}}'"""
    rf"""|[^\s<>{SEAM}]{{0,2000}}))"""
    r"|(?i:allowfullscreen|async|autoplay|checked|compact|controls|defer|disabled|hidden|loop|muted|noshade|nowrap|open"
    r"|reversed|selected))){0,40}+"
)
_TAG_BODY = (
    rf"(?:!--(?:(?!<!--)[^{SEAM}]){{0,4000}}?-->"
    rf"|(/?)({_one_of(_TAGS)}|{_one_of(map(str.upper, _TAGS))}){_ATTRIBUTES}{_GAP}{{0,20}}/?>)"
)
_TAG = re.compile(f"(<{_TAG_BODY})")
_MARKUP = re.compile(  # code that was marked as code is content
    rf"([<`](?:(?<=`)(?:``(?:[^`{SEAM}]++|`(?!``))*+```|[^`\n{SEAM}]+`)|(?<=<){_TAG_BODY}))"
)
_TAG_STEP = 4  # both split a text into what stands before, the whole tag or code, the slash of its end, its name
_LONG = 1 << 20  # characters
_BLOCKS = frozenset(_BLOCK_TAGS.split("|"))
_LEAVES = {
    written: "\n" if tag in _BLOCKS else ""
    for tag in _TAGS
    for written in (tag, tag.upper())
    if tag not in {"rt", "sup"} and not (len(written) == 1 and written.isupper())
}
"""What most tags leave behind, wherever they stand."""
_UNSEEN_END = re.compile("</(?i:script|style|rp)")
_UNSEEN = re.compile(
    rf"<(?P<tag>script|style|rp)\b[^<>{SEAM}]{{0,2000}}>|</(?:script|style|rp){_GAP}*>|```|`|{SEAM}", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:amp;|#38;|#x26;)*(#\d{1,8};|#[xX][0-9a-fA-F]{1,7};|[A-Za-z][A-Za-z0-9]{1,31};|nbsp)")
_BREAK = re.compile("[\r\v\f\x85\u2028\u2029]")
_HIDDEN = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff"
)
_JOINED = (
    r"(?:(?<!\u200d)|(?![\u2600-\u27bf\U0001f000-\U0001faff]))"  # a joiner before a picture makes one picture of two
)
_INVISIBLE = re.compile(f"[{_HIDDEN}]{_JOINED}")
_INVISIBLE_NOT_SEAM = re.compile(f"[{_HIDDEN}]{_JOINED}".replace("\x0e-\x1f", "\x0e-\x1d\x1f"))
_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ][０-９Ａ-Ｚａ-ｚ]*")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B)}
_OPENERS = {"（": "）", "「": "」", "『": "』", "《": "》", "〈": "〉", "【": "】", "〔": "〕"}
_CLOSERS = {closer: opener for opener, closer in _OPENERS.items()}
_FILLERS = "，、；：。,;: \u3000\u00a0"
_EMPTY_BRACKET = re.compile(
    f"（[{_FILLERS}]*）|「[{_FILLERS}]*」|『[{_FILLERS}]*』|《[{_FILLERS}]*》|〈[{_FILLERS}]*〉|【[{_FILLERS}]*】|〔[{_FILLERS}]*〕"
)
_FENCE = "```"
_PLAIN_BLANKS = {ord(blank): " " for blank in _BLANK_CHARACTERS if blank != "\t"}
_BLANK_LINES = re.compile(r"\n\n\n+")
_MARKS = re.compile(rf"[^\x00-\u02ff\u3400-\u9fff\s]{{{_MANY_MARKS},}}")
_LINE_END = re.compile(f"[\n{SEAM}]")
_BASIC = "".join(map(chr, range(0x10000)))


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


def repair_encoding(text: str) -> str:
    """Runs of UTF-8 that were read as GBK or Latin-1 are decoded again, where that is certain."""
    return mojibake.repair(text)


def break_lines(text: str) -> str:
    r"""Every kind of line break becomes a newline; the corpora's `\r\r` is one break each."""
    return _BREAK.sub("\n", text.replace("\r\n", "\n"))


def unescape_entities(text: str) -> str:
    """HTML entities become their characters, also when they were escaped several times over; `&params;` is none."""
    return _ENTITY.sub(_character, text)


def strip_tags(text: str) -> str:
    """Known HTML and wiki tags go, block tags leaving a line break; `List<String>` and code in backticks are
    content.
    """
    return SEAM.join(list(map(_without_tags, _drop_unseen(text).split(SEAM))))


def strip_invisible(text: str) -> str:
    """Control, zero-width, bidirectional and unassigned format characters go; joiners inside an emoji stay."""
    return _INVISIBLE_NOT_SEAM.sub("", text)


def compose_nfc(text: str) -> str:
    """Unicode normalisation form C, which leaves full-width punctuation alone (NFKC would not).

    CPython orders a run of combining marks by insertion, so a long one is put in order first.
    """
    return unicodedata.normalize("NFC", _MARKS.sub(_in_order, text))


def narrow_letters(text: str) -> str:
    """Full-width Latin letters and digits become ASCII; full-width punctuation stays."""
    return _WIDE.sub(lambda match: match[0].translate(_NARROW), text)


def simplify_script(text: str) -> str:
    """Traditional lines become Simplified through OpenCC.

    Only lines that hold a character which is nothing but Traditional are touched: OpenCC's phrases would else
    turn the Simplified 打坏 into 打坯, and repeat themselves on 毕昇.
    """
    simplify, traditional, _ = _opencc()
    between: list[str] = []
    lines: list[str] = []
    last = 0
    while found := traditional(text, last):
        hit = found.start()
        begin = max(last, text.rfind("\n", last, hit) + 1, text.rfind(SEAM, last, hit) + 1)
        line_end = _LINE_END.search(text, hit)
        end = line_end.start() if line_end else len(text)
        between.append(text[last:begin])
        lines.append(text[begin:end])
        last = end
    if not lines:
        return text
    simplified = simplify("\n".join(lines)).split("\n")
    return "".join([part for pair in zip(between, simplified, strict=True) for part in pair]) + text[last:]


def drop_empty_brackets(text: str) -> str:
    """Brackets that hold nothing, or nothing but punctuation, since an extraction took their content."""
    kept: list[str] = []
    open_at: list[int] = []
    for character in text:
        if character in _OPENERS:
            open_at.append(len(kept))
            kept.append(character)
        elif open_at and kept[open_at[-1]] == _CLOSERS.get(character):
            del kept[open_at.pop() :]
        else:
            if character not in _FILLERS:
                open_at.clear()
            kept.append(character)
    return "".join(kept)


def collapse_blanks(text: str) -> str:
    """Runs of blanks become one; ideographic indents and blanks at the ends of lines go; ASCII indentation stays,
    for code.
    """
    codes = codes_of(f"{SEAM}{text}{SEAM}")
    blank = _is_blank().take(codes)
    first, last = blank[1:-1] & ~blank[:-2], blank[1:-1] & ~blank[2:]
    first &= ~(last & (codes[1:-1] == ord(" ")) & (codes[2:] != ord("\n")))  # one between words is as it should be
    starts = np.flatnonzero(first) + 1
    if len(starts) == 0:
        return text
    ends = np.flatnonzero(last) + 2
    ends = ends[np.searchsorted(ends, starts, side="right")]
    lone = (ends - starts == 1) & (codes[starts] == ord(" "))
    before_newline, before_seam = codes[ends] == ord("\n"), codes[ends] == ord(SEAM)
    after_break = (codes[starts - 1] == ord("\n")) | (codes[starts - 1] == ord(SEAM))
    odd = np.maximum.reduceat(codes, np.stack((starts, ends), axis=1).reshape(-1))[::2] >= 0x80
    fences = np.array(list(_fences(text)), dtype=np.int64).reshape(-1)
    in_code = np.searchsorted(fences, starts - 1, side="right") % 2 == 1
    indent = after_break & (lone | ~odd)
    gone = before_newline | (~indent & ~in_code & (after_break | (before_seam & ~lone)))
    changed = np.flatnonzero(gone | np.where(in_code, odd, ~(indent | lone)))
    pieces: list[str] = []
    last = 0
    for start, end, nothing, code in zip(
        (starts[changed] - 1).tolist(),
        (ends[changed] - 1).tolist(),
        gone[changed].tolist(),
        in_code[changed].tolist(),
        strict=True,
    ):
        pieces.append(text[last:start])
        if not nothing:
            pieces.append(text[start:end].translate(_PLAIN_BLANKS) if code else " ")
        last = end
    pieces.append(text[last:])
    return "".join(pieces)


def _fences(text: str) -> Iterator[tuple[int, int]]:
    """Where code between fences begins and ends; it ends in the text in which it begins."""
    begin = text.find(_FENCE)
    while begin >= 0 and (end := text.find(_FENCE, begin + len(_FENCE))) >= 0:
        seam = text.find(SEAM, begin, end)
        if seam < 0:
            yield begin, end + len(_FENCE)
        begin = text.find(_FENCE, end + len(_FENCE) if seam < 0 else seam)


def collapse_lines(text: str) -> str:
    """At most one blank line between paragraphs, none at the ends."""
    return SEAM.join([part.strip() for part in _BLANK_LINES.sub("\n\n", text).split(SEAM)])


@functools.cache
def rules(*, simplify: bool, brackets: bool) -> Table:
    """The table of rules, in the order in which they are applied."""
    steps: list[tuple[Callable[[str], str], Iterable[str]]] = [
        (repair_encoding, mojibake.signs()),
        (break_lines, "\r\v\f\x85\u2028\u2029"),
        (unescape_entities, "&"),
        (strip_tags, "<"),
        (strip_invisible, _basic(_INVISIBLE)),
        (compose_nfc, _composed()),
        (narrow_letters, _basic(_WIDE)),
    ]
    if simplify:
        steps.append((simplify_script, _opencc()[2]))
    if brackets:
        steps.append((drop_empty_brackets, ""))
    steps += [(collapse_blanks, [*_basic(re.compile(f"[{_ODD_BLANKS}]")), "\t"]), (collapse_lines, "")]
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
    blanks = set(filter(str.isspace, _BASIC)) - {" ", "\n", SEAM}
    return {
        _Kind.SPACE: " ",
        _Kind.NEWLINE: "\n",
        _Kind.BLANK: blanks,
        _Kind.OPENER: _OPENERS,
        _Kind.FILLER: set(_FILLERS) - blanks - {" "},
        _Kind.CLOSER: _CLOSERS,
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
        if bits & _BRACKET and _EMPTY_BRACKET.search(text):
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


def _strip_tags_of(texts: list[str]) -> list[str]:
    """`strip_tags` for each of some texts."""
    stripped = kernels.compiled.strip_tags(texts, _tag_table(), _tag_characters())
    return [strip_tags(text) if new is None else new for text, new in zip(texts, stripped, strict=True)]


def _compose_nfc_of(texts: list[str]) -> list[str]:
    """`compose_nfc` for each of some texts."""
    return [
        compose_nfc(text) if kernels.compiled.has_run(text, _MANY_MARKS) else unicodedata.normalize("NFC", text)
        for text in texts
    ]


def _collapse_blanks_of(texts: list[str]) -> list[str]:
    """`collapse_blanks` for each of some texts."""
    return kernels.compiled.collapse_blanks(texts)


def _collapse_lines_of(texts: list[str]) -> list[str]:
    """`collapse_lines` for each of some texts."""
    return [(_BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip() for text in texts]


_KERNELS: dict[Callable[[str], str], Callable[[list[str]], list[str]]] = {
    strip_tags: _strip_tags_of,
    compose_nfc: _compose_nfc_of,
    collapse_blanks: _collapse_blanks_of,
    collapse_lines: _collapse_lines_of,
}


def _basic(pattern: re.Pattern[str]) -> list[str]:
    """Characters of the basic plane that a pattern matches when each stands alone."""
    return pattern.findall("a".join(_BASIC))


@functools.cache
def _composed() -> list[str]:
    """Characters of the basic plane that can make a text differ from its normal form: marks, vowel and final Hangul
    jamo, and what has another form.
    """
    return [
        character
        for character in _BASIC
        if unicodedata.category(character)[0] == "M"
        or "\u1160" <= character <= "\u11ff"
        or not unicodedata.is_normalized("NFC", character)
    ]


def _disarm(cleaned: Cleaned, pending: Iterable[int]) -> None:
    """Markup nested a dozen deep is an attack or a ruin: what could open a tag, an entity or code goes."""
    for index in pending:
        cleaned.texts[index] = re.sub("[<&`]", "", cleaned.texts[index])
        cleaned.changed.setdefault("strip_tags", set()).add(index)


def _character(match: re.Match[str]) -> str:
    """The character of an entity; what only begins like one is text."""
    name = match[1]
    if name == "nbsp" or name[0] == "#" or name in html.entities.html5:
        return html.unescape(f"&{name}")
    return match[0]


def _without_tags(text: str) -> str:
    """One text without tags.

    `split` takes it apart in one go, where `sub` calls back for every tag; but it holds every tag while it does so.
    """
    pattern = _MARKUP if "`" in text else _TAG
    if len(text) > _LONG:
        return pattern.sub(lambda tag: _leaf(tag[1], tag[2], tag[3], text[max(tag.start() - 1, 0) : tag.start()]), text)
    found = pattern.split(text)
    kept: list[Any] = [None] * (len(found) // 2 + 1)
    kept[::2] = found[::_TAG_STEP]
    kept[1::2] = leaves = list(map(_LEAVES.get, found[3::_TAG_STEP]))
    if None in leaves:
        for index in [index for index, leaf in enumerate(leaves) if leaf is None]:
            last, whole, end, tag = found[_TAG_STEP * index : _TAG_STEP * (index + 1)]
            kept[2 * index + 1] = _leaf(whole, end, tag, last[-1:])
    return "".join(kept)


def _leaf(whole: str, end: str | None, tag: str | None, before: str) -> str:
    """What is left of a tag or of code, after the character before it."""
    if tag is None:
        return whole if whole[0] == "`" else ""
    left = _LEAVES.get(tag)
    if left is not None:
        return left
    if len(tag) == 1 and not end and before.isascii() and before.isalnum():
        return whole  # `Class<S>`
    name = tag.lower()
    if name == "rt":  # the reading beside a word
        return "）" if end else "（"
    if name == "sup" and not end and before.isascii() and (before.isalnum() or before == ")"):
        return "^"  # 10<sup>5</sup> is not 105
    return "\n" if name in _BLOCKS else ""


@functools.cache
def _tag_table() -> bytes:
    """What the kernel knows of tags, sorted: eleven bytes of a name, and one that says what it leaves.

    A tag of one capital letter may be a name in a program; the two kinds for these are what it leaves else, and four
    more.
    """
    kinds = {"rt": 2, "sup": 3}
    entries = {
        written: kinds.get(tag, int(tag in _BLOCKS)) + 4 * (len(written) == 1 and written.isupper())
        for tag in _TAGS
        for written in (tag, tag.upper())
    }
    return b"".join(name.encode().ljust(11, b"\0") + bytes([kind]) for name, kind in sorted(entries.items()))


@functools.cache
def _tag_characters() -> np.ndarray:
    """[0x10000] uint8: 1 for what may stand in the name of an attribute, 2 for blanks."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for kind, pattern in ((1, r"\w"), (2, r"\s")):
        table[list(map(ord, _basic(re.compile(pattern))))] |= kind
    return table


@functools.cache
def _is_blank() -> np.ndarray:
    """[0x110000] whether a character is a blank."""
    table = np.zeros(0x110000, dtype=np.bool_)
    table[[ord(blank) for blank in _BLANK_CHARACTERS]] = True
    return table


def _in_order(match: re.Match[str]) -> str:
    """A long run with its combining marks decomposed and in canonical order, which changes nothing of its NFC."""
    run = match[0]
    if sum(map(bool, map(unicodedata.combining, run))) < _MANY_MARKS:
        return run
    pieces: list[str] = []
    marks: list[str] = []
    for character in run:
        decomposed = unicodedata.normalize("NFD", character)
        if unicodedata.combining(decomposed[0]):
            marks += decomposed
        else:
            pieces += (*sorted(marks, key=unicodedata.combining), character)
            marks = []
    return "".join([*pieces, *sorted(marks, key=unicodedata.combining)])


def _drop_unseen(text: str) -> str:
    """Take out what a browser does not show: the insides of `script`, `style` and `rp`, but not inside code."""
    if _UNSEEN_END.search(text) is None:
        return text
    kept: list[str] = []
    last = 0  # everything before it is decided
    opened: int | None = None
    code = ""
    for match in _UNSEEN.finditer(text):
        token = match[0]
        if token == SEAM:
            opened, code = None, ""
        elif token[0] == "`":
            code = "" if code == token else code or token
        elif code:
            continue
        elif match["tag"]:
            opened = match.start() if opened is None else opened
        elif opened is not None:
            kept.append(text[last:opened])
            last, opened = match.end(), None
    kept.append(text[last:])
    return "".join(kept)


@functools.cache
def _opencc() -> tuple[Callable[[str], str], Callable[..., re.Match[str] | None], list[str]]:
    """OpenCC's converter, a search for a character that is Traditional and nothing else, and all such characters."""
    import opencc  # noqa: PLC0415  # loads its dictionaries; only the datasets that want it pay

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    characters = [chr(code) for first, end in ((0x3400, 0x4DC0), (0x4E00, 0xA000)) for code in range(first, end)]
    simplified = convert("\n".join(characters)).split("\n")
    traditional = {before for before, after in zip(characters, simplified, strict=True) if before != after}
    # In names and set phrases OpenCC leaves some as they are (乾隆, 毕昇, 幺麽, 吴祕, 变徵, 蒐于红, 懷釐, 东氾, 芸薹,
    # 联陞): alone they prove nothing. Beyond the basic plane a set would be searched one by one; such a character
    # comes with others that prove the script.
    ambiguous = set("乾昇麽祕徵蒐釐氾薹陞噁") | set("".join(simplified))
    ambiguous |= {before for before, after in zip(characters, simplified, strict=True) if ord(after[0]) > 0xFFFF}
    certain = sorted(traditional - ambiguous)
    return convert, re.compile("[" + "".join(certain) + "]").search, certain
