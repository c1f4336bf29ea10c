"""Personal data becomes typed placeholders: `联系我：[手机号]`.

In: cleaned texts. Out: the same texts with the numbers and addresses of persons replaced, and which kind was in which.
Invariants: mask(mask(x)) == mask(x); a text's result does not depend on its neighbours; all that is not replaced stays
as it was. Precision goes first: what may as well be an order number, a version or a manual's sample stays.
Cost: one table lookup a character finds the few spots where a pattern is worth a try, for a whole batch at once. A try
reads a bounded number of characters, so the whole is linear in the length of its input, whatever the input.

Why a second pass finds nothing new: what may stand between a word and its number is listed, or holds neither digits
nor square brackets; a sign through which a neighbour's digits forbid a match forbids the neighbour's match as well, or
else a bracket there forbids it like a digit; and no placeholder is longer than what it replaces.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import NamedTuple

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.text.normalize import codes_of

PLACEHOLDERS = {
    "mobile_number": "[手机号]",
    "resident_id": "[身份证号]",
    "bank_card": "[银行卡号]",
    "email": "[邮箱]",
    "qq": "[QQ号]",
    "wechat": "[微信号]",
    "ip_address": "[IP地址]",
}
KINDS = tuple(PLACEHOLDERS)

_SEAM = "\x1e"  # ends a text, as in the cleaning rules, which let none through
_PAD = 8  # seams around a batch, so that no look at a neighbour leaves it

_ALNUM, _BLANK, _WORD_BEGIN, _DIGIT, _DOT, _COLON, _AT, _WORD_END = (1 << bit for bit in range(8))
_CLASSES = {  # from _DIGIT on they are rare enough to be looked at one by one
    _ALNUM: string.digits + string.ascii_letters,
    _BLANK: " -",
    _WORD_BEGIN: "微薇威徽vVwW",
    _DIGIT: string.digits,
    _DOT: ".",
    _COLON: ":",
    _AT: "@＠#",
    _WORD_END: "信xX",
}

_pattern = functools.partial(re.compile, flags=re.ASCII)
_PLACED = "|".join(map(re.escape, PLACEHOLDERS.values()))
_FRESH = r"(?<![号箱址]\])"  # not right behind a placeholder, which hides what stood there
_NEXT = r"(?=(?i:tel|qq|e-?mail|fax|msn|vx|wx|http|www))"  # pages that lost their blanks go on with one of these
_LEFT = rf"(?<![0-9A-Za-z_./\\=%&#$￥¥€£@+])(?<![0-9A-Za-z\]]-){_FRESH}"
_RIGHT = rf"(?:{_NEXT}|(?![0-9A-Za-z_@%]|[.-]\d))"
_PATH = r"/(?![A-Za-z0-9._%+-]{1,64}[@＠#])[A-Za-z]"  # a slash before a mailbox parts two of them
_LINK = r"[ :：是为=（(]{0,4}\Z"

_NEVER_BEFORE = frozenset(string.ascii_letters + "_.%&#$\\@") - frozenset("LlQqDd")  # Tel, QQ and ID may stand there
_STARTS = _pattern(rf"{_LEFT}|(?<=[Tt][Ee][Ll])|(?<=[Qq][Qq])")
_STARTS_APART = _pattern(rf"{_LEFT}(?<![\d\]][ -])")  # what is grouped is no part of a longer row of groups
_ENDS_APART = _pattern(r"(?![ -]?[\d\[])")

_MOBILE = _pattern(
    r"(?:0|(?:00)?86)?1(?:3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"  # as the ministry has given them out
    rf"(?:\d{{8}}|([ -])\d{{4}}\1\d{{4}}){_RIGHT}(?! ?(?:元|万|亿|美元|人民币|人次|吨))"
)
_COUNTRY = _pattern(r"[(（]?(?:\+|00)?86[)）]?[ -]?\Z")
_LANDLINE = _pattern(r"(?<![0-9A-Za-z_./=&%-])(?:[(（]?0\d{2,3}[)）]?[ -]?)?\d{7,8}/\Z")
_OTHER_NUMBER = _pattern(r"(?:[单编货批学工案证文期]|流水|条码|型|序列)号码?[ :：是为]{0,3}\Z|ISBN[ :：]?\Z")
_SERVICE_NUMBER = "13800138000"  # China Mobile's own, the sample number of manuals

_RESIDENT = _pattern(rf"(\d{{6}})([ -]?)((?:19|20)\d{{6}})\2(\d{{3}}[\dXx]){_RIGHT}")
_RESIDENT_OLD = _pattern(rf"(\d{{6}})()(\d{{6}})(\d{{3}}){_RIGHT}")
_RESIDENT_BEFORE = _pattern(rf"身份证(?:号码?|件?号)?{_LINK}")
_PROVINCES = _pattern(r"1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")  # GB/T 2260

_CARD = _pattern(
    rf"(?:\d{{15,19}}|\d{{4}}([ -])\d{{4}}\1\d{{4}}\1\d{{4}}(?:\1\d{{1,3}})?|\d{{6}}( )\d{{10,13}}){_RIGHT}"
)
_ISSUERS = _pattern(r"3[47]\d{13}\Z|(?:4\d|5[1-5]|6\d|3[56]|2[2-7]|95(?=58))\d{14,17}\Z")
_BANK_BEFORE = _pattern(
    r"(?:卡号|银行|[账帐][号户]|户名|开户|汇款|打款|转[账帐]|信用[卡社]|借记卡|储蓄|收款|[工农建中招交]行|邮政)"
    rf"[^\d\[\]@\n{_SEAM}]{{0,16}}\Z"
)

_ACCOUNT = _pattern(rf"[1-9]\d{{4,10}}{_RIGHT}(?! ?[元万亿块人个名条次])")
_LEADS = frozenset(" :：是为=（(Qq扣号群码吧呀哦讨论交流咨询客服在线联系聊同信Dd")  # ends of the next patterns
_QQ_BEFORE = _pattern(
    rf"(?:(?<![A-Za-z_]){_FRESH}[Qq][Qq]|扣扣|[扣叩][Qq]|(?:加|(?<![A-Za-z])[Qq])群|群号码?|企鹅[号群]|[加＋+][Qq]"
    rf"|(?<![0-9A-Za-z_]){_FRESH}[Qq扣](?=[:：]))"
    rf"(?:/?微信|同号|号码?|[账帐]号|群|交流|讨论|咨询|客服|在线|联系|聊|吧|呀|哦){{0,3}}{_LINK}"
)
_QQ_NEXT = _pattern(r" ?[、/或和；;] ?")
_WECHAT_BEFORE = _pattern(rf"(?<!公众)(?<!官方)[微薇威徽]信(?:同?号码?|[Ii][Dd])?{_LINK}")
_WECHAT = _pattern(
    rf"(?P<word>(?<!公众)(?<!官方)[微薇威徽]信|(?<![A-Za-z_./-]){_FRESH}(?:[vV]信|[vVwW][xX]))"
    r"(?:号码?|[Ii][Dd]|[账帐]号)?(?P<link>[ :：是为（(“\"'`]{0,4})"
    r"(?!(?i:iphone|ipad|android|windows|ios|openid|unionid|appid|weixin|wechat|http|www|sdk|js|web|oauth|html|github))"
    r"(?P<name>[A-Za-z][-_A-Za-z0-9]{4,18}[_A-Za-z0-9])"
    rf"(?!-*+(?:[_A-Za-z0-9]|{_PLACED})|[@$(]|\.[A-Za-z0-9]|/\d|{_PATH}|:[!-~])"
)

_LOCAL = _pattern(r"[A-Za-z0-9._%+-]*")
_DOMAIN = _pattern(
    r"(?P<domain>(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,5}(?i:com|net|org|edu|gov|info|biz|name|xyz|top|vip|club|tech"
    r"|site|(?!(?:js|ts|py|sh|md|rs|so|vb)(?![A-Za-z]))[a-z]{2}))"  # files and packages have no mailbox
    rf"(?:{_NEXT}|(?![A-Za-z0-9@_$]|{_PLACED}|[.+%_-]++[A-Za-z0-9@\[]|{_PATH}|:[!-~]))"
)
_PROVIDER = _pattern(
    r"(?i:(?:vip\.)?qq|foxmail|163|126|yeah|gmail|sina|sohu|hotmail|outlook|139|189|aliyun)\.(?i:com|cn|net|com\.cn)\Z"
)
_SAMPLE_NAME = _pattern(
    r"(?i:git|hg|svn|root|user(?:name)?|name|pass(?:word)?|your.*|e?mail|test|foo|bar|someone|you|nobody|x+|no-?reply)\Z"
)
_SAMPLE_DOMAIN = _pattern(  # RFC 2606, and what exercises and manuals write in its place
    r"(?i)(?:.*\.)?(?:example\..+|(?:(?:my|your|this)?(?:domain|company|site)|test|xx+|abc|foo|bar|e?mail|.)\.[a-z]+)\Z"
)
_NOT_A_MAILBOX = _pattern(  # a path or password in an address, a login
    rf"(?://(?:(?:{_PLACED}|[!-~]){{0,56}}[/:])?|[号箱址]\]"
    rf"|(?<![A-Za-z0-9_.@-])(?:ssh|scp|sftp|rsync|clone|ssh-copy-id) [^\n{_SEAM}]{{0,40}})\Z"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = _pattern(rf"(?<![0-9A-Za-z_.-]){_OCTET}(?:\.{_OCTET}){{3}}(?![0-9A-Za-z_]|\.[0-9A-Za-z]|-\d)")
_IPV6 = _pattern(
    r"(?<![0-9A-Za-z_.:-])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){2}[0-9a-fA-F:]{0,24}(?![0-9A-Za-z_:.@%+\[-])"
)
_IP_BEFORE = _pattern(
    r"(?:(?<![A-Za-z])[Ii][Pp](?:[vV][46])?(?: ?地址| ?[Aa]ddress)?|来自|网友|访客|(?<![A-Za-z])inet6?(?: addr)?)"
    r"[ :：是为=（(【“\"'`]{0,4}\Z"
)
_NOT_PERSONAL = [  # listed, since what `ipaddress` takes for global differs between versions of Python
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001:db8::/32", "3fff::/20", "1.2.3.4", "1.2.4.8", "1.0.0.1", "1.1.1.1", "8.8.4.4", "8.8.8.8", "9.9.9.9"),
        *("114.114.114.114", "114.114.115.115", "119.29.29.29", "180.76.76.76", "223.5.5.5", "223.6.6.6"),  # resolvers
        *("208.67.220.220", "208.67.222.222"),
    )
]


@dataclass(slots=True)
class Masked:
    """Texts after masking, in order."""

    texts: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    """How many were replaced, by kind."""
    changed: dict[str, set[int]] = field(default_factory=dict)
    """For each kind the positions of the texts that held it."""


class _Hit(NamedTuple):
    """What is to be replaced."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Spots:
    """Where in a batch a pattern may match, in order."""

    numbers: list[int]
    """First digits of five or more, or of four before a blank or hyphen and four more."""
    ats: list[int]
    """Signs between a mailbox and its domain."""
    words: list[int]
    """Last characters of words for WeChat."""
    addresses: list[int]
    """First dots of four numbers, first colons of four groups."""


