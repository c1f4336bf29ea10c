"""Records of users' own datasets: nested fields, conversations, splits in a field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corpus.pipeline.manifest import Shape
from corpus.pipeline.manifest import parse as parse_manifest
from corpus.pipeline.read.parse import parser
from corpus.pipeline.read.spans import Parsed

CHAT = 'form = "chat"\nturns = "messages"\n'
NESTED = 'form = "question"\ntitle = "data.q"\ndetail = "data.more"\nanswer = "data.answers.0"\nid = ["n"]\n'


def shape(document: str) -> Shape:
    manifest = parse_manifest(f'name = "mine"\n[document]\n{document}', where="mine.toml", own=True)
    return manifest.shapes["mine"]


def parse(document: str, *records: Any) -> Parsed:
    raws = [record if type(record) is bytes else json.dumps(record).encode() for record in records]
    return parser(shape(document))(list(enumerate(raws)))


def test_nested_fields() -> None:
    parsed = parse(NESTED, {"n": 7, "data": {"q": "问", "answers": ["答", "另答"]}, "kept": [1]})
    assert (parsed.texts, parsed.names) == (["问", "", "答"], ["7"])
    assert json.loads(parsed.metas[0]) == {"n": 7, "data": {"answers": ["答", "另答"]}, "kept": [1]}
    assert parse('form = "article"\nbody = "a.b"\n', {"a.b": "名中有点"}).texts == ["名中有点"]
    assert json.loads(parse('form = "article"\nbody = "a.b"\n', {"a": {"b": "文"}, "n": 2**70}).metas[0])["n"] == 2**70


@pytest.mark.parametrize(
    ("record", "reason", "says"),
    [
        ({"n": 1, "data": {"q": "问", "answers": []}}, "missing_field", "'data.answers.0' is missing"),
        ({"n": 1, "data": {"q": 3, "answers": ["答"]}}, "wrong_type", "'data.q' is int, not str"),
        ({"n": [1], "data": {"q": "问", "answers": ["答"]}}, "wrong_type", "'n' is list, not str or int"),
        ([1], "wrong_type", "not an object"),
        (b'{"n": 1, "n": 2}', "duplicate_key", "'n' stands more than once"),
        (b'{"n": NaN}', "malformed_json", ""),
        (b'{"n": "\xb9"}', "not_utf8", "byte 7"),
        (b'{"n": ', "malformed_json", ""),
        (b"[" * 5000, "malformed_json", ""),
    ],
)  # fmt: skip
def test_records_of_another_shape(record: Any, reason: str, says: str) -> None:
    (reject,) = parse(NESTED, record).rejects
    assert (reject.reason, reject.offset) == (reason, 0)
    assert says in reject.detail


def said(*turns: tuple[str, str], names: tuple[str, str] = ("role", "content")) -> dict[str, Any]:
    return {"messages": [dict(zip(names, turn, strict=True)) for turn in turns]}


def test_conversations() -> None:
    openai = said(
        ("system", "要简短。"), ("user", "问一"), ("assistant", "答一"), ("user", "问二"), ("assistant", "答二")
    )
    sharegpt = said(("gpt", "你好！"), ("human", "问"), ("human", "还问"), ("gpt", "答"), ("human", "没有下文"),
                    names=("from", "value"))  # fmt: skip
    parts = said(("user", "x"), ("assistant", "y"))
    parts["messages"][0]["content"] = [{"type": "text", "text": "上"}, {"type": "text", "text": "下"}]
    sides = [{"role": None, "from": "human", "content": None, "value": "列里的问"},
             {"role": None, "from": "gpt", "content": None, "value": "列里的答"}]  # fmt: skip
    parsed = parse(CHAT, openai, sharegpt, parts, {"messages": sides})
    assert parsed.texts == [
        "要简短。\n问一",
        "答一",
        "问二",
        "答二",
        "问\n还问",
        "答",
        "上下",
        "y",
        "列里的问",
        "列里的答",
    ]
    assert parsed.sizes == [4, 2, 2, 2]
    assert parsed.metas == ["{}"] * 4


def test_a_system_prompt_and_an_answer_in_fields_of_their_own() -> None:
    record = said(("user", "问")) | {"system": "要简短。", "chosen": "好答", "rejected": "坏答"}
    parsed = parse(CHAT + 'system = "system"\nanswer = "chosen"\n', record)
    assert parsed.texts == ["要简短。\n问", "好答"]
    assert json.loads(parsed.metas[0]) == {"rejected": "坏答"}


@pytest.mark.parametrize(
    ("record", "reason", "says"),
    [
        (said(("tool", "x")), "wrong_type", "'messages.0' is said by 'tool'"),
        (said(("user", "问")), "missing_field", "no question with an answer"),
        (said(("assistant", "答")), "missing_field", "no question with an answer"),
        ({"messages": ["问"]}, "wrong_type", "'messages.0' is str, not an object"),
        ({"messages": "问"}, "wrong_type", "'messages' is str, not list"),
        (said(("user", "x"), ("assistant", None)), "wrong_type", "'messages.1' has no text"),  # type: ignore[arg-type]
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "wrong_type", "has no text"),
    ],
)  # fmt: skip
def test_what_is_no_conversation(record: Any, reason: str, says: str) -> None:
    (reject,) = parse(CHAT, record).rejects
    assert reject.reason == reason
    assert says in reject.detail


def test_a_field_that_says_the_split() -> None:
    records = [{"t": f"第{n}篇", "s": split} for n, split in enumerate(["train", "Dev", " valid", "test"])]
    parsed = parse('form = "article"\nbody = "t"\nsplit = "s"\n', *records, {"t": "x", "s": "all"})
    assert parsed.splits == ["train", "validation", "validation", "test"]
    assert parsed.rejects[0].reason == "wrong_type"
    assert "'s' is 'all', not train" in parsed.rejects[0].detail
