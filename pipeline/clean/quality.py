"""Filter rules: why a document is not worth keeping.

In: documents with the parts they were made of. Out: for each the reason to drop it, or None.
A rule is a pure function, named by its reason; the reason is the counter in the ledger and the label in `rejected/`.
Lengths are characters, shares are of the characters that are not blank. No rule looks for words.
Invariant: `judge_all` gives what `judge` gives for each document; it only looks first, at all characters at once, for
the few that a rule may drop.
Cost: a table lookup and some sums a character; the rules themselves run on one document in a hundred.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from corpus.pipeline.clean import mojibake, statistics
from corpus.pipeline.text.codepoints import codes_of

MAX_SIGNS = 0.75
"""Largest share of digits, punctuation and symbols, from MIN_REPEATED characters on; worked algebra has up to 0.72."""
MAX_RUNS = 0.6
"""Largest share of characters that only repeat the one before."""
MAX_REPEATED_SPANS = 0.7
"""Largest share of spans of SPAN characters that stood before in the same document."""
MAX_REPEATED_LINES = 0.5
"""Largest share of characters in lines that stood before in the same document."""
MAX_BROKEN = 0.01
"""Largest share of characters that tell of a lost encoding."""
MAX_STRANGERS = 0.05
"""Largest share of Han that UTF-8 read as GBK is full of; old poems have a few."""
MIN_STRANGERS = 4
"""Fewest different ones; a post may well say 囧囧囧囧."""
MAX_ADVERT = 0.02
"""Largest number of different phrases of advertisements a character, from MIN_ADVERT such phrases on."""
SPAN = 6
MIN_REPEATED = 20
MIN_LINES = 8
MIN_ADVERT = 3
LONGEST_ADVERT = 500
MIN_BODY = 12
"""Fewest characters of an article below its title."""
MIN_PAIR_HAN = 0.02
"""Smallest share of Han on the Chinese side of a translation; a sentence about code has 0.05."""
PAIR_RATIO = (0.4, 12.0)
"""English characters for one of the Chinese side: smallest and largest believable, from MIN_PAIR characters on."""
MIN_PAIR = 8
MIN_SIDE = 4
"""Fewest characters of a side of a translation that can tell which language it is."""
_ECHO_LENGTH = 8
"""Largest difference in length between a question and an answer that says it again."""

_BROKEN = re.compile("\ufffd|锟斤拷|锟斤|斤拷|烫烫烫|屯屯屯|ï¿½|â€|Ã[\u0080-\u00bf]")
_STRANGERS = re.compile(f"[{mojibake.strangers()}]")
_ADVERT = (
    "加微信", "加QQ", "加我微信", "微信号", "扫码", "扫一扫", "长按识别", "二维码", "关注公众号", "点击购买",
    "点击下单", "立即购买", "立即抢购", "限时抢购", "限时优惠", "优惠券", "领券", "包邮", "货到付款",
    "免费领取", "免费咨询", "咨询热线", "咨询电话", "订购热线", "招商热线", "加盟热线", "招商加盟", "诚招代理",
    "名额有限", "先到先得", "联系客服", "官方旗舰店", "淘宝店", "代开发票", "办证", "无抵押", "包治",
    "祖传秘方", "兼职日结", "日赚", "稳赚", "全网最低", "厂家直销", "低价出售", "欢迎来电", "来电咨询",
    "在线咨询",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a dataset's documents must fulfil."""

    min_length: int
    """Fewest characters of a whole document."""
    min_han: float = 0.0
    """Smallest share of Han."""
    adverts: bool = False
    """Whether documents that mostly advertise are looked for."""
    off: frozenset[str] = frozenset()
    """Rules that are switched off."""


class Document(NamedTuple):
    """A document before it is kept."""

    text: str
    prompt_length: int
    """Leading characters of `text` that are the question or the source side."""
    form: str
    """`article`, `question` or `translation`."""
    parts: Sequence[str]
    """The cleaned fields the text was made of, in the order of their form."""


as_document: Callable[[tuple[str, int, str, Sequence[str]]], Document] = functools.partial(tuple.__new__, Document)
"""`Document._make` without a frame of Python for each of them."""


def empty(document: Document, limits: Limits) -> str | None:
    """Nothing is left to learn: no text at all, or a question without an answer."""
    left = len(document.text) > document.prompt_length
    return None if left else "nothing is left after the question or source side"