def mask(text: str, kinds: Collection[str] = KINDS) -> tuple[str, Counter[str]]:
    """One text, and how many were replaced in it, by kind.

    >>> mask("请发到 lin.xiaohe@foxmail.com，谢谢")
    ('请发到 [邮箱]，谢谢', Counter({'email': 1}))
    """
    masked = mask_all([text], kinds)
    return masked.texts[0], masked.counts


def mask_all(texts: Sequence[str], kinds: Collection[str] = KINDS) -> Masked:
    """Many texts, each as `mask` has it."""
    masked = Masked(list(texts))
    pad = _SEAM * (_PAD - 1)
    joined = _SEAM.join([pad, *texts, pad])
    hits = _find(joined, frozenset(kinds))
    starts = list(accumulate([len(text) + 1 for text in texts], initial=_PAD)) if hits else []
    for index, own in groupby(hits, lambda hit: bisect_right(starts, hit.start) - 1):
        pieces: list[str] = []
        last = starts[index]
        for hit in own:
            pieces += joined[last : hit.start], PLACEHOLDERS[hit.kind]
            last = hit.end
            masked.counts[hit.kind] += 1
            masked.changed.setdefault(hit.kind, set()).add(index)
        masked.texts[index] = "".join(pieces) + joined[last : starts[index + 1] - 1]
    return masked


