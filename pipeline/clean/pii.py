"""Personal data becomes typed placeholders: `联系我：[手机号]`.

In: cleaned texts. Out: the same texts with numbers and addresses of persons replaced, and the replacements by kind.
Invariants: mask(mask(x)) == mask(x); a text's result does not depend on its neighbours; the rest of a text stays
unchanged. Precision before recall: what may be an order number, a version or a manual's sample stays.
Cost: one table lookup a character finds candidate positions for a whole batch at once. Each candidate reads a bounded
number of characters, so the total is linear in any input.

Why masking is idempotent: the characters allowed between a word and its number are listed, or include neither digits
nor square brackets; a sign through which a neighbour's digits forbid a match also forbids the neighbour's match, or a
bracket there forbids it like a digit; and no placeholder is longer than what it replaces.
"""

from __future__ import annotations

import functools
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean.pii_recognizers import KINDS, PLACEHOLDERS, RECOGNIZERS, Hit, email, ip_address, wechat
from corpus.pipeline.text.codepoints import SEAM, codes_of

_PAD = 8  # seams around a batch, so that lookarounds stay within it

_ALNUM, _BLANK, _WORD_BEGIN, _DIGIT, _DOT, _COLON, _AT, _WORD_END = (1 << bit for bit in range(8))
_CLASSES = {  # from _DIGIT on they are rare enough to be tried one by one
    _ALNUM: string.digits + string.ascii_letters,
    _BLANK: " -",
    _WORD_BEGIN: "微薇威徽vVwW",
    _DIGIT: string.digits,
    _DOT: ".",
    _COLON: ":",
    _AT: "@＠#",
    _WORD_END: "信xX",
}
_WECHAT_ENDS = ("echat", "eChat", "ECHAT")
"""How `wechat` ends, as it is written; a search for strings costs less than another class of characters."""
_NEVER_BEFORE = frozenset(string.ascii_letters + "_.%&#$\\@") - frozenset("LlQqDd")  # Tel, QQ, ID may precede one


def mask(text: str, kinds: Collection[str] = KINDS) -> tuple[str, Counter[str]]:
    """Mask one text; returns it with its replacements by kind.

    >>> mask("请发到 lin.xiaohe@foxmail.com，谢谢")
    ('请发到 [邮箱]，谢谢', Counter({'email': 1}))
    """
    (masked,), counts = mask_all([text], kinds)
    return masked, counts


def mask_all(texts: Sequence[str], kinds: Collection[str] = KINDS) -> tuple[list[str], Counter[str]]:
    """`mask` for many texts at once."""
    masked = list(texts)
    counts: Counter[str] = Counter()
    pad = SEAM * (_PAD - 1)
    joined = SEAM.join([pad, *texts, pad])
    hits = _find(joined, frozenset(kinds))
    starts = list(accumulate([len(text) + 1 for text in texts], initial=_PAD)) if hits else []
    for index, own in groupby(hits, lambda hit: bisect_right(starts, hit.start) - 1):
        pieces: list[str] = []
        last = starts[index]
        for hit in own:
            pieces += joined[last : hit.start], PLACEHOLDERS[hit.kind]
            last = hit.end
            counts[hit.kind] += 1
        masked[index] = "".join(pieces) + joined[last : starts[index + 1] - 1]
    return masked, counts


def _find(text: str, kinds: frozenset[str]) -> list[Hit]:
    """Non-overlapping hits in order. Kinds that may contain letters or dots precede the numbers in them."""
    numbers, ats, words, addresses = (places.tolist() for places in _candidates(text))
    hits: list[Hit] = []
    if "wechat" in kinds:
        words = sorted([*words, *(at + len(end) - 1 for end in _WECHAT_ENDS for at in _found(text, end))])
    for kind, places, recognize in (
        ("email", ats, email),
        ("wechat", words, wechat),
        ("ip_address", addresses, ip_address),
    ):
        if kind in kinds:
            hits = _with(hits, (recognize(text, spot) for spot in places))
    return sorted(hits + _numbers(text, numbers, kinds, hits))


