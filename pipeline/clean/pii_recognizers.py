"""Patterns and check digits of personal data: identity cards, phones, bank cards, accounts, mail, addresses.

Invariant: a number is personal data only with its check digit or with words before it that name its kind.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
import string
from collections.abc import Callable
from typing import NamedTuple

from corpus.pipeline.text.codepoints import SEAM

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

_pattern = functools.partial(re.compile, flags=re.ASCII)
_PLACED = "|".join(map(re.escape, PLACEHOLDERS.values()))
_FRESH = r"(?<![号箱址]\])"  # not right behind a placeholder, which hides its context
_NEXT = r"(?=(?i:tel|qq|e-?mail|fax|msn|vx|wx|http|www))"  # pages that lost their blanks continue with one of these
_LEFT = rf"(?<![0-9A-Za-z_./\\=%&#$￥¥€£@+])(?<![0-9A-Za-z\]]-){_FRESH}"
_RIGHT = rf"(?:{_NEXT}|(?![0-9A-Za-z_@%]|[.-]\d))"
_PATH = r"/(?![A-Za-z0-9._%+-]{1,64}[@＠#])[A-Za-z]"  # a slash before a mailbox separates two
_LINK = r"[ :：是为=（(]{0,4}\Z"
_STARTS = _pattern(rf"{_LEFT}|(?<=[Tt][Ee][Ll])|(?<=[Qq][Qq])")
_STARTS_APART = _pattern(rf"{_LEFT}(?<![\d\]][ -])")  # grouped digits are no part of a longer row of groups
_ENDS_APART = _pattern(r"(?![ -]?[\d\[])")

_MOBILE = _pattern(
    r"(?:0|(?:00)?86)?1(?:3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"  # prefixes allocated by the ministry
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
    rf"[^\d\[\]@\n{SEAM}]{{0,16}}\Z"
)

_ACCOUNT = _pattern(rf"[1-9]\d{{4,10}}{_RIGHT}(?! ?[元万亿块人个名条次])")
_LEADS = frozenset(
    " :：是为=（(Qq扣号群码吧呀哦讨论交流咨询客服在线联系聊同信Dd"
)  # last characters of the next patterns
_QQ_BEFORE = _pattern(
    rf"(?:(?<![A-Za-z_]){_FRESH}[Qq][Qq]|扣扣|[扣叩][Qq]|(?:加|(?<![A-Za-z])[Qq])群|群号码?|企鹅[号群]|[加＋+][Qq]"
    rf"|(?<![0-9A-Za-z_]){_FRESH}[Qq扣](?=[:：]))"
    rf"(?:/?微信|同号|号码?|[账帐]号|群|交流|讨论|咨询|客服|在线|联系|聊|吧|呀|哦){{0,3}}{_LINK}"
)
_ADDRESS_CHARACTERS = 200
_ADDRESS_END = _pattern(rf"(?P<placed>{_PLACED})|[^!-~]|[@#]")  # a masked piece does not end an address
_IN_PATH = _pattern(r"(?:://|www\.)[^/?]*[/?]")
_QQ_NEXT = _pattern(r" ?[、/或和；;] ?")
_WECHAT_BEFORE = _pattern(rf"(?<!公众)(?<!官方)[微薇威徽]信(?:同?号码?|[Ii][Dd])?{_LINK}")
_WECHAT = _pattern(
    rf"(?P<word>(?<!公众)(?<!官方)[微薇威徽]信|(?<![A-Za-z_./-]){_FRESH}(?:[vV]信|[vVwW][xX]|[wW][eE][cC]hat|WECHAT))"
    r"(?:号码?|[Ii][Dd]|[账帐]号)?(?P<link>[ :：是为（(“\"'`]{0,4})"
    r"(?!(?i:iphone|ipad|android|windows|ios|openid|unionid|appid|weixin|wechat|http|www|sdk|js|web|oauth|html|github))"
    r"(?P<name>[A-Za-z][-_A-Za-z0-9]{4,18}[_A-Za-z0-9])"
    rf"(?!-*+(?:[_A-Za-z0-9]|{_PLACED})|[@$(]|\.[A-Za-z0-9]|/\d|{_PATH}|:[!-~])"
)

_LOCAL = _pattern(r"[A-Za-z0-9._%+-]*")
_DOMAIN = _pattern(
    r"(?P<domain>(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,5}(?i:com|net|org|edu|gov|info|biz|name|xyz|top|vip|club|tech"
    r"|site|(?!(?:js|ts|py|sh|md|rs|so|vb)(?![A-Za-z]))[a-z]{2}))"  # endings of files and packages, not of domains
    rf"(?:{_NEXT}|(?![A-Za-z0-9@_$]|{_PLACED}|[.+%_-]++[A-Za-z0-9@\[]|{_PATH}|:[!-~]))"
)
_PROVIDER = _pattern(
    r"(?i:(?:vip\.)?qq|foxmail|163|126|yeah|gmail|sina|sohu|hotmail|outlook|139|189|aliyun)\.(?i:com|cn|net|com\.cn)\Z"
)
_SAMPLE_NAME = _pattern(
    r"(?i:git|hg|svn|root|user(?:name)?|name|pass(?:word)?|your.*|e?mail|test|foo|bar|someone|you|nobody|x+|no-?reply)\Z"
)
_SAMPLE_DOMAIN = _pattern(  # RFC 2606, and what exercises and manuals use instead
    r"(?i)(?:.*\.)?(?:example\..+|(?:(?:my|your|this)?(?:domain|company|site)|test|xx+|abc|foo|bar|e?mail|.)\.[a-z]+)\Z"
)
_NOT_A_MAILBOX = _pattern(  # a path or password in a URL, a login
    rf"(?://(?:(?:{_PLACED}|[!-~]){{0,56}}[/:])?|[号箱址]\]"
    rf"|(?<![A-Za-z0-9_.@-])(?:ssh|scp|sftp|rsync|clone|ssh-copy-id) [^\n{SEAM}]{{0,40}})\Z"
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
_NOT_PERSONAL = [  # listed, since `ipaddress.is_global` differs between versions of Python
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001:db8::/32", "3fff::/20", "1.2.3.4", "1.2.4.8", "1.0.0.1", "1.1.1.1", "8.8.4.4", "8.8.8.8", "9.9.9.9"),
        *("114.114.114.114", "114.114.115.115", "119.29.29.29", "180.76.76.76", "223.5.5.5", "223.6.6.6"),  # resolvers
        *("208.67.220.220", "208.67.222.222"),
    )
]


class Hit(NamedTuple):
    """A match of personal data."""

    start: int
    end: int
    kind: str


def _may_stand(text: str, start: int, end: int, *, grouped: bool) -> bool:
    """Whether a number is no part of a path, a name or a longer number; its own pattern checks the rest."""
    if grouped:
        return bool(_STARTS_APART.match(text, start) and _ENDS_APART.match(text, end))
    return _STARTS.match(text, start) is not None


def _resident_id(text: str, spot: int, _: Hit) -> Hit | None:
    """GB 11643-1999: 18 digits, the last a check digit; or the older 15 digits after their name."""
    match = _RESIDENT.match(text, spot)
    if match:
        number = match[1] + match[3] + match[4]
        good = _is_date(match[3]) and _check_digit(number) == number[-1].upper()
    else:
        match = _RESIDENT_OLD.match(text, spot)
        good = bool(match and _is_date(f"19{match[3]}") and _RESIDENT_BEFORE.search(text, spot - 16, spot))
    if match and good and _PROVINCES.match(match[1]) and _may_stand(text, spot, match.end(), grouped=bool(match[2])):
        return Hit(spot, match.end(), "resident_id")
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


def _mobile_number(text: str, spot: int, last: Hit) -> Hit | None:
    """Eleven digits, or 3-4-4, with or without country code."""
    for first in (spot, spot - 4) if text[spot - 1] in " -" else (spot,):  # the second group of 138 1234 5678
        match = _MOBILE.match(text, first)
        if match is None or match[0].endswith(_SERVICE_NUMBER) or _OTHER_NUMBER.search(text, first - 8, first):
            continue
        country = _COUNTRY.search(text, first - 8, first)
        for start in (country.start(), first) if country else (first,):
            # a slash between telephone numbers is a list, elsewhere a path
            listed = text[start - 1] == "/" and (last.end == start - 1 or _LANDLINE.search(text, start - 20, start))
            if listed or _may_stand(text, start, match.end(), grouped=bool(match[1])):
                return Hit(start, match.end(), "mobile_number")
    return None


def _bank_card(text: str, spot: int, _: Hit) -> Hit | None:
    """ISO/IEC 7812: a known issuer and a check digit; other than UnionPay's 62 only after words about a bank."""
    match = _CARD.match(text, spot)
    if match is None or not _may_stand(text, spot, match.end(), grouped=bool(match[1] or match[2])):
        return None
    number = re.sub("[ -]", "", match[0])
    named = number.startswith("62") or _BANK_BEFORE.search(text, spot - 24, spot)
    return Hit(spot, match.end(), "bank_card") if named and _ISSUERS.match(number) and _luhn(number) else None


