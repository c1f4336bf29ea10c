"""From bytes to documents: shapes, reasons, and how each corpus composes its text."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline import manifest as manifests
from corpus.pipeline.read.parse import parser
from corpus.pipeline.read.spans import Parsed
from corpus.pipeline.templates import TRANSLATE, composer, translation_prompt
from tests.support.records import ROOT, baike, examples

SHAPE = manifests.load("baike2018qa").shapes["baike2018qa"]
PARSE = parser(SHAPE)


def parse(raw: bytes, dataset: str = "baike2018qa") -> Parsed:
    return parser(manifests.load(dataset).shapes[dataset])([(0, raw)])


def dumps(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


REASONS = [
    (dumps(baike(1))[:40], "malformed_json"),
    (b"not json", "malformed_json"),
    (b"[" * 100_000, "malformed_json"),
    (dumps(baike(1))[:-1] + b', "deep": ' + b"[" * 300 + b"]" * 300 + b"}", "malformed_json"),
    (b'{"qid":"\\ud800","category":"","title":"a","desc":"","answer":"b"}', "malformed_json"),
    (dumps(baike(1)).replace("第".encode(), b"\xff"), "not_utf8"),
    ("{'qid': 1}".encode("utf-16"), "not_utf8"),
    (dumps(baike(1)).decode().encode("gb18030"), "not_utf8"),
    (b"[1, 2]", "wrong_type"),
    (b'"text"', "wrong_type"),
    (b"null", "wrong_type"),
    (b"3", "wrong_type"),
    (dumps(baike(1, answer=None)), "wrong_type"),
    (dumps(baike(1, title=7)), "wrong_type"),
    (dumps(baike(1, answer={"text": "x"})), "wrong_type"),
    (dumps(baike(1, desc=["x"])), "wrong_type"),
    (dumps(baike(1, qid=1)), "wrong_type"),
    (dumps({key: value for key, value in baike(1).items() if key != "answer"}), "missing_field"),
    (b"{}", "missing_field"),
    (dumps(baike(1)).replace(b'"desc":', b'"title": "x", "desc":'), "duplicate_key"),
    *(
        (dumps(baike(1)).replace(b'"desc":', b'"title"%b: "x", "desc":' % blank), "duplicate_key")
        for blank in (b" ", b"\t", b"\r", b"\n", b" \t")
    ),
]


@pytest.mark.parametrize(("raw", "reason"), REASONS)
def test_reason(raw: bytes, reason: str) -> None:
    parsed = parse(raw)
    assert [reject.reason for reject in parsed.rejects] == [reason]
    assert parsed.rejects[0].raw == raw
    assert not parsed.texts


# quotes and backslashes at their ends
KEYS = st.text(st.sampled_from('":\\\\ \t文a'), max_size=6).map(lambda key: f"k{key}")
GAPS = st.text(st.sampled_from(" \t\r\n"), max_size=2)


@settings(max_examples=examples(400), deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, KEYS, max_size=4), st.sampled_from(sorted(baike(1))), GAPS, st.data())
def test_a_field_that_stands_twice_is_seen_whatever_stands_beside_it(
    others: dict[str, str], field: str, gap: str, data: st.DataObject
) -> None:
    fields = [*(baike(1) | others).items()]
    once = dumps_pairs(fields, "")
    assert not parse(once).rejects
    fields.insert(data.draw(st.integers(0, len(fields))), (field, '":'))
    assert [reject.reason for reject in parse(dumps_pairs(fields, gap)).rejects] == ["duplicate_key"]


def dumps_pairs(fields: list[tuple[str, Any]], gap: str) -> bytes:
    pairs = [f"{json.dumps(key, ensure_ascii=False)}{gap}:{json.dumps(value)}" for key, value in fields]
    return f"{{{','.join(pairs)}}}".encode()


@pytest.mark.parametrize(
    "record",
    [
        baike(1, desc=None),
        {key: value for key, value in baike(1).items() if key not in {"desc", "category"}},
        baike(1, extra={"nested": [1, 2]}),
        baike(1, author={"title": "教授", "answer": {"qid": 1}}),
        baike(1, category=None),
        baike(1, answer='引用"title":两次"title":'),
    ],
)
def test_harmless_differences_are_read(record: dict[str, Any]) -> None:
    parsed = parse(dumps(record))
    assert not parsed.rejects
    meta = json.loads(parsed.metas[0])
    assert all(meta[key] == value for key, value in record.items() if key not in {"title", "desc", "answer"})


def test_crlf_and_blanks_around_a_record_are_read() -> None:
    assert not parse(b"  " + dumps(baike(1)) + b"\r").rejects


@given(st.text(st.sampled_from("水a \u3000\t\n\x1c"), max_size=12))
def test_a_side_of_a_translation_stands_on_one_line(text: str) -> None:
    assert translation_prompt(text) == f"{TRANSLATE}{' '.join(text.split())}, "


def compose(dataset: str, *parts: str) -> tuple[str, int]:
    return composer(manifests.load(dataset).shapes[dataset])(parts)


def test_article_has_its_title_once() -> None:
    assert compose("wiki2019zh", "算盘", "算盘\n\n算盘是计算的工具。") == ("算盘\n\n算盘是计算的工具。", 0)
    assert compose("news2016zh", "桥通车了", "今天上午新桥通车。") == ("桥通车了\n\n今天上午新桥通车。", 0)
    assert compose("news2016zh", "", "今天上午新桥通车。") == ("今天上午新桥通车。", 0)
    assert compose("wiki2019zh", "算盘", "") == ("", 0)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("怎样洗杯子？", "", "用温水。"), "怎样洗杯子？|用温水。"),
        (("怎样洗杯子？", "怎样洗杯子？", "用温水。"), "怎样洗杯子？|用温水。"),
        (("怎样洗杯子？", "洗杯子", "用温水。"), "怎样洗杯子？|用温水。"),
        (("怎样洗杯子？", "怎样洗杯子？是玻璃的。", "用温水。"), "怎样洗杯子？是玻璃的。|用温水。"),
        (("怎样洗杯子？", "有茶垢。", "用温水。"), "怎样洗杯子？\n有茶垢。|用温水。"),
        (("", "", "只有回答。"), "只有回答。"),
    ],
)
def test_question_then_answer(parts: tuple[str, str, str], text: str) -> None:
    question, bar, answer = text.partition("|")
    got, prompt_length = compose("baike2018qa", *parts)
    assert got == (f"{question}\n{answer}" if bar else question)
    assert got[prompt_length:] == parts[2]


def test_question_without_an_answer_is_all_prompt() -> None:
    text, prompt_length = compose("baike2018qa", "怎样洗杯子？", "", "")
    assert prompt_length == len(text)


def test_translation_is_the_zero_shot_form() -> None:
    text, prompt_length = compose("translation2019zh", "The cup is clean.", "杯子是干净的。")
    assert text == "translate english to chinese, The cup is clean., 杯子是干净的。"
    assert text[prompt_length:] == "杯子是干净的。"
    assert compose("translation2019zh", "Half a pair", "") == ("", 0)


def test_webtext_ids_name_question_and_answer() -> None:
    record = {
        "qid": 7,
        "title": "问",
        "desc": "",
        "topic": "",
        "star": 1,
        "content": "答",
        "answer_id": 9,
        "answerer_tags": "",
    }
    assert parse(dumps(record), "webtext2019zh").names == ["7-9"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SHAPE.fields, "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(1500), deadline=None)
@given(st.one_of(st.binary(max_size=80), JSON.map(lambda value: json.dumps(value).encode())))
def test_every_record_comes_out_once(raw: bytes) -> None:
    parsed = PARSE([(5, raw)])
    assert len(parsed.offsets) + len(parsed.rejects) == 1
    assert len(parsed.texts) == 3 * len(parsed.offsets)


@settings(max_examples=examples(500), deadline=None)
@given(st.data())
def test_a_cut_or_flipped_record_never_hurts_its_neighbours(data: st.DataObject) -> None:
    good = dumps(baike(1))
    position = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.sampled_from([good[:position], good[:position] + b"\xff" + good[position + 1 :], good[position:]])
    )
    parsed = PARSE([(0, good), (100, bad), (200, good)])
    assert {0, 200} <= set(parsed.offsets)


STARVED = """
import resource, psutil
from corpus.pipeline import manifest
from corpus.pipeline.read.parse import parser
from tests.support.records import baike
import json
raw = json.dumps(baike(1, answer="话" * 4_500_000), ensure_ascii=False).encode()
parse = parser(manifest.load("baike2018qa").shapes["baike2018qa"])
limit = psutil.Process().memory_info().vms + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print([reject.reason for reject in parse([(0, raw)]).rejects])
except MemoryError:
    print("out of memory")
"""


def test_a_record_that_memory_does_not_hold_is_not_called_malformed() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "out of memory\n", done