def _find(text: str, kinds: frozenset[str]) -> list[_Hit]:
    """What is to be replaced, in order and apart. What may hold letters or dots goes before the numbers in it."""
    spots = _spots(text)
    hits: list[_Hit] = []
    for kind, places, recognise in (
        ("email", spots.ats, _email),
        ("wechat", spots.words, _wechat),
        ("ip_address", spots.addresses, _ip_address),
    ):
        if kind in kinds:
            hits = _with(hits, (recognise(text, spot) for spot in places))
    return sorted(hits + _numbers(text, spots.numbers, kinds, _Free(hits)))


def _spots(text: str) -> _Spots:
    if kernels.compiled:
        numbers, ats, words, addresses = (
            np.frombuffer(places, dtype=np.int64) for places in kernels.compiled.spots(text, _table())
        )
        return _Spots(numbers.tolist(), ats.tolist(), words.tolist(), np.unique(addresses).tolist())
    codes = codes_of(text)
    marks = _table().take(codes)
    places = np.flatnonzero(marks >= _DIGIT)
    found = marks[places]

    def are(mark: int) -> np.ndarray:
        chosen: np.ndarray = places[(found & mark) != 0]
        return chosen

    def beside(places: np.ndarray, mark: int, *steps: int) -> np.ndarray:
        for step in steps:
            places = places[(marks[places + step] & mark) != 0]
        return places

    dots = _rows(beside(are(_DOT), _DIGIT, -1, 1), 4)
    return _Spots(
        _first_digits(are(_DIGIT), (marks & _BLANK) != 0).tolist(),
        beside(are(_AT), _ALNUM, -1, 1).tolist(),
        beside(are(_WORD_END), _WORD_BEGIN, -1).tolist(),
        np.union1d(dots, _rows(are(_COLON), 5)).tolist(),
    )