def too_short(document: Document, limits: Limits) -> str | None:
    """Fewer characters than the dataset's minimum."""
    length = len(document.text)
    return f"{length} of at least {limits.min_length} characters" if length < limits.min_length else None


def broken_encoding(document: Document, limits: Limits) -> str | None:
    """Replacement characters, `锟斤拷`, `烫烫烫` and UTF-8 read as GBK are more than a mention."""
    length = len(document.text)
    broken = sum(len(match[0]) for match in _BROKEN.finditer(document.text))
    strangers = _STRANGERS.findall(document.text)
    if len(set(strangers)) >= MIN_STRANGERS and len(strangers) > MAX_STRANGERS * length:
        broken += len(strangers)
    return _over(broken, length, MAX_BROKEN, "characters of a lost encoding") if broken > 1 else None


def little_han(document: Document, limits: Limits) -> str | None:
    """Too few Han for the dataset: another language, or code without a word about it."""
    if document.form == "translation":
        return None  # its sides are looked at one by one
    han, _, _, visible = statistics.sums(document.text)
    share = han / max(1, visible)
    return f"{share:.2f} of at least {limits.min_han:.2f} are Han" if share < limits.min_han else None


def mostly_signs(document: Document, limits: Limits) -> str | None:
    """Digits, punctuation and symbols outweigh words: a table, a list of numbers, a rule of dashes."""
    _, digits, signs, visible = statistics.sums(document.text)
    return _over(digits + signs, visible, MAX_SIGNS, "digits and symbols") if visible >= MIN_REPEATED else None


def repeated_characters(document: Document, limits: Limits) -> str | None:
    """Most characters only repeat the one before."""
    length = len(document.text)
    if length < MIN_REPEATED:
        return None
    return _over(statistics.runs(document.text), length, MAX_RUNS, "characters repeat the one before")


def repeated_spans(document: Document, limits: Limits) -> str | None:
    """Most spans of six characters stood before: the same phrase over and over.

    A long text is first judged by a sixteenth of its spans, those with certain hashes; a translation, in which English
    letters repeat themselves, only if it is long.
    """
    text = document.text
    spans = len(text) - SPAN + 1
    if statistics.count_repeated_spans(text, SPAN) <= MAX_REPEATED_SPANS * spans:
        return None
    if not _may_repeat_spans(_survey([text]), document.form)[0]:
        return None
    again = spans - len({text[start : start + SPAN] for start in range(spans)})
    return _over(again, spans, MAX_REPEATED_SPANS, "spans stood before")


def repeated_lines(document: Document, limits: Limits) -> str | None:
    """Most of the text is in lines that stood before."""
    if document.text.count("\n") < MIN_LINES - 1:
        return None
    lines = document.text.split("\n")
    total = sum(map(len, lines))
    return _over(total - sum(map(len, set(lines))), total, MAX_REPEATED_LINES, "characters in repeated lines")


def advert(document: Document, limits: Limits) -> str | None:
    """Several different phrases of advertisements in a short text."""
    if not limits.adverts or len(document.text) > LONGEST_ADVERT:
        return None
    found = [phrase for phrase in _ADVERT if phrase in document.text]
    if len(found) < MIN_ADVERT or len(found) <= MAX_ADVERT * len(document.text):
        return None
    return f"{len(found)} phrases in {len(document.text)} characters: {'、'.join(found[:5])}"


def stub(document: Document, limits: Limits) -> str | None:
    """An article with next to nothing below its title."""
    if document.form != "article" or len(document.parts) < 2:
        return None
    body = _below_title(document.parts)
    return f"{len(body)} of at least {MIN_BODY} characters below the title" if len(body) < MIN_BODY else None


def echo(document: Document, limits: Limits) -> str | None:
    """The answer only says the question again, but for punctuation and case."""
    if document.form != "question":
        return None
    answer = _letters(document.parts[-1])
    return "the answer is the question" if answer and answer in map(_letters, _alike(document.parts)) else None


def unlike_pair(document: Document, limits: Limits) -> str | None:
    """The two sides of a translation differ too much in length to say the same."""
    if document.form != "translation":
        return None
    source, target = map(len, document.parts)
    ratio = source / max(1, target)
    if max(source, target) < 4 * MIN_PAIR or PAIR_RATIO[0] <= ratio <= PAIR_RATIO[1]:
        return None
    return f"{source} characters of English to {target} of Chinese"


