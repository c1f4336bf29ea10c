"""Cleaning rules: literal cases, and the properties that hold for every text."""

from __future__ import annotations

import random
import re
import time
import unicodedata

import opencc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline.clean.html import strip_tags
from corpus.pipeline.clean.rules import clean, clean_all, rules
from corpus.pipeline.clean.unicode import compose_nfc
from corpus.pipeline.text.codepoints import SEAM
from tests.support.records import examples

ALL = rules(simplify=True, brackets=True)
PLAIN = rules(simplify=False, brackets=False)

CASES = [
    # (rule, before, after)
    ("repair_encoding", "他说浣犲ソ涓栫晫。", "他说你好世界。"),
    ("repair_encoding", "caf\u00e9 与 鍦里", "caf\u00e9 与 鍦里"),
    ("break_lines", "第一行\r\n第二行\r第三行\u2028第四行\x85第五行", "第一行\n第二行\n第三行\n第四行\n第五行"),
    ("break_lines", "问\r\r答", "问\n\n答"),
    ("unescape_entities", "猫&amp;狗&lt;3&nbsp;只&#20845;&#x9E1F;", "猫&狗<3 只六鸟"),
    ("unescape_entities", "转了三次&amp;amp;amp;quot;引号&quot;", '转了三次"引号"'),
    ("unescape_entities", "a && b &c= &foo; R&D", "a && b &c= &foo; R&D"),
    ("strip_tags", "<p>第一段</p><p>第二段<br/>换行</p>", "第一段\n\n第二段\n换行"),
    ("strip_tags", '<a href="x">链接</a>和<b>粗体</b>、<poem>诗</poem>', "链接和粗体、\n诗"),
    ("strip_tags", "看不见的<script>var a = 1 < 2;</script>没有了<!-- 注释 -->", "看不见的没有了"),
    (
        "strip_tags",
        "若 a<b 且 c>d，则 List<String> 与 <stdio.h> 不动",
        "若 a<b 且 c>d，则 List<String> 与 <stdio.h> 不动",
    ),
    (
        "strip_tags",
        "10<sup>5</sup> 与 f(n)<sup>2</sup>，见注<sup>[1]</sup>，H<sub>2</sub>O",
        "10^5 与 f(n)^2，见注[1]，H2O",
    ),
    ("strip_tags", "<ruby>缓存<rp>(</rp><rt>cache</rt><rp>)</rp></ruby>", "缓存（cache）"),
    ("strip_tags", "List<Object> Class<S> 与 Optional<Address>", "List<Object> Class<S> 与 Optional<Address>"),
    ("strip_tags", "正文<P>大写的<BR>标签</P>", "正文\n大写的\n标签"),
    ("unescape_entities", "f?a=1&params;b &region; &copy;", "f?a=1&params;b &region; ©"),
    ("strip_tags", "写成 `<div>` 才对", "写成 `<div>` 才对"),
    ("strip_tags", "```\n<p>代码</p>\n```", "```\n<p>代码</p>\n```"),
    ("strip_invisible", "\ufeff零\u200b宽\u202e与\x00控\x1b制\u00ad符", "零宽与控制符"),
    ("strip_invisible", "一家人👨\u200d👩\u200d👧在\u200d此", "一家人👨\u200d👩\u200d👧在此"),
    (
        "compose_nfc",
        "cafe\u0301 ノ\u3099",
        "caf\u00e9 \u30ce\u3099".replace("\u30ce\u3099", unicodedata.normalize("NFC", "ノ\u3099")),
    ),
    ("narrow_letters", "ＡＢＣ１２３ａｂｃ", "ABC123abc"),
    ("narrow_letters", "，。！？：；（甲）“乙”《丙》【丁】％＋", "，。！？：；（甲）“乙”《丙》【丁】％＋"),
    ("simplify_script", "後來他們學會了書寫", "后来他们学会了书写"),
    ("simplify_script", "别打坏了，毕昇与乾隆", "别打坏了，毕昇与乾隆"),
    ("drop_empty_brackets", "数学（）是（，）一门《》学科「」（（、））", "数学是一门学科"),
    ("drop_empty_brackets", "数学（，mathematics）和 f() 不动", "数学（，mathematics）和 f() 不动"),
    ("collapse_blanks", "　　段首\u3000空格\t和  多个\u00a0\u00a0空格 \n行尾  ", "段首 空格 和 多个 空格\n行尾"),
    ("collapse_blanks", "def f():\n    return 1", "def f():\n    return 1"),
    ("collapse_blanks", "{\n\t\treturn 1\n}", "{\n\t\treturn 1\n}"),
    ("collapse_blanks", "```\na  =  1\t \n│\u00a0\u00a0 ├──\n```\n正  文", "```\na  =  1\n│   ├──\n```\n正 文"),
    ("collapse_lines", "\n\n甲\n\n\n\n乙\n\n\n", "甲\n\n乙"),
]


@pytest.mark.parametrize(("rule", "before", "after"), CASES)
def test_rule_changes_exactly_this(rule: str, before: str, after: str) -> None:
    cleaned = clean_all([before], ALL)
    assert cleaned.texts == [after]
    assert (rule in cleaned.changed) == (before != after)


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, before, after in CASES if before != after} == {rule.name for rule in ALL.rules}


