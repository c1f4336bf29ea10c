"""Records of a file: every cut, every layout, and files that are of another shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline import manifest as manifests
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import ShapeError, SourceError
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.records import read
from corpus.pipeline.read.spans import SIZES, ReadSizes, RecordFile, Span
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID, Listener
from tests.support.ingested import documents, make, rejected
from tests.support.records import LayRaw, baike, lines


@pytest.mark.parametrize("piece_bytes", [5000, 1 << 20])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_plain_text_layout_is_sniffed(workspace: Workspace, lay_raw: LayRaw, newline: str, piece_bytes: int) -> None:
    text = (newline * 2).join(
        f"第{n}篇的第一句话写在这里。{newline}第{n}篇的第二句话写在下一行，好让它够长也够清楚。" for n in range(80)
    )
    lay_raw("wiki2019zh", {"wiki_train.txt": text.encode()})
    listener = Listener()
    ingest.run(IngestConfig(dataset="wiki2019zh", workers=1, piece_bytes=piece_bytes), workspace, progress=listener)
    rows = documents(workspace, "wiki2019zh")
    assert len(rows) == 80
    assert rows[3]["text"] == "第3篇的第一句话写在这里。\n第3篇的第二句话写在下一行，好让它够长也够清楚。"
    assert any("plain text" in line for line in listener.said)


PAGE = b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head><body>" + b"<p>no</p>\n\n" * 40
TABLE = "\n".join(f"qid_{n},第{n}个问题,第{n}个回答" for n in range(50)).encode()


@pytest.mark.parametrize(("data", "says"), [(PAGE, "is an HTML page"), (TABLE, "not records of baike2018qa")])
def test_what_is_no_json_is_not_taken_for_text(workspace: Workspace, lay_raw: LayRaw, data: bytes, says: str) -> None:
    lay_raw("baike2018qa", {TRAIN: data})
    with pytest.raises((ShapeError, SourceError), match=says):
        make(workspace)


@pytest.mark.parametrize(
    ("name", "split"), [("zhwiki-latest.txt", "hash"), ("wiki.test.txt", "test"), ("dev_wiki.txt", "validation")]
)
def test_splits_by_name(workspace: Workspace, lay_raw: LayRaw, name: str, split: str) -> None:
    text = "\n\n".join(f"第{n}篇写的是一件寻常的小事，从头到尾讲得很清楚，谁都看得懂，也都记得住。" for n in range(9))
    lay_raw("wiki2019zh", {f"A/{name}": text.encode(), f"B/{name}": text.encode()})
    (file, twin) = list_files(workspace.raw("wiki2019zh"), manifests.load("wiki2019zh"))
    assert (file.split, file.layout, file.path) == (split, "text", f"A/{name}")
    assert file.tail != twin.tail


AS_THEY_ARE = "".join(json.dumps(baike(n), ensure_ascii=False) + "\n" for n in range(30))
SHAPES = [
    ("[" + ",\n".join(json.dumps(baike(n)) for n in range(30)) + "]", "JSON array"),
    (lines([baike(n) for n in range(30)]).decode().encode("utf-16"), "UTF-16"),
    (lines([{"question": "x", "answer": "y"}] * 30), "fields qid (str)"),
    (AS_THEY_ARE.encode("gb18030"), "look like GB18030"),
    (AS_THEY_ARE.encode("gb18030"), "iconv -f GB18030 -t UTF-8"),
    (AS_THEY_ARE.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    (b"\x00\x01\x02\x03{" * 20 + b"\n" + b"\n".join([b"\xff\xfe"] * 40), "not_utf8"),
]


@pytest.mark.parametrize(("data", "says"), SHAPES)
def test_another_shape_stops_early(workspace: Workspace, lay_raw: LayRaw, data: Any, says: str) -> None:
    lay_raw("baike2018qa", {TRAIN: data.encode() if isinstance(data, str) else data})
    with pytest.raises(ShapeError) as caught:
        make(workspace)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert not (workspace.documents("baike2018qa") / "ledger.json").exists()


def test_bom_nul_and_a_very_long_line(workspace: Workspace, lay_raw: LayRaw) -> None:
    long = json.dumps(baike(5, answer="长" * SIZES.record)).encode()
    assert len(long) > SIZES.record
    data = (
        b"\xef\xbb\xbf"
        + lines([baike(n) for n in range(40)])
        + long
        + b"\n"
        + b"\x00\x00\n\n \n"
        + lines([baike(50)]).rstrip(b"\n")
    )
    lay_raw("baike2018qa", {TRAIN: data})
    counts = make(workspace).ledger.counts
    assert counts["documents"] == 41
    assert counts["dropped"] == {"malformed_json": 1, "too_large": 1}
    rows = rejected(workspace)
    assert rows[0]["raw"] == long[: SIZES.rejected]
    assert f"{len(long):,} bytes" in rows[0]["detail"]


def test_empty_file(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", {TRAIN: b"", VALID: lines([baike(1)])})
    assert make(workspace).ledger.counts["documents"] == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("ab\u4e00 ", max_size=30), max_size=40), st.integers(1, 200), st.booleans())
def test_any_cut_reads_every_line_once(tmp_path: Path, texts: list[str], piece_bytes: int, closed: bool) -> None:
    data = "\n".join(texts).encode() + (b"\n" if closed else b"")
    (tmp_path / "x").write_bytes(data)
    file = RecordFile(
        container="x", codec="plain", path="x", tail="x", split="train", shape="s", layout="lines", bytes=len(data)
    )
    got = [
        entry
        for start in range(0, max(1, len(data)), piece_bytes)
        for records, _ in read(tmp_path, Span(file, start, start + piece_bytes))
        for entry in records
    ]
    assert [record for _, record in got] == [text.encode() for text in texts if text.strip()]
    assert all(data[offset:].startswith(record) for offset, record in got)
    assert len(data) < SIZES.block


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_the_longest_record_of_plain_text_is_whole_wherever_a_read_ends(tmp_path: Path, end: bytes) -> None:
    file = RecordFile(
        container="a.txt", codec="plain", path="a.txt", tail="a.txt", split="train", shape="baike2018qa", layout="text",
        bytes=None,
    )  # fmt: skip
    (tmp_path / "a.txt").write_bytes(end + b"x" * 40 + end + b"y" * 41 + end + b"z")
    for size in range(1, 60):
        sizes = ReadSizes(record=40, rejected=10, read=size, sniff=4)
        blocks = list(read(tmp_path, Span(file, 0, None), sizes=sizes))
        assert [record for records, _ in blocks for _, record in records] == [b"x" * 40, b"z"]
        assert [reject.raw for _, rejects in blocks for reject in rejects] == [b"y" * 10]