def _first_digits(digits: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Of all digits those that begin a number worth a look."""
    firsts = np.flatnonzero(np.diff(digits, prepend=-1) > 1)
    begins, lengths = digits[firsts], np.diff(firsts, append=len(digits))
    ends = begins + lengths
    next_begins, next_lengths = np.append(begins[1:], 0), np.append(lengths[1:], 0)
    grouped = (lengths == 4) & (next_lengths > 3) & (next_begins == ends + 1) & blank[ends]
    worthy: np.ndarray = begins[(lengths > 4) | grouped]
    return worthy


def _rows(places: np.ndarray, apart: int) -> np.ndarray:
    """The first of every three places that follow each other at most so far apart."""
    near = np.diff(places) <= apart
    firsts: np.ndarray = places[: len(near)][near & np.append(near[1:], False)]
    return firsts


@functools.cache
def _table() -> np.ndarray:
    """[0x110000] uint8: the classes of every character."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for mark, characters in _CLASSES.items():
        table[[ord(character) for character in characters]] |= mark
    return table


class _Free:
    """Tells whether a span touches none of some hits, which are in order and apart."""

    def __init__(self, hits: Sequence[_Hit]) -> None:
        self.hits = hits
        self.ends = [hit.end for hit in hits]

    def __call__(self, hit: _Hit) -> bool:
        after = bisect_right(self.ends, hit.start)
        return after == len(self.hits) or hit.end <= self.hits[after].start


def _with(hits: Sequence[_Hit], found: Iterable[_Hit | None]) -> list[_Hit]:
    """The hits and those found that touch neither one of them nor each other, in order."""
    free = _Free(hits)
    added: list[_Hit] = []
    for hit in found:
        if hit and (not added or hit.start >= added[-1].end) and free(hit):
            added.append(hit)
    return sorted([*hits, *added])


def _numbers(text: str, spots: Iterable[int], kinds: frozenset[str], free: _Free) -> list[_Hit]:
    """Numbers of every kind; at one place the first kind that fits is it."""
    recognisers = [recognise for kind, recognise in _RECOGNISERS.items() if kind in kinds]
    hits: list[_Hit] = []
    last = _Hit(0, 0, "")
    for spot in spots:
        if spot < last.end or text[spot - 1] in _NEVER_BEFORE:
            continue
        for recognise in recognisers:
            hit = recognise(text, spot, last)
            if hit and hit.start >= last.end and free(hit):
                hits.append(hit)
                last = hit
                break
    return hits


def _may_stand(text: str, start: int, end: int, *, grouped: bool) -> bool:
    """Whether a number is no part of a path, a name or a longer number, as far as its own pattern does not tell."""
    if grouped:
        return bool(_STARTS_APART.match(text, start) and _ENDS_APART.match(text, end))
    return _STARTS.match(text, start) is not None


def _resident_id(text: str, spot: int, _: _Hit) -> _Hit | None:
    """GB 11643-1999: 18 digits, the last a check digit; or the 15 digits before it, next to their name."""
    match = _RESIDENT.match(text, spot)
    if match:
        number = match[1] + match[3] + match[4]
        good = _is_date(match[3]) and _check_digit(number) == number[-1].upper()
    else:
        match = _RESIDENT_OLD.match(text, spot)
        good = bool(match and _is_date(f"19{match[3]}") and _RESIDENT_BEFORE.search(text, spot - 16, spot))
    if match and good and _PROVINCES.match(match[1]) and _may_stand(text, spot, match.end(), grouped=bool(match[2])):
        return _Hit(spot, match.end(), "resident_id")
    return None


def _is_date(digits: str) -> bool:
    try:
        datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True


def _check_digit(number: str) -> str:
    """ISO 7064, MOD 11-2, over the first 17 digits.

    >>> _check_digit("11000019900101001")
    '3'
    """
    return "10X98765432"[sum(int(digit) << (17 - place) for place, digit in enumerate(number[:17])) % 11]


def _mobile_number(text: str, spot: int, last: _Hit) -> _Hit | None:
    """Eleven digits, or 3-4-4, with the country's code or without."""
    for first in (spot, spot - 4) if text[spot - 1] in " -" else (spot,):  # of 138 1234 5678 it is the second group
        match = _MOBILE.match(text, first)
        if match is None or match[0].endswith(_SERVICE_NUMBER) or _OTHER_NUMBER.search(text, first - 8, first):
            continue
        country = _COUNTRY.search(text, first - 8, first)
        for start in (country.start(), first) if country else (first,):
            # telephone numbers stand one after another; else a slash makes a path
            listed = text[start - 1] == "/" and (last.end == start - 1 or _LANDLINE.search(text, start - 20, start))
            if listed or _may_stand(text, start, match.end(), grouped=bool(match[1])):
                return _Hit(start, match.end(), "mobile_number")
    return None


def _bank_card(text: str, spot: int, _: _Hit) -> _Hit | None:
    """ISO/IEC 7812: a known issuer and a check digit; other than UnionPay's 62 only where words tell of a bank."""
    match = _CARD.match(text, spot)
    if match is None or not _may_stand(text, spot, match.end(), grouped=bool(match[1] or match[2])):
        return None
    number = re.sub("[ -]", "", match[0])
    named = number.startswith("62") or _BANK_BEFORE.search(text, spot - 24, spot)
    return _Hit(spot, match.end(), "bank_card") if named and _ISSUERS.match(number) and _luhn(number) else None


def _luhn(number: str) -> bool:
    """The check digit of H. P. Luhn, US patent 2,950,048 (1960).

    >>> _luhn("6200000000000005"), _luhn("6200000000000006")
    (True, False)
    """
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [digit * 2 - 9 * (digit > 4) for digit in digits[1::2]]) % 10 == 0