def test_switched_off_rules_do_nothing() -> None:
    assert clean("後來（）", PLAIN) == "後來（）"


NASTY = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *"<>&;/ \t\n\r\u3000\u00a0（），《》「」`#xbpam!-12ＡＺ０後來乾昇甲",
                SEAM,
                "\u200b",
                "\u0301",
                "\ud800",
                "\u1161",
                "ᄀ",
            ]
        ),
        st.sampled_from(
            [
                "<b>",
                "</b>",
                "<br>",
                "&lt;",
                "&amp;",
                "&#60;",
                "&#x26;",
                "```",
                "<script>",
                "</script>",
                "<!--",
                "-->",
                "&nbsp",
                "<br",
                "<a ",
                '="x"',
                "<!",
                "</rp",
                "sup>",
                "\t\t",
                "\r\n",
            ]
        ),
        st.characters(),
    ),
    max_size=60,
).map("".join)


@settings(max_examples=examples(1500), deadline=None)
@given(NASTY)
@example("&amp;lt;b&amp;gt;")
@example("<<b>b>")
@example("（（）（）\u200b）")
@example(" " * 50 + "<b>" + "\u3000" * 50)
@example("<" * 14 + "b>" * 14 + "e<\u0301")
def test_clean_is_idempotent(text: str) -> None:
    for table in (ALL, PLAIN):
        once = clean(text, table)
        assert clean(once, table) == once


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(NASTY, min_size=1, max_size=6))
def test_neighbours_do_not_matter(texts: list[str]) -> None:
    assert clean_all(texts, ALL).texts == [clean(text, ALL) for text in texts]


@settings(max_examples=examples(400), deadline=None)
@given(NASTY)
def test_what_comes_out_is_plain(text: str) -> None:
    out = clean(text, ALL)
    assert unicodedata.is_normalized("NFC", out)
    assert out == out.strip()
    assert not re.search("[\r\x00-\x08\x0b-\x1f\u200b\u3000\ud800-\udfff０-９Ａ-Ｚａ-ｚ]|\n{3}| \n", out)


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        "的一是了我不在人们有来他这上着个地到大里说就去子得也和那要下看天时过出小么起你都把好还多没为又可家学只以主会样年想，。！？；：“”（）《》、\n",
        max_size=200,
    )
)
def test_plain_chinese_passes_untouched(text: str) -> None:
    text = re.sub("\n{3,}", "\n\n", text).strip()
    text = re.sub("（[，；：、。]*）|《[，；：、。]*》", "", text)
    if not re.search("（[，；：、。]*）|《[，；：、。]*》|\n\n\n", text) and text == text.strip():
        assert clean(text, ALL) == text


@pytest.mark.parametrize(
    "text", ["水<b>温</b><br>升<rt>注</rt>", "10<sup>5</sup> `<b>` a<S>b<!-- 注 -->", "<p>\n```\n<p>x\n```"]
)
def test_long_texts_lose_the_same_tags(text: str) -> None:
    times = (1 << 20) // len(text) + 1
    assert strip_tags((text + "\n") * times) == (strip_tags(text) + "\n") * times


def test_depth_is_bounded() -> None:
    nested = "<" * 20_000 + "b>" * 20_000
    start = time.process_time()
    once = clean(nested, ALL)
    assert clean(once, ALL) == once
    assert time.process_time() - start < 20  # linear work is far below; quadratic work far above


@pytest.mark.parametrize(
    "bad",
    [
        "&amp;" * 200_000,
        "（" * 100_000 + "）" * 100_000,
        "<script>" * 50_000 + "</script>",
        " " * 500_000 + "x",
        "\u3000" * 300_000,
        "<a " + 'b="c" ' * 50_000 + "<",
        "`" * 300_000,
        "<!--" * 100_000,
        "\n" * 500_000,
        "a" + "\u0301\u0316" * 200_000,
    ],
)
def test_hostile_text_takes_linear_time(bad: str) -> None:
    start = time.process_time()
    clean(bad, ALL)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "text",
    [
        "a<br" + "\n" * 30 + ">b",
        "a<!--" + "\n" * 4100 + "-->b",
        'a<a href="' + "\n" * 2100 + '">b',
        "<b" * 12 + ">" * 12 + "a\n\n （‹）\n\nb",
        "```\n\u3000x \n```\u3000",
    ],
)
def test_cleaned_is_clean_at_the_bounds(text: str) -> None:
    once = clean(text, ALL)
    assert clean(once, ALL) == once


def test_long_runs_of_marks_are_composed_as_unicode_says() -> None:
    chance = random.Random(7)
    marks = [chr(code) for code in (*range(0x300, 0x36F), 0x0591, 0x0F71, 0x0F73, 0x302A, 0x3099, 0x1D165, 0x0344)]
    for _ in range(300):
        run = "".join(chance.choices([*marks, "é", "が", "ｶ", "한", "한"], k=chance.randrange(20, 90)))
        text = chance.choice("aが中ö") + run + "z"
        assert compose_nfc(text) == unicodedata.normalize("NFC", text)


def test_simplified_lines_are_not_given_to_opencc() -> None:
    assert opencc.OpenCC("t2s").convert("打坏") == "打坯"  # the damage that makes the rule look at lines first
    assert clean("打坏", ALL) == "打坏"
