"""Masking: the golden folder, and the properties that hold for every text. All numbers and names in it are invented."""

from __future__ import annotations

import doctest
import json
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline.clean import pii
from corpus.pipeline.clean.pii import mask, mask_all
from corpus.pipeline.clean.pii_recognizers import KINDS, PLACEHOLDERS
from corpus.pipeline.clean.rules import clean, rules
from corpus.pipeline.text.codepoints import SEAM
from tests.support.records import ROOT, examples

GOLDEN = ROOT / "tests" / "golden" / "mask"
CLEANING = rules(simplify=False, brackets=True)

Case = tuple[str, str]


def cases(kind: str) -> list[Case]:
    lines = (GOLDEN / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(case["text"], case["masked"]) for case in map(json.loads, lines)]


ALL = [pytest.param(*case, id=f"{kind}-{line}") for kind in KINDS for line, case in enumerate(cases(kind), 1)]


@pytest.mark.parametrize(("text", "masked"), ALL)
def test_golden(text: str, masked: str) -> None:
    found, counts = mask(text)
    assert found == masked
    assert counts.total() == sum(masked.count(placeholder) - text.count(placeholder) for placeholder in mark())
    assert mask(found) == (found, Counter())
    assert clean(found, CLEANING) == clean(masked, CLEANING)


def mark() -> list[str]:
    return list(PLACEHOLDERS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_of_every_border_have_cases(kind: str) -> None:
    kept = [text for text, masked in cases(kind) if text == masked]
    replaced = [masked for text, masked in cases(kind) if text != masked]
    assert len(kept) >= 20
    assert len(replaced) >= 20
    assert all(PLACEHOLDERS[kind] in masked for masked in replaced)


def test_every_golden_file_has_its_kind() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == set(KINDS) == set(PLACEHOLDERS)


def changed(texts: Sequence[str], masked: Sequence[str]) -> dict[str, set[int]]:
    """For each kind the positions of the texts that got a placeholder of it."""
    pairs = list(enumerate(zip(texts, masked, strict=True)))
    found = {
        kind: {at for at, (before, after) in pairs if after.count(mark) > before.count(mark)}
        for kind, mark in PLACEHOLDERS.items()
    }
    return {kind: places for kind, places in found.items() if places}


def test_a_batch_tells_what_is_where() -> None:
    texts = ["无", "电话：13900000001，13900000002", "", "邮箱 lin.xiaohe@163.com，手机 13900000003"]
    masked, counts = mask_all(texts)
    assert changed(texts, masked) == {"mobile_number": {1, 3}, "email": {3}}
    assert masked == ["无", "电话：[手机号]，[手机号]", "", "邮箱 [邮箱]，手机 [手机号]"]
    assert counts == Counter(mobile_number=3, email=1)
    assert mask_all([]) == ([], Counter())


def test_only_the_kinds_asked_for_are_masked() -> None:
    text = "QQ：4990000001，电话13900000001，邮箱lin.xiaohe@163.com"
    assert mask(text, ["qq"])[0] == "QQ：[QQ号]，电话13900000001，邮箱lin.xiaohe@163.com"
    assert mask(text, ["email", "mobile_number"])[0] == "QQ：4990000001，电话[手机号]，邮箱[邮箱]"
    assert mask(text, [])[0] == text


def test_placeholders_stay_as_they_are() -> None:
    text = "，".join(mark())
    assert clean(text, CLEANING) == mask(text)[0] == text


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(pii).failed == 0


def resident_id(region: str, birth: str, serial: int) -> str:
    """ISO 7064 in its own words: the weighted sum of all 18, X being ten, leaves 1 when divided by 11."""
    body = f"{region}{birth}{serial:03}"
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(body))
    check = (1 - total) % 11
    return body + ("X" if check == 10 else str(check))


def card(body: str) -> str:
    """Luhn's digit, in his words: every other digit from the right doubled, and the digits of all summed."""
    total = sum(int(digit) for place, each in enumerate(reversed(body)) for digit in str(int(each) * (2 - place % 2)))
    return body + str(-total % 10)


@given(st.integers(0, 999), st.integers(0, 17), st.integers(1, 9))
def test_one_wrong_digit_makes_no_identity_number(serial: int, place: int, step: int) -> None:
    number = resident_id("110000", "19900101", serial)
    assert mask(f"证件{number}")[1] == Counter(resident_id=1)
    digit = (int(number[place]) + step) % 10 if number[place] != "X" else step % 10
    wrong = number[:place] + str(digit) + number[place + 1 :]
    assert mask(f"证件{wrong}", ["resident_id"])[1] == Counter()


@given(st.integers(0, 10**12 - 1), st.integers(0, 15), st.integers(1, 9))
def test_one_wrong_digit_makes_no_card(body: int, place: int, step: int) -> None:
    number = card(f"620{body:012}")
    assert mask(f"卡号{number}", ["bank_card"])[1] == Counter(bank_card=1)
    wrong = number[:place] + str((int(number[place]) + step) % 10) + number[place + 1 :]
    assert mask(f"卡号{wrong}", ["bank_card"])[1] == Counter()


def grouped(number: str, *sizes: int) -> st.SearchStrategy[str]:
    groups, first = [], 0
    for size in sizes:
        groups.append(number[first : first + size])
        first += size
    return st.sampled_from([gap.join([*groups, number[first:]]) for gap in (" ", "-", "")])


