"""Filter rules: why a document is dropped.

In: documents with the parts they were made of. Out: for each the reason to drop it, or None.
A rule is a pure function under `@filter_rule`, which also takes its vectorized pre-check; rules apply in the order of
this file. The function's name is the reason: the counter in the ledger and the label in `rejected/`.
Lengths are characters, shares are of the non-blank characters. No rule looks for words.
Invariant: `judge_all` gives what `judge` gives for each document: a pre-check may suspect too many, never too few.
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
"""Largest share of characters that repeat the one before."""
MAX_REPEATED_SPANS = 0.7
"""Largest share of spans of SPAN characters that occurred before in the same document."""
MAX_REPEATED_LINES = 0.5
"""Largest share of characters in lines that occurred before in the same document."""
MAX_BROKEN = 0.01
"""Largest share of characters that a lost encoding leaves."""
MAX_MOJIBAKE_HAN = 0.05
"""Largest share of `mojibake.mojibake_han()`; old poems have a few."""
MIN_MOJIBAKE_HAN = 4
"""Fewest different ones; a post may well say 囧囧囧囧."""
MAX_ADVERT = 0.02
"""Most different advertising phrases a character, from MIN_ADVERT such phrases on."""
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
"""Smallest and largest plausible number of English characters a Chinese one, from MIN_PAIR characters on."""
MIN_PAIR = 8
_LATIN_HAN = 0.1
"""Share of Han below which `Limits.latin_span` is the span."""
_ECHO_LENGTH = 8
"""Largest difference in length between a question and an answer that repeats it."""

_BROKEN = re.compile("\ufffd|锟斤拷|锟斤|斤拷|烫烫烫|屯屯屯|ï¿½|â€|Ã[\u0080-\u00bf]")
_MOJIBAKE_HAN = re.compile(f"[{mojibake.mojibake_han()}]")
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
    """Limits of a dataset's documents."""

    min_length: int
    """Fewest characters of a whole document."""
    min_han: float = 0.0
    """Smallest share of Han."""
    adverts: bool = False
    """Whether to look for documents that mostly advertise."""
    latin_span: int = 0
    """Characters of a span in text of which less than a tenth is Han; SPAN as everywhere when 0."""
    off: frozenset[str] = frozenset()
    """Rules that are switched off."""


class Document(NamedTuple):
    """A document before it is kept."""

    text: str
    prompt_length: int
    """Leading characters of `text` that are the question or the source side."""
    form: str
    """The shape of its record: `article`, `question`, `translation` or `chat`."""
    parts: Sequence[str]
    """The cleaned fields that make up the text, in the order of their form."""


as_document: Callable[[tuple[str, int, str, Sequence[str]]], Document] = functools.partial(tuple.__new__, Document)
"""`Document._make` without a Python frame a document."""


@dataclass(frozen=True)
class Batch:
    """Documents of one form, for the pre-checks; but for conversations they have as many parts."""

    documents: Sequence[Document]
    limits: Limits

    @functools.cached_property
    def survey(self) -> statistics.Survey:
        """The character counts of the texts."""
        return survey_of([document.text for document in self.documents])

    @functools.cached_property
    def part_lengths(self) -> np.ndarray:
        """[documents, parts] int64: characters of the parts."""
        lengths = map(len, chain.from_iterable([document.parts for document in self.documents]))
        return np.fromiter(lengths, np.int64).reshape(len(self.documents), -1)

    @functools.cached_property
    def unlike_sides(self) -> np.ndarray:
        """[documents] bool: which translations a rule that compares the two sides may drop."""
        lengths = self.part_lengths
        ratio = lengths[:, 0] / np.maximum(1, lengths[:, 1])
        # where the source is ASCII all Han are the target's
        odd = (ratio < PAIR_RATIO[0]) | (ratio > PAIR_RATIO[1]) | (self.survey.han < MIN_PAIR_HAN * lengths[:, 1])
        mixed = [index for index, each in enumerate(self.documents) if not each.parts[0].isascii()]
        if mixed:
            sides = survey_of([part for index in mixed for part in self.documents[index].parts])
            odd[mixed] |= sides.han[::2] > 0.5 * sides.visible[::2]
            odd[mixed] |= sides.han[1::2] < MIN_PAIR_HAN * sides.visible[1::2]
        return np.asarray(odd)


Judge = Callable[[Document, Limits], str | None]
PreCheck = Callable[[Batch], np.ndarray]
FORMS = ("article", "question", "translation", "chat", "ranking")


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterRule:
    """A filter rule and its pre-check."""

    name: str
    """The reason in the ledger and in `rejected/`."""
    judge: Judge
    """Why a document is dropped, or None; called on documents of `forms`."""
    suspects: PreCheck | None
    """[documents] bool: all that `judge` may drop, and few others; None to judge all."""
    forms: tuple[str, ...]


_registered: list[FilterRule] = []


def filter_rule(suspects: PreCheck | None = None, forms: tuple[str, ...] = FORMS) -> Callable[[Judge], FilterRule]:
    """Register a function as the next filter rule, under its own name."""

    def register(judge: Judge) -> FilterRule:
        _registered.append(FilterRule(name=judge.__name__, judge=judge, suspects=suspects, forms=forms))
        return _registered[-1]

    return register


