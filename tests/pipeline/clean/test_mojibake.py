"""Repair of encodings: golden cases, whole strings that come back, and what never changes."""

from __future__ import annotations

import doctest
import json
import random
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from corpus.pipeline.clean import mojibake as module
from corpus.pipeline.clean.mojibake import mojibake_characters, mojibake_han, repair_encoding
from corpus.pipeline.text.codepoints import SEAM
from tests.support.records import ROOT, examples

GOLDEN = ROOT / "tests" / "golden" / "mojibake.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").split("\n") if line]


def _rows(first: int, last: int) -> str:
    """The characters of GB 2312 in some rows."""
    cells = [bytes((row, cell)) for row in range(first, last + 1) for cell in range(0xA1, 0xFF)]
    return "".join(cell.decode("gb2312", "ignore") for cell in cells)


COMMON = _rows(0xB0, 0xD7)
ALL_GB2312 = _rows(0xA1, 0xF7) + "".join(map(chr, range(0x20, 0x7F))) + "\n"
MARKS = "，。：；！？（）、《》"


def as_gbk(text: str) -> str:
    return text.encode("utf-8").decode("gbk")


def as_latin(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def as_windows(text: str) -> str:
    """As browsers read Windows-1252: bytes it leaves free are controls."""
    free = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    return "".join(chr(byte) if byte in free else bytes((byte,)).decode("cp1252") for byte in text.encode("utf-8"))


def _pairs() -> list[str]:
    """Pairs of characters whose six bytes GBK can read."""
    chance = random.Random(11)
    found: list[str] = []
    while len(found) < 2000:
        pair = chance.choice(COMMON + (MARKS + "“”‘’…—") * 20) + chance.choice(COMMON + MARKS * 20)
        try:
            as_gbk(pair)
        except UnicodeDecodeError:
            continue
        found.append(pair)
    return found


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"mojibake.jsonl:{line}") for line, case in enumerate(CASES, 1)]
)
def test_golden(case: dict[str, str]) -> None:
    assert repair_encoding(case["text"]) == case["repaired"]
    assert repair_encoding(case["repaired"]) == case["repaired"]


def test_both_sides_of_the_border_have_cases() -> None:
    assert sum(case["text"] != case["repaired"] for case in CASES) >= 20
    assert sum(case["text"] == case["repaired"] for case in CASES) >= 20
    assert len({case["text"] for case in CASES}) == len(CASES)


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_signs_call_for_every_repair() -> None:
    called = set(mojibake_characters())
    assert all(called & set(case["text"]) for case in CASES if case["text"] != case["repaired"])
    assert not set(mojibake_han()) & set(ALL_GB2312)


WHOLE = st.lists(st.sampled_from(_pairs()), min_size=2, max_size=30).map("".join)


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(WHOLE, st.sampled_from(["", "他说", "# ", "\n", "，"]))
def test_utf8_read_as_gbk_comes_back(text: str, around: str) -> None:
    broken = as_gbk(text)
    assume(not set(broken) <= set(ALL_GB2312))  # such a run may be what was meant
    assert repair_encoding(around + broken + around) == around + text + around


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(
    st.text(COMMON + "，。：；！？（）、《》“”…—", min_size=4, max_size=60),
    st.sampled_from(["", "caf\u00e9 ", "他说", "<b>"]),
)
@example("，。，。", "")
@example("你好·世界", "")
@example("後來他們學會了書寫", "")
def test_utf8_read_as_latin_comes_back(text: str, around: str) -> None:
    for broken in (as_latin(text), as_windows(text)):
        assert repair_encoding(around + broken + around) == around + text + around


@settings(max_examples=examples(1000), deadline=None, derandomize=True)
@given(st.text(ALL_GB2312, max_size=120))
@example("寰℃隘濞辩传")
def test_what_gb2312_can_write_stays(text: str) -> None:
    assert repair_encoding(text) == text


RAGGED = "璁ｅ睆妫曟尝閫鑿犺功娌鍚诲か鑲娌婚棷姝ゆ瀹氫篃涓撶練鐒﹂┚"
"""Mojibake of which a part, decoded, would make a run with the rest."""


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Good text, runs of mojibake with bytes lost here and there, and single characters of such runs."""
    pieces: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        text = draw(st.text(COMMON + MARKS, max_size=14))
        kind = draw(st.sampled_from(["good", "gbk", "lost", "latin", "windows", "twice", "odd"]))
        if kind in {"gbk", "lost", "twice"}:
            text = text.encode().decode("gbk", "ignore" if kind == "gbk" else "replace")
        if kind == "twice":
            text = text.encode().decode("gbk", "ignore")
        if kind == "latin":
            text = as_latin(text)
        if kind == "windows":
            text = as_windows(text)
        if kind == "odd":
            text = "".join(draw(st.lists(st.sampled_from(mojibake_characters()), max_size=8)))
        pieces.append(text)
    return draw(st.sampled_from(["", "", "?", "\n"])).join(pieces)


@settings(max_examples=examples(2000), deadline=None, derandomize=True)
@given(damaged())
@example(RAGGED)
def test_repair_is_idempotent(text: str) -> None:
    once = repair_encoding(text)
    assert repair_encoding(once) == once


@settings(max_examples=examples(2000), deadline=None, derandomize=True)
@given(damaged())
@example("ä½\xa0å¥½ä¸–ç•Œ")
def test_the_quick_look_misses_no_run(text: str) -> None:
    if any(pattern.search(text) for pattern, _, _ in module.run_patterns()):
        assert module.may_hold_run(text)


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(st.lists(damaged(), max_size=5), st.sampled_from(["\n", SEAM]))
@example([RAGGED, "浣犲ソ涓栫晫", RAGGED], "\n")
@example([RAGGED, "浣犲ソ涓栫晫", RAGGED], SEAM)
def test_lines_and_neighbours_do_not_matter(texts: list[str], seam: str) -> None:
    assert repair_encoding(seam.join(texts)) == seam.join(map(repair_encoding, texts))


LONG = 1 << 18
HOSTILE = [
    "哈",
    "[",
    "\n",
    "ä",
    "é…”",
    "â€",
    "浣犲ソ涓栫晫",
    "浣犲",
    "鍦閽",
    "ä½\xa0å¥½",
    "閫鑿犺功娌姝ゆ瀹氫篃涓撶練",
    "鍦\n",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    times = LONG // len(unit.encode()) // 4
    quarter, whole = _cost(unit * times), _cost(unit * times * 4)
    assert whole < 8 * quarter + 0.2  # quadratic work takes sixteen times as long, and that is many seconds


def _cost(text: str) -> float:
    start = time.process_time()
    repair_encoding(text)
    return time.process_time() - start