def untranslated(document: Document, limits: Limits) -> str | None:
    """The Chinese side of a translation is not Chinese, or the English side is not English."""
    if document.form != "translation":
        return None
    source, target = (statistics.sums(part) for part in document.parts)
    if target[3] >= MIN_PAIR and target[0] < MIN_PAIR_HAN * target[3]:
        return f"{target[0]} of {target[3]} characters of the Chinese side are Han"
    if source[3] >= MIN_PAIR and source[0] > 0.5 * source[3]:
        return f"{source[0]} of {source[3]} characters of the English side are Han"
    return None


Rule = Callable[[Document, Limits], str | None]
RULES: tuple[Rule, ...] = (
    empty, too_short, broken_encoding, repeated_characters, repeated_spans, repeated_lines, mostly_signs, little_han,
    advert, stub, echo, unlike_pair, untranslated,
)  # fmt: skip
QUALITY = tuple(rule.__name__ for rule in RULES[1:])
"""Rules that can be switched off."""


def judge(document: Document, limits: Limits, rules: Sequence[Rule] = RULES) -> tuple[str, str] | None:
    """The first rule that drops the document, as (reason, detail), or None when it is kept."""
    for rule in rules:
        if rule.__name__ not in limits.off:
            detail = rule(document, limits)
            if detail is not None:
                return rule.__name__, detail
    return None


def judge_all(documents: Sequence[Document], limits: Limits) -> list[tuple[str, str] | None]:
    """`judge` for many documents of one form with as many parts, at the price of the few that need a second look."""
    verdicts: list[tuple[str, str] | None] = [None] * len(documents)
    if documents:
        suspected = _suspects(documents, limits)
        for index in np.flatnonzero(suspected).tolist():
            called = int(suspected[index])
            rules = [rule for position, rule in enumerate(RULES) if called >> position & 1]
            verdicts[index] = judge(documents[index], limits, rules)
    return verdicts


def swapped(sides: Sequence[str]) -> list[int]:
    """Which translations stand the wrong way round, by the position of their first side.

    Args:
        sides: source and target of one translation after another. The wrong way round is a source that is mostly Han
            with a target that has letters and not one Han.

    """
    firsts = [at for at in range(0, len(sides), 2) if not sides[at].isascii()]  # others have no Han
    if not firsts:
        return []
    looked = _survey([side for at in firsts for side in sides[at : at + 2]])
    han, visible = looked.han, looked.visible
    letters = visible - han - looked.signs
    wrong = (han[::2] > 0.5 * visible[::2]) & (han[1::2] == 0) & (letters[1::2] > 0)
    wrong &= np.minimum(visible[::2], visible[1::2]) >= MIN_SIDE
    return [firsts[index] for index in np.flatnonzero(wrong).tolist()]


# --- looking at all characters at once --------------------------------------------------------------------------


def _suspects(documents: Sequence[Document], limits: Limits) -> np.ndarray:
    """[documents] uint32: which rules may drop a document, as bits by their position in RULES."""
    looked = _survey([document.text for document in documents])
    lengths, form = looked.lengths, documents[0].form
    may: dict[Rule, np.ndarray] = {
        empty: lengths <= np.fromiter((each.prompt_length for each in documents), np.int64, len(documents)),
        too_short: lengths < limits.min_length,
        broken_encoding: looked.may_be_lost,
        repeated_characters: (lengths >= MIN_REPEATED) & (looked.runs > MAX_RUNS * lengths),
        repeated_spans: _may_repeat_spans(looked, form),
        repeated_lines: looked.may_repeat_lines,
        mostly_signs: looked.signs > MAX_SIGNS * looked.visible,
        little_han: looked.han < limits.min_han * np.maximum(1, looked.visible),
    }
    if limits.adverts:
        may[advert] = looked.begun >= MIN_ADVERT
    if form == "translation":
        may[untranslated] = may[unlike_pair] = _unlike_sides(documents, looked.han)
    elif form == "article":
        may[stub] = np.fromiter(map(_may_be_stub, documents), np.bool_, len(documents))
    else:
        may[echo] = _may_echo(documents)
    bits = np.zeros(len(documents), dtype=np.uint32)
    for rule, which in may.items():
        bits |= which.astype(np.uint32) << np.uint32(RULES.index(rule))
    return bits