@filter_rule(lambda batch: batch.survey.lengths <= np.array([each.prompt_length for each in batch.documents]))
def empty(document: Document, limits: Limits) -> str | None:
    """There is no text, or a question without an answer."""
    left = len(document.text) > document.prompt_length
    return None if left else "nothing is left after the question or source side"


@filter_rule(lambda batch: batch.survey.lengths < batch.limits.min_length)
def too_short(document: Document, limits: Limits) -> str | None:
    """Fewer characters than the dataset's minimum."""
    length = len(document.text)
    return f"{length} of at least {limits.min_length} characters" if length < limits.min_length else None


@filter_rule(lambda batch: batch.survey.may_be_lost)
def broken_encoding(document: Document, limits: Limits) -> str | None:
    """Replacement characters, `锟斤拷`, `烫烫烫` and UTF-8 read as GBK are more than a mention."""
    length = len(document.text)
    broken = sum(len(match[0]) for match in _BROKEN.finditer(document.text))
    mojibake_han = _MOJIBAKE_HAN.findall(document.text)
    if len(set(mojibake_han)) >= MIN_MOJIBAKE_HAN and len(mojibake_han) > MAX_MOJIBAKE_HAN * length:
        broken += len(mojibake_han)
    return _over(broken, length, MAX_BROKEN, "characters of a lost encoding") if broken > 1 else None


@filter_rule(
    lambda batch: (batch.survey.lengths >= MIN_REPEATED) & (batch.survey.runs > MAX_RUNS * batch.survey.lengths)
)
def repeated_characters(document: Document, limits: Limits) -> str | None:
    """Most characters repeat the one before."""
    length = len(document.text)
    if length < MIN_REPEATED:
        return None
    return _over(statistics.runs(document.text), length, MAX_RUNS, "characters repeat the one before")


@filter_rule(lambda batch: _may_repeat_spans(batch.survey, batch.documents[0].form))
def repeated_spans(document: Document, limits: Limits) -> str | None:
    """Most spans of six characters occurred before: the same phrase over and over.

    A long text is first judged by a sixteenth of its spans, those with certain hashes. A translation, in which English
    letters repeat themselves, is judged only if it is long. With `latin_span` longer spans count in English text, whose
    spans of six letters repeat themselves in any long text.
    """
    text = document.text
    spans = len(text) - SPAN + 1
    if statistics.count_repeated_spans(text, SPAN) <= MAX_REPEATED_SPANS * spans:
        return None
    if not _may_repeat_spans(survey_of([text]), document.form)[0]:
        return None
    span = SPAN
    if limits.latin_span:
        han, _, _, visible = statistics.sums(text)
        span = limits.latin_span if han < _LATIN_HAN * visible else SPAN
    spans = max(1, len(text) - span + 1)
    again = spans - len({text[start : start + span] for start in range(spans)})
    return _over(again, spans, MAX_REPEATED_SPANS, "spans stood before")


@filter_rule(lambda batch: batch.survey.may_repeat_lines)
def repeated_lines(document: Document, limits: Limits) -> str | None:
    """Most of the text is in lines that occurred before."""
    if document.text.count("\n") < MIN_LINES - 1:
        return None
    lines = document.text.split("\n")
    total = sum(map(len, lines))
    return _over(total - sum(map(len, set(lines))), total, MAX_REPEATED_LINES, "characters in repeated lines")


@filter_rule(lambda batch: batch.survey.signs > MAX_SIGNS * batch.survey.visible)
def mostly_signs(document: Document, limits: Limits) -> str | None:
    """Digits, punctuation and symbols outweigh words: a table, a list of numbers, a rule of dashes."""
    _, digits, signs, visible = statistics.sums(document.text)
    return _over(digits + signs, visible, MAX_SIGNS, "digits and symbols") if visible >= MIN_REPEATED else None


@filter_rule(
    lambda batch: batch.survey.han < batch.limits.min_han * np.maximum(1, batch.survey.visible),
    forms=("article", "question", "chat"),
)
def little_han(document: Document, limits: Limits) -> str | None:
    """Too few Han for the dataset: another language, or code without a word about it."""
    han, _, _, visible = statistics.sums(document.text)
    share = han / max(1, visible)
    return f"{share:.2f} of at least {limits.min_han:.2f} are Han" if share < limits.min_han else None


@filter_rule(lambda batch: (batch.survey.phrase_starts >= MIN_ADVERT) & batch.limits.adverts)
def advert(document: Document, limits: Limits) -> str | None:
    """Several different advertising phrases in a short text."""
    if not limits.adverts or len(document.text) > LONGEST_ADVERT:
        return None
    found = [phrase for phrase in _ADVERT if phrase in document.text]
    if len(found) < MIN_ADVERT or len(found) <= MAX_ADVERT * len(document.text):
        return None
    return f"{len(found)} phrases in {len(document.text)} characters: {'、'.join(found[:5])}"


