"""Compiled kernels against the Python that they stand in for: the same from every text, whatever it holds."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.pipeline import kernels
from corpus.pipeline.clean import pii, rules, statistics
from corpus.pipeline.manifest import CORPORA, load
from corpus.pipeline.read import parse as records
from corpus.pipeline.text import codepoints
from tests.support.records import ROOT, examples, spliced

pytestmark = pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")
KERNELS = Path(kernels.__file__).parent
GOLDEN = ROOT / "tests" / "golden"
ALL = rules.rules(simplify=True, brackets=True)

ANY = st.text(st.characters(), max_size=30)
TAGS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *"<>/=\"'`!-_:@. \t\n\r\f\vbpSAx1中é\u0130\u0131\u017f\u212a\u3000\u2028𠀀\U0001f600\ud800",
                "</", "/>", "<b", "<br", "<p", "<P", "<S>", "</S>", "<h1", "<H1>", "<Div>", "<rt>", "</rt>", "<RT>",
                "<sup>", "<SUP>", "</sup>", "<blockquote>", "<references/>", "<!--", "-->", "--", "<script>",
                "</script>", "</SCRIPT", "</style>", "</ſcript>", "</strong>", "<rp>", "</rp>", "``", "```", " a=b",
                ' a="b"', " a='b", " checked", " CHECKED", " chec\u212aed", " aſync", " async=1", " é=1",
                " a\u00e9=1", " a𠀀=1", "=", " " * 21, "x" * 62, "10", ")",
            ]
        ),
        st.integers(0, 45).map(lambda times: " a=1" * times),
        st.sampled_from([1990, 1999, 2000, 2001]).map(lambda times: ' a="' + "x" * times + '"'),
        st.sampled_from([1999, 2000, 2001]).map(lambda times: " a=" + "x" * times),
        st.sampled_from([3998, 4000, 4001]).map(lambda times: "<!--" + "x" * times + "-->"),
    ),
    max_size=14,
).map("".join)  # fmt: skip
BLANKS = st.lists(
    st.sampled_from(
        [*" \t\n\u3000\u00a0\u1680\u2000\u200a\u202f\u205fa中`，", "  ", "    ", "\n\n", "```", "``", "\n\n\n"]
    ),
    max_size=20,
).map("".join)
LINES = st.lists(
    st.sampled_from(["同一行字", "同二行字", "", "甲", "a" * 30, "天气很好" * 6, "\x1e", "囧", "１2３４", "  "]),
    max_size=40,
)
NUMBERS = st.lists(
    st.sampled_from(
        [
            *" -.:@#＠xX中微信威VvW\n",
            "1",
            "12",
            "1234",
            "12345",
            "1234 1234",
            "1234-123",
            "1.2.3.4",
            "a@b",
            "::",
            "微信",
            "vx",
        ]
    ),
    max_size=24,
).map("".join)


RULES = {rule.name: rule for rule in ALL.rules if rule.kernel}


def same_by(rule_name: str, texts: list[str]) -> bool:
    """Whether a rule's kernel gives what the rule gives."""
    rule = RULES[rule_name]
    assert rule.kernel
    return rule.kernel(texts) == [rule.apply(text) for text in texts]


def both_ways(work: Callable[[], Any]) -> tuple[Any, Any]:
    """What some work gives with kernels and without."""
    with_kernels = work()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compiled", None)
        return with_kernels, work()


def pure(texts: list[str]) -> list[str]:
    """Texts as rules are given them."""
    return [text.replace(codepoints.SEAM, "") for text in texts]


@settings(max_examples=examples(20_000, 16), deadline=None)
@given(st.lists(st.one_of(TAGS, ANY), max_size=3))
@example(["<b " + "a=1 " * 41 + ">", "<!--" * 3 + "-->", "```<b>```<b>`<b>`<b>`<b>\n`"])
@example(["<rp><!--</rp>-->", "<script><!-- </script> -->b", "``<rp></rp>`", "<rp>`\n`</rp>`", "<b>`</ſtyle"])
@example(["a" * 9 + "<b>", "中" * 9 + "<b\u3000c=d>", "\U0001f600<b>", "\ud800<b>"])
def test_tags_are_the_same(texts: list[str]) -> None:
    assert same_by("strip_tags", pure(spliced(texts)))


@settings(max_examples=examples(8_000, 16), deadline=None)
@given(st.lists(st.one_of(BLANKS, TAGS, ANY), max_size=3))
@example(["```\u3000\u3000```  ```", "````` a  b`````  ", "a ```b  c", "```a  b``` c  d ```e  f```"])
def test_blanks_and_lines_are_the_same(texts: list[str]) -> None:
    assert same_by("collapse_blanks", pure(spliced(texts)))
    assert same_by("collapse_lines", pure(spliced(texts)))