def _qq(text: str, spot: int, last: _Hit) -> _Hit | None:
    """Five to eleven digits after a word for QQ or its groups, or seven and more after such a number."""
    match = _ACCOUNT.match(text, spot)
    if match is None:
        return None
    listed = last.kind == "qq" and len(match[0]) > 6 and _QQ_NEXT.fullmatch(text, last.end, spot)
    if listed or (text[spot - 1] in _LEADS and _QQ_BEFORE.search(text, spot - 20, spot)):
        return _Hit(spot, match.end(), "qq")
    return None


def _wechat_number(text: str, spot: int, _: _Hit) -> _Hit | None:
    """A name in WeChat that is a number; without a sign that it is one, of nine digits or more."""
    match = _ACCOUNT.match(text, spot)
    if match and text[spot - 1] in _LEADS and (before := _WECHAT_BEFORE.search(text, spot - 16, spot)):
        signed = before[0][2:].strip()
        return _Hit(spot, match.end(), "wechat") if len(match[0]) >= (6 if signed else 9) else None
    return None


_RECOGNISERS: dict[str, Callable[[str, int, _Hit], _Hit | None]] = {
    "resident_id": _resident_id,
    "mobile_number": _mobile_number,
    "bank_card": _bank_card,
    "qq": _qq,
    "wechat": _wechat_number,
}


