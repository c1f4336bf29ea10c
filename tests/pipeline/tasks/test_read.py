"""Items of a task: every format and split, and what is told of data that are not what the task says."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.pipeline.errors import TaskError
from corpus.pipeline.manifest import Split
from corpus.pipeline.tasks import DEMOS, SplitRule, Task, ask, load, parse, read, read_all
from tests.support.records import lines
from tests.support.tasks import FILES, ITEMS, SETS, TASK, lay_task


def _csv(items: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(items[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(items)
    return out.getvalue().encode()


def _parquet(items: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(items), out)
    return out.getvalue()


def _zip(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"set/{name}", data)
    return out.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "set.jsonl": lambda: lines(ITEMS),
    "set.json": lambda: json.dumps(ITEMS).encode(),
    "set.csv": lambda: _csv(ITEMS),
    "set.tsv": lambda: _csv(ITEMS, "\t"),
    "set.parquet": lambda: _parquet(ITEMS),
    "set.jsonl.gz": lambda: gzip.compress(lines(ITEMS)),
    "set.csv.xz": lambda: lzma.compress(_csv(ITEMS)),
    "set.json.zst": lambda: zstandard.compress(json.dumps(ITEMS).encode()),
    "set.zip": lambda: _zip("part.jsonl", lines(ITEMS)),
    "packed.zip": lambda: _zip("part.jsonl.gz", gzip.compress(lines(ITEMS))),
}


@pytest.fixture
def task() -> Task:
    return parse(TASK, where="weather.toml", file=Path("weather.toml"))


def choice(labels: str = "", options: str = '"options"') -> Task:
    text = f'name = "lunch"\nkind = "choice"\n{labels}\n[fields]\ncontext = "text"\noptions = {options}\nlabel = "key"'
    return parse(f"{text}\n[source.test]\n", where="lunch.toml", file=Path("lunch.toml"))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_items(tmp_path: Path, task: Task, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name]())
    train = read(task, tmp_path / name, "train")
    assert [(item.id, item.texts, item.label) for item in train] == [
        (record["id"], (record["text"],), label) for record, label in zip(ITEMS, (0, 1), strict=False)
    ]
    (test,) = read(task, tmp_path / name, "test")
    inside = f"set/{'part.jsonl.gz' if name == 'packed.zip' else 'part.jsonl'}"
    assert re.sub(r"\d$", "", test.place) == f"{inside if name.endswith('.zip') else name}:"


def test_blank_rows_are_no_items_and_one_line_is_one_item(tmp_path: Path, task: Task) -> None:
    (tmp_path / "set.csv").write_bytes(_csv(ITEMS).replace(b"\r\n", b"\r\n\r\n"))
    assert [item.id for item in read(task, tmp_path / "set.csv", "train")] == ["a", "b"]
    (tmp_path / "set.jsonl").write_bytes(lines([ITEMS[2] | {"spans": [{"begin": 1}]}]))
    assert [item.id for item in read(task, tmp_path / "set.jsonl", "test")] == [ITEMS[2]["id"]]


def test_a_task_finds_the_data_beside_it(tmp_path: Path) -> None:
    assert [item.id for item in read(load(str(lay_task(tmp_path))), None, "train")] == ["a", "b"]


def test_splits_by_file_in_a_folder(tmp_path: Path, task: Task) -> None:
    for name, records in (("train/1.jsonl", ITEMS[:1]), ("train/2.jsonl", ITEMS[1:2]), ("dev.jsonl", ITEMS[2:])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines({key: record[key] for key in ("text", "label")} for record in records))
    (tmp_path / "notes.txt").write_text("no data")
    splits: dict[Split, SplitRule] = {
        "train": SplitRule(files=("train/*.jsonl",)),
        "test": SplitRule(files=("dev.jsonl",)),
    }
    fields = {"text": "text", "label": "label"}
    task = replace(task, source=replace(task.source, split_field="", splits=splits), fields=fields)
    assert [item.id for item in read(task, tmp_path, "train")] == ["train/1.jsonl:1", "train/2.jsonl:1"]
    assert [item.id for item in read(task, tmp_path, "test")] == ["dev.jsonl:1"]


def test_what_is_held_out_is_apart_and_stays(tmp_path: Path, task: Task) -> None:
    records = [{"id": str(n), "unit": str(n // 4), "text": f"第{n}天没有下雨。", "label": "dry"} for n in range(400)]
    (tmp_path / "set.jsonl").write_bytes(lines(records))
    splits: dict[Split, SplitRule] = {
        "train": SplitRule(),
        "validation": SplitRule(held_out_of="train", share=0.1),
        "test": SplitRule(held_out_of="train", share=0.25),
    }
    task = replace(task, source=replace(task.source, split_field="", splits=splits))
    found = {split: {item.id for item in read(task, tmp_path / "set.jsonl", split)} for split in splits}
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == 400
    assert 20 < len(found["validation"]) < 60 < len(found["test"]) < 140
    (tmp_path / "set.jsonl").write_bytes(lines([{"id": "new", "unit": "x", "text": "晴。", "label": "dry"}, *records]))
    again = {split: {item.id for item in read(task, tmp_path / "set.jsonl", split)} for split in splits}
    assert all(found[split] <= again[split] for split in splits)
    task = replace(task, source=replace(task.source, unit_field="unit"))
    units = {split: {int(item.id) // 4 for item in read(task, tmp_path / "set.jsonl", split) if item.id != "new"} for
             split in splits}  # fmt: skip
    assert sum(map(len, units.values())) == 100


def test_fields_may_be_dotted_or_templates(tmp_path: Path, task: Task) -> None:
    record = {"id": 7, "a": {"b": ["{x}", 3]}, "text": "晴", "label": {"of": "dry"}, "split": "test"}
    (tmp_path / "set.jsonl").write_bytes(lines([record]))
    fields = {"text": "{text}，{a.b.0}{a.b.1}", "label": "label.of", "id": "id", "group": "{split}-{id}"}
    (item,) = read(replace(task, fields=fields), tmp_path / "set.jsonl", "test")
    assert (item.texts, item.id, item.group) == (("晴，{x}3",), "7", "test-7")


def test_labels_left_out_are_no_items(tmp_path: Path, task: Task) -> None:
    (tmp_path / "set.jsonl").write_bytes(lines([*ITEMS, {**ITEMS[2], "id": "d", "label": ["wet", "dry"]}]))
    with pytest.raises(TaskError, match="label 'wetdry' of field 'label' is not known"):
        read(task, tmp_path / "set.jsonl", "test")
    assert len(read(replace(task, ignored=("wetd*",)), tmp_path / "set.jsonl", "test")) == 1


@pytest.mark.parametrize(
    ("labels", "key", "label"),
    [
        ("", 1, 1), ("", "1", 1), ("", "b", 1), ("", "B", 1), ("", "面", 1), ("", ["C"], 2),
        ('labels = ["1", "2", "3"]', 2, 1), ('labels = ["甲", "乙", "丙"]', "乙", 1),
    ],
)  # fmt: skip
def test_how_a_choice_may_spell_its_label(tmp_path: Path, labels: str, key: Any, label: int) -> None:
    (tmp_path / "set.jsonl").write_bytes(lines([{"text": "中午吃什么？", "options": ["饭", "面", "粥"], "key": key}]))
    (item,) = read(choice(labels), tmp_path / "set.jsonl", "test")
    assert (item.options, item.label, item.texts) == (("饭", "面", "粥"), label, ("中午吃什么？", ""))


def test_a_position_is_no_option_of_that_text(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(lines([{"text": "一加零是几？", "options": ["1", "0"], "key": 0}]))
    (item,) = read(choice(), tmp_path / "set.jsonl", "test")
    assert item.label == 0


def test_options_may_have_a_field_each(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("text,A,B,key\n中午吃什么？,饭,3,B\n", encoding="utf-8")
    (item,) = read(choice(options='["A", "B"]'), tmp_path / "set.csv", "test")
    assert (item.options, item.label) == (("饭", "3"), 1)


ONE = {"id": "x", "split": "test", "text": "雾散了。", "label": "dry"}
TWO: dict[str, Any] = {"text": "中午吃什么？", "options": ["饭", "面"], "key": 0}


@pytest.mark.parametrize(
    ("name", "data", "says", "hint"),
    [
        ("set.jsonl", lines([ONE, {**ONE, "id": "y", "label": "weT"}]), "set.jsonl:2: label 'weT' of", "mean wet"),
        ("set.jsonl", lines([ONE, {**ONE, "id": "y", "label": "?"}]), "the task has dry, wet", "Name it in labels"),
        ("set.jsonl", lines([{**ONE, "label": None}]), ":1: the item has no label: field 'label' is empty", "held_out"),
        ("set.jsonl", lines([{**ONE, "label": ""}]), ":1: the item has no label", "Nothing can be measured"),
        ("set.jsonl", lines([{"id": 1, "split": "test"}]), ":1: field 'text' (text) is missing; the record", "Name"),
        ("set.jsonl", lines([{**ONE, "text": None, "Text": "a"}]), "field 'text' (text) is missing", "mean text"),
        ("set.jsonl", lines([{**ONE, "text": 5}]), ":1: field 'text' (text) must be text, is 5", ""),
        ("set.jsonl", lines([{**ONE, "label": {}}]), ":1: field 'label' (label) must be a word", ""),
        ("set.jsonl", lines([ONE, ONE]), ":2: the id 'x' stands at set.jsonl:1 too", "its own id"),
        ("set.jsonl", lines([{**ONE, "split": "train"}]), "no record has split = test; found train (1)", "test]"),
        ("set.jsonl", lines([{"text": "a", "label": "dry"}]), ":1: field 'split', which says the split", "leave it"),
        ("set.jsonl", lines([3, 4]), ":1: expected an object with fields, found int", "JSON object"),
        ("set.jsonl", b"", "the split test of weather is empty", "--data"),
        ("set.jsonl", lines([ONE]) + b"{", "set.jsonl:2: expected a JSON value", ""),
        ("set.docx", b"PK", "the format cannot be recognized by the name", ".jsonl"),
        ("set.parquet", b"PAR1", "expected Parquet", ""),
        ("set.zip", b"PK", "cannot be unpacked", ""),
        ("set.zip", _zip("set.bin", b"0"), "holds no file of data", ".csv"),
        ("set.csv", "text,label\n雾,dry\n".encode("gb18030"), "set.csv:2: expected UTF-8", "iconv"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path: Path, task: Task, name: str, data: bytes, says: str, hint: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError) as caught:
        read(task, tmp_path / name, "test")
    assert says in caught.value.message
    assert name in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({**TWO, "key": 2}, ":1: label '2' of field 'key' is outside the 2 options"),
        ({**TWO, "key": "C"}, ":1: label 'C' of field 'key' is outside the 2 options"),
        ({**TWO, "key": "粥"}, ":1: label '粥' of field 'key' is no option"),
        ({**TWO, "options": "饭"}, ":1: field 'options' (options) must be a list of at least two texts, is '饭'"),
        ({**TWO, "options": ["饭", 1]}, ":1: field 'options' (options) must be a list of at least two texts"),
        ({**TWO, "options": ["饭", " "]}, ":1: an option is empty"),
    ],
)
def test_what_is_wrong_in_a_choice_is_told(tmp_path: Path, record: dict[str, Any], says: str) -> None:
    (tmp_path / "set.jsonl").write_bytes(lines([record]))
    with pytest.raises(TaskError, match=re.escape(says)):
        read(choice(), tmp_path / "set.jsonl", "test")


def test_what_cannot_be_read_is_told(tmp_path: Path, task: Task) -> None:
    with pytest.raises(TaskError, match=r"there\.jsonl is not there"):
        read(task, tmp_path / "there.jsonl", "test")
    with pytest.raises(TaskError, match=r"has no split validation; it has train, test"):
        read(task, None, "validation")
    with pytest.raises(TaskError, match="the task ocnli brings no data") as caught:
        read(load("ocnli"), None, "test")
    assert "https://github.com/CLUEbenchmark/OCNLI has it" in caught.value.hint
    with pytest.raises(TaskError, match="brings no data"):
        read(replace(task, source=replace(task.source, path="")), None, "test")
    files = replace(task, source=replace(task.source, splits={"test": SplitRule(files=("dev.jsonl",))}))
    (tmp_path / "set.jsonl").write_bytes(lines(ITEMS))
    with pytest.raises(TaskError, match=r"holds no file dev\.jsonl \(\[source\.test\]\); found set\.jsonl"):
        read(files, tmp_path, "test")


def test_an_item_in_two_splits_is_refused(tmp_path: Path, task: Task) -> None:
    rules: dict[Split, SplitRule] = {"train": SplitRule(values=("train", "test")), "test": SplitRule(values=("test",))}
    (tmp_path / "set.jsonl").write_bytes(lines(ITEMS))
    with pytest.raises(TaskError, match=r"set\.jsonl:3: the item is in train and in test"):
        read(replace(task, source=replace(task.source, splits=rules)), tmp_path / "set.jsonl", "train")


@pytest.mark.parametrize("name", DEMOS)
def test_tasks_of_the_package_bring_balanced_items(name: str) -> None:
    task = load(name)
    splits = read_all(task, None)
    assert len({item.id for items in splits.values() for item in items}) == sum(map(len, splits.values()))
    texts = Counter(text for items in splits.values() for item in items for text in item.options or item.texts[-1:])
    if task.kind == "minimal_pairs":
        assert set(texts.values()) == {1}
        assert {(item.group, item.label) for item in splits["test"]} == {
            (group, 0) for group in ("量词", "否定", "把字句", "比较", "语序")
        }
        return
    assert [len(items) for items in splits.values()] == [42 if task.kind == "entailment" else 40, 12, 12]
    contexts = [{item.texts[0] for item in items} for items in splits.values()]
    assert len(set.union(*contexts)) == sum(map(len, contexts))
    for items in splits.values():
        counts = Counter(item.label for item in items)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == (len(task.labels) or 3)


COUNTS = {
    "chnsenticorp": (3615, 385, 1139), "eprstmt": (160, 160, 610), "tnews": (1185, 1098, 2010),
    "ocnli": (9013, 972, 2950), "cluewsc": (160, 159, 976), "afqmc": (18074, 1926, 4316), "lcqmc": (6132, 859, 1811),
    "c3": (5856, 1825, 1890), "chid": (202, 202, 2002), "cmmlu": (335, 4020), "xcopa_zh": (100, 500),
    "zhoblimp": (11800,), "gaokao": (1503,),
}  # fmt: skip


@pytest.mark.mirror
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_sets_are_read(name: str) -> None:
    task = load(name)
    folder = SETS.parent / "evals" if name == "gaokao" else SETS
    path = folder / f"{'gaokao_bench_objective' if name == 'gaokao' else FILES.get(name, name)}.jsonl.xz"
    if not path.is_file():
        pytest.skip("the shared sets are not here")
    splits = read_all(task, path)
    assert tuple(map(len, splits.values())) == COUNTS[name]
    for item in splits["test"]:
        question = ask(task, item)
        assert 0 <= item.label < len(question.answers) == (len(item.options) or len(task.labels))