DIGITS = st.text("0123456789", min_size=1, max_size=12)
NUMBERS = st.one_of(
    DIGITS,
    st.integers(0, 99_999_999).flatmap(lambda rest: grouped(f"139{rest:08}", 3, 4)),
    st.integers(0, 999).flatmap(lambda serial: grouped(resident_id("440000", "20010228", serial), 6, 8)),
    st.integers(0, 10**13 - 1).flatmap(lambda body: grouped(card(f"62{body:013}"), 4, 4, 4)),
    st.integers(0, 10**16 - 1).flatmap(lambda body: grouped(card(f"40{body:016}"), 6)),
)
ADDRESSES = (
    "lin.xh@b-c.com x_1@qq.com a#163.com y＠mail.x.cn z@example.com 58.0.0.9 1.2.3.4.5 10.0.0.1 2409:8000::1:5 2001:: "
    "fe80::1 abcdef abc123 a_bc_d wxid_0a0b0c ://u:p@h-i.com /lin@b-c.com"
)
WORDS = (
    "QQ qq QQ群 群号 加群 扣扣 企鹅号 加Q Q： 微信 微信号 薇信 公众 官方 vx VX wx V信 身份证 身份证号 卡号 银行 账号 "
    "IP ip地址 来自 电话 tel Tel 订单号 ISBN clone http:// www. 号 是 元 +86 0086 86 (+86) X e-mail 号] 箱] wechat "
    "WeChat WECHAT www.a.cn/ ?qq="
)
SIGNS = st.sampled_from([*" -./:：,，、;；()（）@#＠=_+%\\'`&$[]\n", SEAM, "--", "或", " / ", "甲", "１", "\ud800"])
LETTERS = st.sampled_from(ADDRESSES.split()) | st.sampled_from([*WORDS.split(), "ssh ", "inet6 ", *mark()])
TEXTS = st.lists(NUMBERS | LETTERS | SIGNS, max_size=8).map("".join)
SUBSETS = st.just(KINDS) | st.sets(st.sampled_from(KINDS)).map(tuple)


@settings(max_examples=examples(1000), deadline=None)
@given(TEXTS, SUBSETS)
@example("a@b.com--139-0000-8493", KINDS)
@example("+86139-0000-8958+86139-0000-5021", KINDS)
@example("微信wxid_0a0b0cQQ13900003633", KINDS)
@example("a@b-c.com4400.qq99000，", KINDS)
@example("138 0000 0001-a@b-c.com", KINDS)
@example("卡号 13900000001 某某某某某某某某某某 4000000000000002", KINDS)
@example("ssh-abc1 lin@b-c.com", KINDS)
@example("x@b-c.com/y@b-c.com", KINDS)
@example("www.abc@b-c.com,/qq230203", KINDS)
@example("http://a.com/?qq=1234567&x=qq230203", KINDS)
def test_mask_is_idempotent(text: str, kinds: tuple[str, ...]) -> None:
    once, _ = mask(text, kinds)
    assert mask(once, kinds) == (once, Counter())


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=6), SUBSETS)
@example(["IP2001::", "::1"], KINDS)
@example(["ISBN", "13900000001"], KINDS)
@example(["http://a", "b:lin@b-c.com"], KINDS)
def test_neighbours_do_not_matter(texts: list[str], kinds: tuple[str, ...]) -> None:
    masked, counts = mask_all(texts, kinds)
    single = [mask(text, kinds) for text in texts]
    assert masked == [text for text, _ in single]
    assert counts == sum((own for _, own in single), Counter())
    places = {kind: {at for at, (_, own) in enumerate(single) if own[kind]} for kind in KINDS}
    assert changed(texts, masked) == {kind: found for kind, found in places.items() if found}


@settings(max_examples=300, deadline=None)
@given(TEXTS.filter(lambda text: not any(placeholder in text for placeholder in mark())))
def test_what_is_not_masked_stays(text: str) -> None:
    masked, counts = mask(text)
    for placeholder in mark():
        masked = masked.replace(placeholder, "\0")
    kept = masked.split("\0")
    assert len(kept) == counts.total() + 1
    assert text.startswith(kept[0])
    assert text.endswith(kept[-1])
    place = 0
    for piece in kept:
        place = text.index(piece, place) + len(piece)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_cleaning_keeps_placeholders(text: str) -> None:
    masked, _ = mask(clean(text, CLEANING))
    again = clean(masked, CLEANING)
    assert [again.count(placeholder) for placeholder in mark()] == [masked.count(placeholder) for placeholder in mark()]


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1234 ",
        "13900000001 ",
        "13900000001/",
        "6222-",
        "@",
        "a@",
        "a@b.",
        "lin@b-c.com ",
        "://a:b@c-d.com",
        "qq",
        "QQ12345",
        "QQ：12345678、",
        "卡号4000000000000002 ",
        ".",
        "1.",
        ":",
        "2001::1:",
        "微信",
        "微信abcdef-",
        "wechat",
        "://a/qq12345",
    ],
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    quarter, whole = (seconds(unit * (size // len(unit))) for size in (50_000, 200_000))
    assert whole < 8 * quarter + 0.2  # quadratic work would take sixteen times as long


@pytest.mark.parametrize(
    "text",
    [
        "微信abcdef" + "-" * 1_000_000,
        "a@" + "b." * 500_000,
        "lin@b-c.com" + "." * 1_000_000,
        "a" * 1_000_000 + "@b-c.com",
        "IP2001:" + "a:" * 500_000,
        "QQ" + " " * 1_000_000 + "12345",
        "卡号" + "9" * 1_000_000,
        "ssh " + "1" * 1_000_000 + "@b-c.com",
    ],
)
def test_one_hostile_run_takes_linear_time(text: str) -> None:
    assert seconds(text) < 10  # linear work takes less than one, quadratic work hours


def seconds(text: str) -> float:
    start = time.process_time()
    mask(text)
    return time.process_time() - start