def _wechat(text: str, spot: int) -> _Hit | None:
    """A name after a word for WeChat: with a digit or underscore, or in small letters after a colon."""
    match = _WECHAT.match(text, spot - 1)
    if match is None:
        return None
    name, colon = match["name"], ":" in match["link"] or "：" in match["link"]
    if match["word"].isascii():
        spoken = match["word"][0] in "vV" and not text[spot - 2].isascii()  # 加vx abc1234; wx is also a program's name
        good = (colon or spoken) and any(map(str.isdigit, name))
    else:
        good = any(map(str.isdigit, name)) or "_" in name or (colon and name.islower())
    return _Hit(match.start("name"), match.end(), "wechat") if good else None


def _email(text: str, at: int) -> _Hit | None:
    """A mailbox on a domain that can be somebody's; not a login, a path, a package's version, a sample."""
    run = _LOCAL.match(text[max(at - 65, 0) : at][::-1])
    local = run[0][::-1] if run else ""
    name = local.lstrip("._%+-")
    match = _DOMAIN.match(text, at + 1)
    if match is None or len(local) > 64 or _SAMPLE_NAME.match(name) or _SAMPLE_DOMAIN.match(match["domain"]):
        return None
    first = at - len(local)
    if _NOT_A_MAILBOX.search(text, first - 60, first) or (text[at] == "#" and not _PROVIDER.match(match["domain"])):
        return None
    return _Hit(at - len(name), match.end(), "email")


def _ip_address(text: str, spot: int) -> _Hit | None:
    """An address next to words that make it somebody's, unless it is of a private or reserved range."""
    start = spot
    while start > spot - 4 and text[start - 1] in string.hexdigits:
        start -= 1
    match = (_IPV4 if text[spot] == "." else _IPV6).match(text, start)
    if match and _IP_BEFORE.search(text, start - 20, start) and _is_personal(match[0]):
        return _Hit(start, match.end(), "ip_address")
    return None


def _is_personal(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.version == 4 and address.endswith(".0"):
        return False  # a network
    return not any(parsed in network for network in _NOT_PERSONAL)