def _luhn(number: str) -> bool:
    """The check digit of H. P. Luhn, US patent 2,950,048 (1960).

    >>> _luhn("6200000000000005"), _luhn("6200000000000006")
    (True, False)
    """
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [digit * 2 - 9 * (digit > 4) for digit in digits[1::2]]) % 10 == 0


def _qq(text: str, spot: int, last: Hit) -> Hit | None:
    """Five to eleven digits after a word for QQ or its groups, or seven or more after such a number."""
    match = _ACCOUNT.match(text, spot)
    if match is None:
        return None
    listed = last.kind == "qq" and len(match[0]) > 6 and _QQ_NEXT.fullmatch(text, last.end, spot)
    named = text[spot - 1] in _LEADS and _QQ_BEFORE.search(text, spot - 20, spot)
    if listed or (named and not (text[spot - 1] in "qQ" and _in_path(text, spot))):
        return Hit(spot, match.end(), "qq")
    return None


def _in_path(text: str, spot: int) -> bool:
    """Whether a position is in the path of a page's address, where `qq` and digits are part of a name.

    >>> [_in_path(text, len(text)) for text in ("https://a.example/VIDE2qq", "www.a.example QQ", "https://a.exampleqq")]
    [True, False, False]
    """
    before = text[max(spot - _ADDRESS_CHARACTERS, 0) : spot]
    if "://" not in before and "www." not in before:
        return False
    ends = [found.end() for found in _ADDRESS_END.finditer(before) if not found["placed"]]
    return _IN_PATH.search(before, ends[-1] if ends else 0) is not None