def _found(text: str, part: str) -> Iterator[int]:
    """Where a part begins in a text."""
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _candidates(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions where a pattern may match, each in order.

    Returns:
        First digits of runs of five or more, or of four before a blank or hyphen and four more; signs between a mailbox
        and its domain; last characters of words for WeChat; first dots of four numbers and first colons of four groups.

    """
    if kernels.compiled:
        numbers, ats, words, addresses = (
            np.frombuffer(places, dtype=np.int64) for places in kernels.compiled.spots(text, _table())
        )
        return numbers, ats, words, np.unique(addresses)
    codes = codes_of(text)
    marks = _table().take(codes)
    places = np.flatnonzero(marks >= _DIGIT)
    found = marks[places]

    def are(mark: int) -> np.ndarray:
        return np.asarray(places[(found & mark) != 0])

    def beside(places: np.ndarray, mark: int, *steps: int) -> np.ndarray:
        for step in steps:
            places = places[(marks[places + step] & mark) != 0]
        return places

    dots = _rows(beside(are(_DOT), _DIGIT, -1, 1), 4)
    return (
        _first_digits(are(_DIGIT), (marks & _BLANK) != 0),
        beside(are(_AT), _ALNUM, -1, 1),
        beside(are(_WORD_END), _WORD_BEGIN, -1),
        np.union1d(dots, _rows(are(_COLON), 5)),
    )


def _first_digits(digits: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Of all digits those that begin a candidate number."""
    firsts = np.flatnonzero(np.diff(digits, prepend=-1) > 1)
    begins, lengths = digits[firsts], np.diff(firsts, append=len(digits))
    ends = begins + lengths
    next_begins, next_lengths = np.append(begins[1:], 0), np.append(lengths[1:], 0)
    grouped = (lengths == 4) & (next_lengths > 3) & (next_begins == ends + 1) & blank[ends]
    return np.asarray(begins[(lengths > 4) | grouped])


def _rows(places: np.ndarray, apart: int) -> np.ndarray:
    """The first of every three places with gaps of at most `apart`."""
    near = np.diff(places) <= apart
    return np.asarray(places[: len(near)][near & np.append(near[1:], False)])


@functools.cache
def _table() -> np.ndarray:
    """[0x110000] uint8: the classes of every character."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for mark, characters in _CLASSES.items():
        table[[ord(character) for character in characters]] |= mark
    return table


def _is_free(hit: Hit, hits: Sequence[Hit]) -> bool:
    """Whether a hit overlaps none of a sorted, non-overlapping list."""
    after = bisect_right(hits, hit.start, key=attrgetter("end"))
    return after == len(hits) or hit.end <= hits[after].start


def _with(hits: Sequence[Hit], found: Iterable[Hit | None]) -> list[Hit]:
    """The hits and those found that overlap neither them nor each other, in order."""
    added: list[Hit] = []
    for hit in found:
        if hit and (not added or hit.start >= added[-1].end) and _is_free(hit, hits):
            added.append(hit)
    return sorted([*hits, *added])


def _numbers(text: str, spots: Iterable[int], kinds: frozenset[str], others: Sequence[Hit]) -> list[Hit]:
    """Numbers of every kind that overlap no other hit; at each position the first kind that matches."""
    recognizers = [recognize for kind, recognize in RECOGNIZERS.items() if kind in kinds]
    hits: list[Hit] = []
    last = Hit(0, 0, "")
    for spot in spots:
        if spot < last.end or text[spot - 1] in _NEVER_BEFORE:
            continue
        for recognize in recognizers:
            hit = recognize(text, spot, last)
            if hit and hit.start >= last.end and _is_free(hit, others):
                hits.append(hit)
                last = hit
                break
    return hits