def _stub_suspects(batch: Batch) -> np.ndarray:
    short = (len(each.parts) > 1 and len(_below_title(each.parts)) < MIN_BODY for each in batch.documents)
    return np.fromiter(short, np.bool_, len(batch.documents))


@filter_rule(_stub_suspects, forms=("article",))
def stub(document: Document, limits: Limits) -> str | None:
    """An article with next to nothing below its title."""
    if len(document.parts) < 2 or not document.parts[0]:
        return None
    body = _below_title(document.parts)
    return f"{len(body)} of at least {MIN_BODY} characters below the title" if len(body) < MIN_BODY else None


def _echo_suspects(batch: Batch) -> np.ndarray:
    """Answers about as long as a part of the question, or as all of it, with the same first letter."""
    questions, answers = batch.part_lengths[:, :-1], batch.part_lengths[:, -1:]
    near = np.abs(np.column_stack((questions, questions.sum(axis=1))) - answers) <= _ECHO_LENGTH
    may = np.zeros(len(batch.documents), dtype=np.bool_)
    for index in np.flatnonzero(near.any(axis=1)).tolist():
        parts = batch.documents[index].parts
        may[index] = _first_letter(parts[-1]) in map(_first_letter, _alike(parts))
    return may


@filter_rule(_echo_suspects, forms=("question",))
def echo(document: Document, limits: Limits) -> str | None:
    """The answer repeats the question, but for punctuation and case."""
    answer = _letters(document.parts[-1])
    return "the answer is the question" if answer and answer in map(_letters, _alike(document.parts)) else None


@filter_rule(lambda batch: batch.unlike_sides, forms=("translation",))
def unlike_pair(document: Document, limits: Limits) -> str | None:
    """The two sides of a translation differ too much in length to say the same."""
    source, target = map(len, document.parts)
    ratio = source / max(1, target)
    if max(source, target) < 4 * MIN_PAIR or PAIR_RATIO[0] <= ratio <= PAIR_RATIO[1]:
        return None
    return f"{source} characters of English to {target} of Chinese"


@filter_rule(lambda batch: batch.unlike_sides, forms=("translation",))
def untranslated(document: Document, limits: Limits) -> str | None:
    """The Chinese side of a translation is not Chinese, or the English side is not English."""
    source, target = (statistics.sums(part) for part in document.parts)
    if target[3] >= MIN_PAIR and target[0] < MIN_PAIR_HAN * target[3]:
        return f"{target[0]} of {target[3]} characters of the Chinese side are Han"
    if source[3] >= MIN_PAIR and source[0] > 0.5 * source[3]:
        return f"{source[0]} of {source[3]} characters of the English side are Han"
    return None


RULES = tuple(_registered)
QUALITY = tuple(rule.name for rule in RULES[1:])
"""Rules that can be switched off: all but `empty`."""


def judge(document: Document, limits: Limits, rules: Sequence[FilterRule] = RULES) -> tuple[str, str] | None:
    """The first rule that drops the document, as (reason, detail), or None when it is kept."""
    for rule in rules:
        if document.form in rule.forms and rule.name not in limits.off:
            detail = rule.judge(document, limits)
            if detail is not None:
                return rule.name, detail
    return None


def judge_all(documents: Sequence[Document], limits: Limits) -> list[tuple[str, str] | None]:
    """`judge` for many documents of one form, as `Batch` says; each rule judges only those it suspects."""
    batch = Batch(documents, limits)
    suspected: dict[int, list[FilterRule]] = {}
    for rule in RULES if documents else ():
        if documents[0].form in rule.forms:
            suspects = np.flatnonzero(rule.suspects(batch)).tolist() if rule.suspects else range(len(documents))
            for index in suspects:
                suspected.setdefault(index, []).append(rule)
    verdicts: list[tuple[str, str] | None] = [None] * len(documents)
    for index, rules in suspected.items():
        verdicts[index] = judge(documents[index], limits, rules)
    return verdicts


def _may_repeat_spans(survey: statistics.Survey, form: str) -> np.ndarray:
    """[texts] bool: which texts may have too many repeated spans; a short translation never has."""
    least = statistics.SAMPLED_CHARACTERS if form == "translation" else MIN_REPEATED
    return np.asarray(survey.may_repeat_spans & (survey.lengths >= least))


def survey_of(texts: Sequence[str]) -> statistics.Survey:
    """The character counts of texts, with those that the pre-checks need."""
    return statistics.survey(texts, _SURVEY)


_BEGINNINGS = np.zeros(1 << 16, dtype=np.bool_)  # an advertising phrase is found by its first two characters
_BEGINNINGS[[statistics.pair_hashes(codes_of(phrase[:2]))[0] >> np.uint32(16) for phrase in _ADVERT]] = True
_SURVEY = statistics.SurveySettings(
    span=SPAN,
    spans_share=MAX_REPEATED_SPANS,
    fewest_lines=MIN_LINES,
    lines_share=MAX_REPEATED_LINES,
    beginnings=_BEGINNINGS,
    longest=LONGEST_ADVERT,
)


def _below_title(parts: Sequence[str]) -> str:
    """An article's body without its title, which it may repeat."""
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
