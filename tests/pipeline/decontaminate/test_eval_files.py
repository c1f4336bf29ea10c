"""Evaluation files: every format, every name, and what is told of files that are not what they should be."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.pipeline.decontaminate import eval_files
from corpus.pipeline.decontaminate.ngram_index import Owner
from corpus.pipeline.errors import SourceError
from corpus.pipeline.read import items
from tests.support.records import lines

ITEMS = [
    {"question": "渡口从前每天要过多少人？", "answer": "三百多人，赶集的日子更多。"},
    {"question": "渡船如今拴在哪一棵树下？", "answer": "拴在“河湾”边的老柳树下，\n晒太阳。"},
]
TEXTS = [(number, key, item[key]) for number, item in enumerate(ITEMS, 1) for key in ("question", "answer")]


def _parquet(items: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(items), out)
    return out.getvalue()


def _cells(items: list[dict[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(items[0]))
    writer.writeheader()
    writer.writerows(items)
    return out.getvalue().encode()


FORMS: dict[str, bytes] = {
    "set.jsonl": lines(ITEMS),
    "set.ndjson": lines(ITEMS).replace(b"\n", b"\r\n"),
    "set.json": json.dumps(ITEMS, ensure_ascii=False, indent=2).encode(),
    "escaped.json": json.dumps(ITEMS).encode(),
    "object.json": json.dumps({"version": "1", "data": ITEMS}, ensure_ascii=False).encode(),
    "lines.json": lines(ITEMS),
    "mark.jsonl": b"\xef\xbb\xbf" + lines(ITEMS),
    "set.csv": _cells(ITEMS),
    "set.parquet": _parquet(ITEMS),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def lay(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def texts(evaluation: eval_files.Evaluation) -> list[tuple[int, str, str]]:
    return [(owner.item, owner.field, text) for owner, text in evaluation.texts]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_items(tmp_path: Path, name: str, packed: str) -> None:
    path = lay(tmp_path, name + packed, PACKED[packed](FORMS[name]))
    found = eval_files.read(path)
    assert (found.file, found.items, set(found.fields)) == (name + packed, 2, {"question", "answer"})
    assert texts(found) == TEXTS
    assert {owner.file for owner, _ in found.texts} == {name + packed}
    only = [text for text in TEXTS if text[1] == "answer"]
    assert texts(eval_files.read(path, ["answer"])) == only


def test_packed_files_of_several_frames_are_whole(tmp_path: Path) -> None:
    for ending in (".gz", ".xz", ".zst"):
        parts = [PACKED[ending](lines([item])) for item in ITEMS]
        assert texts(eval_files.read(lay(tmp_path, f"set.jsonl{ending}", b"".join(parts)))) == TEXTS


def test_plain_text_is_an_item_a_line(tmp_path: Path) -> None:
    found = eval_files.read(
        lay(tmp_path, "set.txt", "渡口从前每天要过多少人？\r\n\r\n  \n渡船如今拴在哪里晒太阳？".encode())
    )
    assert [owner for owner, _ in found.texts] == [Owner("set.txt", 1, "text"), Owner("set.txt", 4, "text")]
    assert found.items == 2


def test_cells_between_tabs_keep_their_quotes(tmp_path: Path) -> None:
    rows = 'question\tanswer\n"渡口"从前每天要过多少人？\t他说"三百多人\n渡船如今拴在哪一棵树下？\n'
    found = eval_files.read(lay(tmp_path, "set.tsv", rows.encode()))
    assert texts(found) == [
        (1, "question", '"渡口"从前每天要过多少人？'),
        (1, "answer", '他说"三百多人'),
        (2, "question", "渡船如今拴在哪一棵树下？"),
    ]


def test_a_large_cell_is_read(tmp_path: Path) -> None:
    item = {"question": "渡船" * 100_000, "answer": "好"}
    before = csv.field_size_limit()
    assert texts(eval_files.read(lay(tmp_path, "set.csv", _cells([item]))))[0] == (1, "question", "渡船" * 100_000)
    assert csv.field_size_limit() == before


NESTED = {
    "title": "渡口",
    "paragraphs": [
        {"context": "从前渡口每天要过三百多人。", "qas": [{"question": "每天要过多少人呢？", "answers": ["三百多人"]}]},
        {"context": "如今桥修好了，渡船只开两趟。", "qas": [{"question": "渡船如今开几趟呢？", "answers": []}]},
    ],
    "id": 7,
    "source": None,
}


@pytest.mark.parametrize(("name", "make"), [("set.jsonl", lines), ("set.parquet", _parquet)])
def test_nested_fields_have_dotted_names(tmp_path: Path, name: str, make: Callable[[Any], bytes]) -> None:
    path = lay(tmp_path, name, make([NESTED, NESTED]))
    found = eval_files.read(path, ["paragraphs.context"])
    contexts = [part["context"] for part in NESTED["paragraphs"]]  # type: ignore[attr-defined]
    assert texts(found) == [(number, "paragraphs.context", context) for number in (1, 2) for context in contexts]
    assert set(found.fields) == {
        "title",
        "paragraphs.context",
        "paragraphs.qas.question",
        "paragraphs.qas.answers",
    }
    inner = [(owner.item, owner.field) for owner, _ in eval_files.read(path, ["paragraphs.qas"]).texts]
    assert inner[:3] == [
        (1, "paragraphs.qas.question"),
        (1, "paragraphs.qas.answers"),
        (1, "paragraphs.qas.question"),
    ]
    assert len(eval_files.read(path).texts) == 2 * 6


def test_a_field_is_not_taken_for_one_that_begins_like_it(tmp_path: Path) -> None:
    path = lay(tmp_path, "set.jsonl", lines([{"question": ITEMS[0]["question"], "question_en": "How many a day?"}]))
    assert [owner.field for owner, _ in eval_files.read(path, ["question"]).texts] == ["question"]


def test_deep_nesting_is_walked(tmp_path: Path) -> None:
    deep = "[" * 1000 + '"渡口从前每天要过多少人？"' + "]" * 1000
    assert texts(eval_files.read(lay(tmp_path, "set.jsonl", f'{{"a": {deep}}}\n{{}}\n'.encode()))) == [
        (1, "a", "渡口从前每天要过多少人？")
    ]


GB = "渡口从前每天要过多少人？".encode("gb18030")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("set.jsonl", lines(ITEMS) + b'{"question": "\xb6\xc9"}\n', ":3: expected UTF-8"),
        ("set.txt", GB, ":1: expected UTF-8"),
        ("set.csv", b"question\n" + GB, ":2: expected UTF-8"),
        ("set.jsonl", lines(ITEMS) + b'{"question": \n', ":3: expected a JSON value"),
        ("set.jsonl", lines(ITEMS) + b'{"question": "\\ud800"}\n', ":3: expected a JSON value"),
        ("set.json", b'[{"question": "x"},\n {"question"', ":2: expected a JSON list"),
        ("set.json", b"17", "found int"),
        ("set.csv", 'question,answer\n"渡口从前'.encode(), ":2: expected a row"),
        ("set.csv", "question\n渡口,从前\n".encode(), ":2: expected at most 1 cells"),
        ("set.tsv", "question\n渡口\t从前\n".encode(), ":2: expected at most 1 cells"),
        ("set.parquet", b"PAR1 and no more", "expected Parquet"),
        ("set.parquet", _parquet(ITEMS)[:-40], "expected Parquet"),
        ("set.jsonl.gz", lines(ITEMS), "cannot be decompressed"),
        ("set.jsonl.gz", gzip.compress(lines(ITEMS))[:-20], "cannot be decompressed"),
        ("set.jsonl.xz", lzma.compress(lines(ITEMS))[:-20], "cannot be decompressed"),
        ("set.jsonl.xz", b"no such thing", "cannot be decompressed"),
        ("set.jsonl.zst", b"no such thing", "cannot be read: ZSTD"),
        ("set.jsonl.zst", zstandard.compress(lines(ITEMS))[:-5], "cannot be read: Truncated"),
        ("set.xlsx", b"PK", "format cannot be recognized"),
        ("set", lines(ITEMS), "format cannot be recognized"),
        ("set.jsonl", b"", "it has no items"),
        ("set.json", b"[]", "it has no items"),
        ("set.csv", b"", "it has no items"),
        ("set.csv", b"question,answer\n", "it has no items"),
        ("set.txt", b"\n \n", "it has no items"),
        ("set.parquet", _parquet([{"n": 1}]), "its items have no text"),
        ("set.jsonl", b"1\n2\n", "its items have no text"),
        ("set.jsonl", lines([{"answer": "A"}, {"answer": "渡口，从前！"}]), "shorter than 8 Chinese characters"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = lay(tmp_path, name, data)
    with pytest.raises(SourceError) as caught:
        eval_files.read(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize("encoding", ["GB18030", "UTF-16"])
def test_another_encoding_is_told_with_what_converts_it(tmp_path: Path, encoding: str) -> None:
    path = lay(tmp_path, "set.txt", GB.decode("gb18030").encode(encoding))
    with pytest.raises(SourceError) as caught:
        eval_files.read(path)
    assert caught.value.hint == f"Convert it with `iconv -f {encoding} -t UTF-8`."


def test_missing_fields_are_told_with_those_there_are(tmp_path: Path) -> None:
    lay(tmp_path, "one.jsonl", lines(ITEMS))
    with pytest.raises(SourceError, match=r"no item has a requested field; they have question, answer"):
        eval_files.read(tmp_path / "one.jsonl", ["context"])
    lay(tmp_path, "two.jsonl", lines([{"context": ITEMS[0]["answer"], "question": ITEMS[0]["question"]}]))
    assert [len(found.texts) for found in eval_files.read_all(tmp_path, ["question"])] == [2, 1]
    assert [len(found.texts) for found in eval_files.read_all(tmp_path, ["context"])] == [4, 1]  # one.jsonl has none
    with pytest.raises(SourceError, match="no evaluation file has the field contxt; they have answer, context, quest"):
        eval_files.read_all(tmp_path, ["question", "contxt"])


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"set\.jsonl cannot be read: No such file"):
        eval_files.read(tmp_path / "set.jsonl")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_BYTES", 1 << 20)
    bomb = "渡口".encode() * 200_000
    for name, data in (
        ("set.txt", bomb),
        ("set.txt.gz", gzip.compress(bomb)),
        ("set.txt.xz", lzma.compress(bomb)),
        ("set.txt.zst", zstandard.compress(bomb)),
        ("set.parquet", _parquet([{"text": f"{n} 渡口从前每天要过多少人" * 20} for n in range(2000)])),
    ):
        with pytest.raises(SourceError, match="larger than"):
            eval_files.read(lay(tmp_path, name, data))