@settings(max_examples=examples(2_000), deadline=None)
@given(
    st.lists(
        st.sampled_from([*"aé中が한ᄀ\u0301\u0316\u3099 ", "\u0301\u0316" * 20, "\u0316" * 29 + "\u0301"]), max_size=8
    )
)
@example(["a", "\u0316\u0301" * 40, "é"])
def test_normal_forms_are_the_same(parts: list[str]) -> None:
    assert same_by("compose_nfc", ["".join(parts), *parts])


@settings(max_examples=examples(8_000, 16), deadline=None)
@given(st.lists(st.one_of(BLANKS, TAGS, NUMBERS, ANY), max_size=4))
@example(["a\x1eb", "", "\x1e", "\n\n", "\n\n\n", "（）", "( )"])
def test_cleaning_is_the_same(texts: list[str]) -> None:
    texts = spliced(texts)
    with_kernels, without = both_ways(lambda: rules.clean_all(texts, ALL))
    assert with_kernels == without


@settings(max_examples=examples(8_000, 16), deadline=None)
@given(st.lists(st.one_of(NUMBERS, ANY), max_size=3))
@example(["1234 5678", "1234 567", "IP 1.2.3.4.5.6", "a:b:c:d", "1234", "电话13900000001"])
def test_masking_is_the_same(texts: list[str]) -> None:
    texts = spliced(texts)
    with_kernels, without = both_ways(lambda: pii.mask_all(texts))
    assert with_kernels == without


def survey(texts: list[str]) -> dict[str, list[int]]:
    asked = statistics.SurveySettings(
        span=6, spans_share=0.7, fewest_lines=8, lines_share=0.5, beginnings=BEGINNINGS, longest=20
    )
    return {name: found.tolist() for name, found in vars_of(statistics.survey(texts, asked)).items()}


def vars_of(found: statistics.Survey) -> dict[str, np.ndarray]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


BEGINNINGS = np.zeros(1 << 16, dtype=np.bool_)
BEGINNINGS[::50] = True


@settings(max_examples=examples(4_000, 16), deadline=None)
@given(st.lists(st.one_of(LINES.map("\n".join), LINES.map("".join), ANY), min_size=1, max_size=4))
@example(["加微信领券包邮" * 3, "好" * 400, "天气" * 300, "\n" * 9, ""])
def test_counts_are_the_same(texts: list[str]) -> None:
    texts = spliced(texts)
    with_kernels, without = both_ways(lambda: survey(texts))
    assert with_kernels == without


