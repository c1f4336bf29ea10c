"""Trimming: golden cases of what goes and what stays, and the properties that hold for every text."""

from __future__ import annotations

import doctest
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline.clean import boilerplate as module
from corpus.pipeline.clean.boilerplate import LONGEST_LINE, is_frame, trim
from corpus.pipeline.clean.rules import clean, rules
from corpus.pipeline.documents.transform import rebuild
from corpus.pipeline.manifest import load
from corpus.pipeline.read.spans import RecordFile
from tests.support.records import ROOT, examples

RULES = rules(simplify=True, brackets=True)
GOLDEN = ROOT / "tests" / "golden" / "trim.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"trim.jsonl:{line}") for line, case in enumerate(CASES, 1)])
def test_golden(case: dict[str, str]) -> None:
    assert trim(case["text"]) == case["trimmed"]
    assert trim(case["trimmed"]) == case["trimmed"]


def test_both_sides_of_the_border_have_cases() -> None:
    assert sum(case["text"] != case["trimmed"] for case in CASES) >= 20
    assert sum(case["text"] == case["trimmed"] for case in CASES) >= 20
    assert len({case["text"] for case in CASES}) == len(CASES)


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [
        ("", ""),
        ("\n", "\n"),
        ("编辑：小禾", "编辑：小禾"),
        ("\n编辑：小禾", "\n编辑：小禾"),
        ("编辑：小禾\n来源：晚报\n------", "编辑：小禾\n来源：晚报\n------"),
        ("雨停了。\n编辑：" + "禾" * (LONGEST_LINE - 3 - 20), "雨停了。"),
        ("雨停了。\n编辑：" + "禾" * (LONGEST_LINE - 2), "雨停了。\n编辑：" + "禾" * (LONGEST_LINE - 2)),
    ],
)
def test_borders_of_the_text_and_of_a_line(text: str, trimmed: str) -> None:
    assert trim(text) == trimmed


CONTENT = [
    *(
        "雨停了。",
        "老渡工把船系在柳树下",
        "修伞匠：五十年。",
        "记者：你好",
        "二维码贴在门上，谁都可以扫。",
        "书名：《渡口》",
    ),
    *(
        "半江灯火一江风，",
        "请关注天气变化",
        "    ys = sorted(xs)",
        "x = 1  # 来源：见下",
        "河" * 90,
        "“编辑：小禾”他念道。",
    ),
]
FRAMES = [
    *("（责任编辑：小禾）", "来源：河东晚报", "文/小禾", "原标题：雨停了", "转载请注明出处", "扫描二维码关注我们"),
    *("via: https://example.com/a", "[1]: https://example.com/b", "点击查看更多>>", "相关阅读：雨", "------"),
]
WEAK = ["作者：小禾", "链接：https://example.com/c", "译者：阿满"]
LINES = st.lists(st.sampled_from([*CONTENT, *FRAMES, *WEAK, "", "", "  "]), max_size=12).map("\n".join)


@settings(max_examples=examples(1500), deadline=None, derandomize=True)
@given(LINES)
@example("作者：小禾\n雨停了。\n作者：小禾\n------")
@example("来源：河东晚报\n书名：《渡口》\n来源：河东晚报")
def test_only_whole_frame_lines_go_from_the_ends(text: str) -> None:
    trimmed = trim(text)
    assert trim(trimmed) == trimmed
    assert bool(trimmed) == bool(text)
    lines, left = text.split("\n"), trimmed.split("\n")
    begins = [start for start in range(len(lines)) if lines[start : start + len(left)] == left]
    gone = [lines[:start] + lines[start + len(left) :] for start in begins]
    assert any(set(away) <= {*FRAMES, *WEAK, "", "  "} for away in gone)
    assert [line for line in left if line in CONTENT] == [line for line in lines if line in CONTENT]


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(st.text("编辑者作记来源文图：:/（）\n链接https小 。-=原标题", max_size=60))
def test_any_text_is_trimmed_once_and_for_all(text: str) -> None:
    trimmed = trim(text)
    assert trim(trimmed) == trimmed
    assert trimmed in text
    assert f"\n{trimmed}\n" in f"\n{text}\n"