def _wechat_number(text: str, spot: int, _: Hit) -> Hit | None:
    """A numeric WeChat name; nine digits or more if no sign such as a colon marks it."""
    match = _ACCOUNT.match(text, spot)
    if match and text[spot - 1] in _LEADS and (before := _WECHAT_BEFORE.search(text, spot - 16, spot)):
        signed = before[0][2:].strip()
        return Hit(spot, match.end(), "wechat") if len(match[0]) >= (6 if signed else 9) else None
    return None


RECOGNIZERS: dict[str, Callable[[str, int, Hit], Hit | None]] = {
    "resident_id": _resident_id,
    "mobile_number": _mobile_number,
    "bank_card": _bank_card,
    "qq": _qq,
    "wechat": _wechat_number,
}


def wechat(text: str, spot: int) -> Hit | None:
    """A WeChat name after a word for WeChat, which ends at `spot`: with a digit or underscore, or lower case after a
    colon.
    """
    match = _WECHAT.match(text, spot - 1) or _WECHAT.match(text, spot - len("wechat") + 1)
    if match is None:
        return None
    name, colon = match["name"], ":" in match["link"] or "：" in match["link"]
    if match["word"].isascii():
        spoken = match["word"][0] in "vV" and not text[spot - 2].isascii()  # 加vx abc1234; wx is also a program's name
        good = (colon or spoken) and any(map(str.isdigit, name))
    else:
        good = any(map(str.isdigit, name)) or "_" in name or (colon and name.islower())
    return Hit(match.start("name"), match.end(), "wechat") if good else None


def email(text: str, at: int) -> Hit | None:
    """A mailbox on a plausible domain; not a login, a path, a package version or a sample."""
    run = _LOCAL.match(text[max(at - 65, 0) : at][::-1])
    local = run[0][::-1] if run else ""
    name = local.lstrip("._%+-")
    match = _DOMAIN.match(text, at + 1)
    if match is None or len(local) > 64 or _SAMPLE_NAME.match(name) or _SAMPLE_DOMAIN.match(match["domain"]):
        return None
    first = at - len(local)
    if _NOT_A_MAILBOX.search(text, first - 60, first) or (text[at] == "#" and not _PROVIDER.match(match["domain"])):
        return None
    return Hit(at - len(name), match.end(), "email")


def ip_address(text: str, spot: int) -> Hit | None:
    """An address after words that make it a person's, unless its range is private or reserved."""
    start = spot
    while start > spot - 4 and text[start - 1] in string.hexdigits:
        start -= 1
    match = (_IPV4 if text[spot] == "." else _IPV6).match(text, start)
    if match and _IP_BEFORE.search(text, start - 20, start) and _is_personal(match[0]):
        return Hit(start, match.end(), "ip_address")
    return None


def _is_personal(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    is_network = parsed.version == 4 and address.endswith(".0")
    return not is_network and not any(parsed in network for network in _NOT_PERSONAL)