VALUES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text('ab":\\ \n\t', max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('k":\\ ', max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(4_000, 16), deadline=None)
@given(st.dictionaries(st.text('k":\\ ', max_size=4), VALUES, max_size=5))
def test_no_key_is_overlooked(record: dict[str, object]) -> None:
    for colon in (":", " :", "\t: ", "\r\n:"):
        raw = json.dumps(record, separators=(",", colon)).encode()
        assert kernels.compiled.keys(raw) >= len(record)
        doubled = raw[:-1] + (b"," if record else b"") + b'"k"' + colon.encode() + b'1,"k"' + colon.encode() + b"2}"
        assert kernels.compiled.keys(doubled) > len(json.loads(doubled))


def spoilt(record: dict[str, object], how: str) -> bytes:
    """A record as it came, or spoilt in one of the ways in which records are."""
    raw = orjson.dumps(record)
    return {
        "as it came": raw,
        "cut off": raw[:-1],
        "a key twice": raw[:-1] + b',"title":"\\u4e24"}',
        "not UTF-8": raw.replace(b"a", b"\xff", 1),
        "a list": b"[" + raw + b"]",
        "nested too deep": raw[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}",
        "a number": b"1",
        "nothing": b"",
    }[how]


SPOILS = ("cut off", "a key twice", "not UTF-8", "a list", "nested too deep", "a number", "nothing")
RECORDS = st.lists(
    st.builds(
        spoilt,
        st.fixed_dictionaries(
            {},
            optional={
                **{
                    name: st.one_of(st.text('a中":\\', max_size=9), st.none(), st.integers(-9, 9))
                    for name in ("desc", "title")
                },
                "answer": st.text('ab":', max_size=9),
                "qid": st.one_of(st.just("qid_1"), st.integers(0, 3)),
                "category": st.just("生活"),
            },
        ),
        st.sampled_from([*["as it came"] * 9, *SPOILS]),
    ),
    max_size=12,
)


PARSERS = [records.parser(next(iter(load(dataset).shapes.values()))) for dataset in CORPORA]


@settings(max_examples=examples(8_000, 4 * len(CORPORA)), deadline=None)
@given(RECORDS)
@example([b'{"qid":"1","title":"a","desc":"b","answer":"c","category":"d"}'] * 2)
def test_records_are_parsed_the_same(raws: list[bytes]) -> None:
    """By each dataset's parser."""
    numbered = [(10 * place, raw) for place, raw in enumerate(raws)]
    for parse in PARSERS:
        with_kernels, without = both_ways(partial(parse, numbered))
        assert with_kernels == without


def test_an_error_in_a_record_is_passed_on() -> None:
    def fails(_: object) -> Any:
        raise MemoryError

    lists: Any = ([], [], [], [], [])
    usual = (("a",), (str,), ("a",), ("b",))
    with pytest.raises(MemoryError):
        kernels.compiled.parse([(0, b"{}")], 0, (fails, orjson.dumps, *usual), lists)
    with pytest.raises(MemoryError):
        kernels.compiled.parse([(0, b'{"a":"","b":1}')], 0, (orjson.loads, fails, *usual), lists)
    with pytest.raises(KeyError):
        kernels.compiled.parse([(0, b'{"a":""}')], 0, (orjson.loads, orjson.dumps, *usual), lists)
    with pytest.raises(ValueError, match="shape"):
        kernels.compiled.parse([], 0, (orjson.loads, orjson.dumps, ("a",), (), ("a",), ("b",)), lists)
    assert lists == ([], [], [], [], [])


def test_colons_in_texts_are_no_keys() -> None:
    keys = kernels.compiled.keys
    assert keys(b'{"a": "b:c", "d" : "\\":\\\\\\":"}') == 2
    assert keys(b'{"a": "\\\\", "b": 1}') == 2
    assert keys(b":" * 1000) == 0
    assert keys(b"") == 0


def test_golden_parts_give_the_same() -> None:
    cases = [
        json.loads(line)
        for path in sorted((GOLDEN / "filter").iterdir())
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    texts = [part for case in cases for part in case["parts"]]
    for work in (lambda: rules.clean_all(texts, ALL), lambda: pii.mask_all(texts), lambda: survey(texts)):
        with_kernels, without = both_ways(work)
        assert with_kernels == without


def test_wrong_arguments_are_refused() -> None:
    wrong: Any = ("不", "是列表")
    with pytest.raises(ValueError, match="needed"):
        kernels.compiled.spots("文", np.zeros(100, dtype=np.uint8))
    with pytest.raises(TypeError):
        kernels.compiled.called(wrong, ALL.flags, ALL.pairs, 1, 1)
    with pytest.raises(TypeError):
        kernels.compiled.collapse_blanks(list(wrong[0].encode()))


@pytest.mark.parametrize("workers", [1, 2])
def test_documents_have_the_same_bytes_without_kernels(tmp_path: Path, workers: int) -> None:
    """The whole command, on the built-in dataset."""
    digests = []
    for switch in ("on", "off"):
        workspace = tmp_path / switch
        command = ["ingest", "--dataset", "demo", "--workers", str(workers), "--workspace", str(workspace)]
        subprocess.run(
            [sys.executable, "-m", "corpus.pipeline.cli", *command],
            check=True, env={**os.environ, kernels.SWITCH: switch}, capture_output=True,
        )  # fmt: skip
        folder = workspace / "documents" / "demo"
        digests.append((folder / "ledger.json").read_bytes())
        engine = json.loads((folder / "timings.json").read_text())["engine"]
        assert engine == {"on": "kernels", "off": "numpy"}[switch]
    assert digests[0] == digests[1]


def test_kernels_of_another_source_are_left_alone(tmp_path: Path) -> None:
    """As after a pull without a new installation; what differs might give other bytes."""
    copy = tmp_path / "kernels"
    copy.mkdir()
    shutil.copy(str(kernels.compiled.__file__), copy)
    for path in (*KERNELS.glob("_*.[ch]"), KERNELS / "__init__.py"):
        shutil.copy(path, copy)
    show = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import corpus.pipeline; "
    show += f"corpus.pipeline.__path__ = [{str(tmp_path)!r}]; from corpus.pipeline import kernels; print(kernels.NAME)"
    for engine in ("kernels", "numpy"):
        done = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == engine
        (copy / "_bpe.c").write_text("/* another */")


def test_kernels_that_are_missing_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.notes() == ()
    monkeypatch.setattr(kernels, "compiled", None)
    (note,) = kernels.notes()
    assert "C compiler" in note
    monkeypatch.setenv(kernels.SWITCH, "off")
    assert kernels.notes() == ()