MARKED_UP = [
    "<b>粗", "</b>", "<script>", "x</script>", "<!-- 注", "注 -->", '<a href="x"', ">链接</a>", "&am", "p;lt;",
    "&amp", "（", "，）", "後來他們學會了", "浣犲ソ", "涓栫晫", "e", "\u0301", "    缩进", "\u3000首行", "行末  ",
    "ＡＢ", "\x1e", "\r",
]  # fmt: skip


@settings(max_examples=examples(1500), deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*CONTENT, *FRAMES, *WEAK, *MARKED_UP, "", ""]), max_size=14).map("\n".join))
@example("来源：河东晚报\n    缩进\n雨停了。")
def test_what_is_left_of_a_clean_text_is_clean(text: str) -> None:
    """So ingest need not clean it once more, but for blanks at its ends."""
    left = trim(clean(text, RULES))
    assert clean(left, RULES) == left.strip()


CODE = ["```", "`", "`<b>`", "```码", "<i>`", "码  码", "<script>`x</script>", "来源：`河东晚报`", "来源：```河东晚报"]


@settings(max_examples=examples(3000), deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*CODE, *CONTENT[:2], *FRAMES[:4], *MARKED_UP, ""]), max_size=14).map("\n".join))
def test_lines_that_take_no_mark_of_code_with_them_leave_a_clean_text(text: str) -> None:
    cleaned = clean(text, RULES)
    left = trim(cleaned)
    if left.count("`") == cleaned.count("`"):
        assert clean(left, RULES) == left.strip()


def document_of(content: str) -> str:
    """What ingest makes of an article of news."""
    manifest = load("news2016zh")
    file = RecordFile(
        container="x", codec="plain", path="x", tail="x", split="train", shape=manifest.members[0].shape,
        layout="lines", bytes=0,
    )  # fmt: skip
    record = dict.fromkeys(("news_id", "keywords", "desc", "source", "time"), "1")
    return rebuild(manifest, file, json.dumps({**record, "title": "雨停了", "content": content}).encode()).text


def test_what_a_cut_leaves_without_its_fence_is_cleaned_again() -> None:
    content = "来源：```河东晚报\n<b>船家把灯挂在船头</b>\n```\n对岸有人喊了一声。"
    assert document_of(content) == "雨停了\n\n船家把灯挂在船头\n```\n对岸有人喊了一声。"


def test_what_a_cut_leaves_has_no_blanks_at_its_ends() -> None:
    content = "来源：河东晚报\n    船家把灯挂在船头\n对岸有人喊了一声。"
    assert document_of(content) == "雨停了\n\n船家把灯挂在船头\n对岸有人喊了一声。"


def test_the_lines_of_the_properties_are_what_they_are_called() -> None:
    assert [line for line in FRAMES if not is_frame(line)] == []
    assert [line for line in (*CONTENT, *WEAK) if is_frame(line)] == []


LONG = 1 << 18


@pytest.mark.parametrize(
    "unit",
    [
        "编辑：小禾\n",
        "\n",
        " \n",
        "哈",
        "[",
        "------\n",
        "作者：小禾\n",
        "书名：渡口\n",
        "更多请",
        "（未经许可",
        "扫描二维码",
        "编辑/小禾 ",
    ],
)
@pytest.mark.parametrize("around", ["{}", "雨停了。\n{}", "{}雨停了。", "雨\n{}停\n{}"])
def test_hostile_text_takes_linear_time(unit: str, around: str) -> None:
    times = LONG // len(unit.encode()) // 4
    quarter, whole = _cost(around.format(unit * times, unit)), _cost(around.format(unit * times * 4, unit))
    assert whole < 8 * quarter + 0.2  # quadratic work takes sixteen times as long, and that is many seconds


def _cost(text: str) -> float:
    start = time.process_time()
    once = trim(text)
    assert trim(once) == once
    return time.process_time() - start