def _unlike_sides(documents: Sequence[Document], han: np.ndarray) -> np.ndarray:
    """[documents] bool: which translations a rule that compares the two sides may drop.

    Args:
        documents: the translations.
        han: [documents] int64: Han of each, which are the target's where the source is nothing but ASCII.

    """
    lengths = _lengths_of_parts(documents)
    ratio = lengths[:, 0] / np.maximum(1, lengths[:, 1])
    odd = (ratio < PAIR_RATIO[0]) | (ratio > PAIR_RATIO[1]) | (han < MIN_PAIR_HAN * lengths[:, 1])
    mixed = [index for index, each in enumerate(documents) if not each.parts[0].isascii()]
    if mixed:
        looked = _survey([part for index in mixed for part in documents[index].parts])
        odd[mixed] |= looked.han[::2] > 0.5 * looked.visible[::2]
        odd[mixed] |= looked.han[1::2] < MIN_PAIR_HAN * looked.visible[1::2]
    return np.asarray(odd)


def _lengths_of_parts(documents: Sequence[Document]) -> np.ndarray:
    """[documents, parts] int64: characters of the parts."""
    lengths = map(len, chain.from_iterable([document.parts for document in documents]))
    return np.fromiter(lengths, np.int64).reshape(len(documents), -1)


def _may_repeat_spans(looked: statistics.Survey, form: str) -> np.ndarray:
    """[texts] bool: which texts may have too many repeated spans; a short translation is not asked."""
    least = statistics.SAMPLED_CHARACTERS if form == "translation" else MIN_REPEATED
    return np.asarray(looked.may_repeat_spans & (looked.lengths >= least))


def _survey(texts: Sequence[str]) -> statistics.Survey:
    return statistics.survey(texts, _asked())


@functools.cache
def _asked() -> statistics.Asked:
    """What the rules want to know; a phrase of an advertisement is told by its first two characters."""
    beginnings = np.zeros(1 << 16, dtype=np.bool_)
    beginnings[[statistics.pair_hashes(codes_of(phrase[:2]))[0] >> np.uint32(16) for phrase in _ADVERT]] = True
    return statistics.Asked(
        span=SPAN,
        spans_share=MAX_REPEATED_SPANS,
        fewest_lines=MIN_LINES,
        lines_share=MAX_REPEATED_LINES,
        beginnings=beginnings,
        longest=LONGEST_ADVERT,
    )


def _may_be_stub(document: Document) -> bool:
    """Whether an article has next to nothing below its title."""
    return len(document.parts) > 1 and len(_below_title(document.parts)) < MIN_BODY


def _may_echo(documents: Sequence[Document]) -> np.ndarray:
    """[documents] bool: which answers may be an echo: about as long as a part of the question, or as all of it, and of
    the same first letter.
    """
    lengths = _lengths_of_parts(documents)
    questions, answers = lengths[:, :-1], lengths[:, -1:]
    near = np.abs(np.column_stack((questions, questions.sum(axis=1))) - answers) <= _ECHO_LENGTH
    may = np.zeros(len(documents), dtype=np.bool_)
    for index in np.flatnonzero(near.any(axis=1)).tolist():
        parts = documents[index].parts
        may[index] = _first_letter(parts[-1]) in map(_first_letter, _alike(parts))
    return may


def _below_title(parts: Sequence[str]) -> str:
    """An article's body without its title, which may stand there once more."""
    return parts[-1].removeprefix(parts[0]).strip()


def _alike(parts: Sequence[str]) -> list[str]:
    """The parts of a question, or all of it, that are about as long as its answer."""
    *questions, answer = parts
    if len(answer) > sum(map(len, questions)) + _ECHO_LENGTH:
        return []
    low, high = len(answer) - _ECHO_LENGTH, len(answer) + _ECHO_LENGTH
    found = [part for part in questions if low <= len(part) <= high]
    return [*found, "".join(questions)] if low <= sum(map(len, questions)) <= high else found


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _first_letter(text: str) -> str:
    return next(filter(str.isalnum, text), "").casefold()[:1]  # of `ß`, which is `ss`, too


def _over(count: int, of: int, limit: float, what: str) -> str | None:
    return f"{count:,} of {of:,} {what}" if count > limit * of else None
