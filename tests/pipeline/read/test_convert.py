"""Other formats read as JSON Lines: the same records, however the bytes come."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline.errors import SourceError
from corpus.pipeline.manifest import Shape
from corpus.pipeline.read.convert import converted
from corpus.pipeline.read.parse import parser
from corpus.pipeline.read.spans import ReadSizes, RecordFile
from tests.support.records import examples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def file(layout: str, path: str = "文/甲.json") -> RecordFile:
    return RecordFile(
        container="x", codec="plain", path=path, tail=path, split="train", shape="x", layout=layout, bytes=None
    )  # fmt: skip


def read(data: bytes, layout: str, *, size: int = 1 << 20, step: int = 1000, path: str = "文/甲.json") -> list[Any]:
    """The records, read in steps."""
    stream = converted(io.BytesIO(data), file(layout, path), ReadSizes(read=size))
    found = b""
    while part := stream.read(step):
        assert len(part) <= step
        found += part
    return [json.loads(line) for line in found.splitlines()]


@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=6),
    st.sampled_from((1, 7, 64, 4096)),
    st.sampled_from((None, 2)),
    st.integers(1, 50),
)
def test_the_elements_of_an_array(records: list[Any], size: int, indent: int | None, step: int) -> None:
    data = json.dumps(records, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")
    assert read(data, "array", size=size, step=step) == records


NO_ARRAYS = [b'[{"a": 1}', b'[{"a": 1} {"b": 2}]', b'[{"a": 1}, {bad}]', b'{"a": 1}', b"", b"[1,", b"[1] 2"]


@pytest.mark.parametrize("data", NO_ARRAYS)
def test_what_is_no_array_is_named(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"甲\.json.* JSON array"):
        read(data, "array")


def test_tables_with_quotes_and_line_ends() -> None:
    text = '\ufeff问,答\r\n"一,二","上\r\n下"\r\n\r\n三,"他说""好"""\r\n'
    assert read(text.encode(), "csv", size=3) == [{"问": "一,二", "答": "上\r\n下"}, {"问": "三", "答": '他说"好"'}]
    assert read("问\t答\n一,二\t四\n".encode(), "tsv") == [{"问": "一,二", "答": "四"}]
    assert read('问,答\n"错"位,了\n一,二\n'.encode(), "csv") == [
        "line 2: ',' expected after '\"'", {"问": "一", "答": "二"},
    ]  # fmt: skip
    with pytest.raises(SourceError, match="lines 2 to 3: a quote is opened and not closed"):
        read('问,答\n"没有合上,的引号\n一,二\n'.encode(), "csv")
    assert read('问\t答\n"一\t二\n三\t"四"\n'.encode(), "tsv") == [
        {"问": '"一', "答": "二"},
        {"问": "三", "答": '"四"'},
    ]
    assert read("问,答\n只有一栏\n".encode(), "csv") == [["只有一栏"]]  # the parser rejects what is no object


def test_an_escaped_surrogate_is_left_to_the_parser() -> None:
    line = converted(io.BytesIO(b'[{"t": "\\ud800"}]'), file("array"), ReadSizes()).read()
    assert line == b'{"t": "\\ud800"}\n'


ODD = ['{"t": "雨",\n "t": "晴"}', '{"t": "雨", "n": {"x": NaN}}', '{"t": "雨", "n": -Infinity}']


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize("form", ["article", "chat"])
def test_an_element_is_rejected_as_it_is_on_a_line(form: str, size: int) -> None:
    """A repeated key and NaN, which a decoded value no longer shows."""
    roles = {"body": "t"} if form == "article" else {"turns": "t"}
    fields: dict[str, type] = {"t": str if form == "article" else list}
    parse = parser(Shape(fields=fields, form=form, roles=roles, id_fields=()))
    whole = '{"t": "雾", "n": {"x": 1}}'
    data = f"[{whole},{','.join(ODD)}, {whole}]".encode()
    made = converted(io.BytesIO(data), file("array"), ReadSizes(read=size)).read().splitlines()
    told = [[reject.reason for reject in parse([(0, line)]).rejects] for line in made]
    assert told == [[each.reason for each in parse([(0, line.encode())]).rejects] for line in (whole, *ODD, whole)]
    assert [reasons[:1] for reasons in told[1:4]] == [["duplicate_key"], ["malformed_json"], ["malformed_json"]]


@pytest.mark.parametrize(
    ("text", "says"), [("", "header of different names"), ("同,同\n1,2\n", "header"), ("问;答\n1;2\n", "semicolons")]
)
def test_a_table_needs_a_header(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        read(text.encode(), "csv")


def test_a_file_is_a_document() -> None:
    (record,) = read("\ufeff## 雨 ##\n\n下了一夜。\n".encode(), "file", path="集/一.md")
    assert record == {"path": "集/一.md", "name": "一", "title": "雨", "text": "下了一夜。"}
    (record,) = read("没有题目，#只是字。\n".encode(), "file")
    assert (record["title"], record["text"]) == ("", "没有题目，#只是字。")
    front = 'title: "前言"\ntags: [雨]'
    (record,) = read(f"---\n{front}\n---\n\n下了一夜。\n".encode(), "file")
    assert (record["title"], record["text"], record["front_matter"]) == ("前言", "下了一夜。", front)
    (record,) = read(f"---\n{front}\n---\n# 雨\n下了一夜。".encode(), "file")
    assert (record["title"], record["text"]) == ("雨", "下了一夜。")
    (record,) = read("---\n不是前言的一行\n".encode(), "file")
    assert record["text"] == "---\n不是前言的一行"


def test_another_encoding_reaches_the_parser_as_it_is() -> None:
    """It is rejected there as not UTF-8, with the bytes."""
    for layout, data in (("csv", "问,答\n雨,晴\n"), ("array", '[{"问": "雨"}]'), ("file", "雨\n晴")):
        line = converted(io.BytesIO(data.encode("gb18030")), file(layout), ReadSizes()).read().rstrip(b"\n")
        with pytest.raises(UnicodeDecodeError):
            line.decode("utf-8")
        assert b"\n" not in line
