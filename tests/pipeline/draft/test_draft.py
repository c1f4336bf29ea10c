"""`corpus manifest init`: what is guessed from sources of every kind, and that the manifest written then works."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline import workflows
from corpus.pipeline.draft import guess, sample, write
from corpus.pipeline.errors import SourceError
from corpus.pipeline.manifest import parse
from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import corpus
from tests.support.records import lines
from tests.support.server import Server

ALPACA: list[dict[str, Any]] = [
    {"instruction": f"第{n}种茶的来历？", "input": "" if n % 2 else "要短。", "output": f"第{n}种茶长在山里，清明采。"}
    for n in range(40)
]
ARTICLES: list[dict[str, Any]] = [
    {"id": n, "title": f"第{n}天", "text": f"第{n}天的风从北边来，吹了整整一个下午才停。"} for n in range(40)
]
TURNS: list[tuple[str, str]] = [("human", "第{}次问，问的是雨。"), ("gpt", "第{}次答，答的是伞。")] * 2
SHAREGPT = [
    {"id": f"c{n}", "conversations": [{"from": who, "value": text.format(n)} for who, text in TURNS]} for n in range(40)
]
PAIRS = [{"translation": {"en": f"Day {n} was windy.", "zh": f"第{n}天刮了风。"}, "set": "dev"} for n in range(40)]
TEXT = "\n\n".join(record["text"] for record in ARTICLES)


def table(records: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def parquet(records: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), out)
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


ARRAY = json.dumps(ALPACA, ensure_ascii=False, indent=1).encode()
NOTES = {f"notes/{n}.md": f"# 第{n}天\n\n{record['text']}\n".encode() for n, record in enumerate(ARTICLES)}
SOURCES: list[tuple[dict[str, bytes], str, str, dict[str, str]]] = [
    # files, source, form, roles
    ({"a.jsonl": lines(ARTICLES)}, "a.jsonl", "article", {"title": "title", "body": "text"}),
    ({"a.json": ARRAY}, "a.json", "question", {"title": "instruction", "detail": "input", "answer": "output"}),
    ({"a.csv": table(ARTICLES)}, "a.csv", "article", {"title": "title", "body": "text"}),
    ({"d/a.tsv": table(ARTICLES, "\t")}, "d", "article", {"title": "title", "body": "text"}),
    ({"d/a.parquet": parquet(PAIRS)}, "d", "translation", {"source": "translation.en", "target": "translation.zh"}),
    ({"a.txt": TEXT.encode()}, "a.txt", "article", {"body": "text"}),
    ({"d/" + name: data for name, data in NOTES.items()}, "d", "article", {"title": "title", "body": "text"}),
    ({"a.zip": zipped({"x/s.jsonl": lines(SHAREGPT)})}, "a.zip", "chat", {"turns": "conversations"}),
    ({"a.tar.gz": tarred(NOTES)}, "a.tar.gz", "article", {"title": "title", "body": "text"}),
    ({"a.jsonl.gz": gzip.compress(lines(SHAREGPT))}, "a.jsonl.gz", "chat", {"turns": "conversations"}),
    ({"a.json.xz": lzma.compress(ARRAY)}, "a.json.xz", "question", {"title": "instruction", "detail": "input",
                                                                   "answer": "output"}),
    ({"d/a.jsonl.zst": zstd(lines(ARTICLES))}, "d", "article", {"title": "title", "body": "text"}),
    ({"d/one.zip": zipped({"s.jsonl": lines(SHAREGPT[:20])}), "d/two.zip": zipped({"t.jsonl": lines(SHAREGPT[20:])})},
     "d", "chat", {"turns": "conversations"}),
]  # fmt: skip


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(("files", "source", "form", "roles"), SOURCES, ids=lambda value: None)
def test_what_is_guessed_can_be_ingested(
    tmp_path: Path, files: dict[str, bytes], source: str, form: str, roles: dict[str, str]
) -> None:
    lay(tmp_path, files)
    found = sample.take(str(tmp_path / source))
    kind = found.kinds[0]
    guessed = guess.guess(kind)
    assert (guessed.form, dict(guessed.roles)) == (form, roles)
    text = write.toml(found, kind, guessed, "mine", source)
    documents = list(write.documents(kind, parse(text, where="mine.toml", own=True)))
    assert len(documents) == 3
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    workspace = Workspace(tmp_path / "workspace")
    result = workflows.ingest(workspace, manifests=[tmp_path / "mine.toml"], dedup=False, workers=1)
    counts = result.documents[0].ledger.counts
    assert (counts["records"], counts["documents"]) == (40, 40)
    made = [row for batch in workflows.used_documents(workspace, "mine") for row in batch.to_pylist()]
    assert set(documents) <= {row["text"] for row in made}
    if form == "translation":
        assert {row["split"] for row in made} == {"validation"}
        assert guessed.split_field == "set"


def test_limits_ids_and_what_is_left_over() -> None:
    kind = sample.Kind(".jsonl", ["a.jsonl"], "lines", [line for line in lines(ARTICLES).splitlines() if line])
    guessed = guess.guess(kind)
    assert (guessed.id_fields, guessed.types, guessed.min_length) == (("id",), {"id": int}, 20)
    short = [{"text": f"第{n}天，风。"} for n in range(30)]
    assert guess.guess(sample.Kind(".jsonl", ["a.jsonl"], "lines", lines(short).splitlines())).min_length == 4


@pytest.mark.parametrize(
    ("record", "form", "roles"),
    [
        ({"问题": "几点了？", "答案": "三点。"}, "question", {"title": "问题", "answer": "答案"}),
        ({"编号": "7", "标题": "雨", "正文": "下了一夜的雨。"}, "article", {"title": "标题", "body": "正文"}),
        ({"id": "adverb-198", "good": "他常常来这里。", "bad": "他来常常这里。"}, "article", {"body": "good"}),
        ({"id": "a/1", "options": ["甲"], "question": "哪个对？", "subject": "数学"}, "article", {"body": "question"}),
        ({"en": "It rains.", "zh": "下雨了。"}, "translation", {"source": "en", "target": "zh"}),
    ],
)  # fmt: skip
def test_fields_by_their_names(record: dict[str, Any], form: str, roles: dict[str, str]) -> None:
    records = [
        {key: f"{value}{n}" if type(value) is str and key != "subject" else value for key, value in record.items()}
        for n in range(40)
    ]
    guessed = guess.guess(sample.Kind(".jsonl", ["a.jsonl"], "lines", lines(records).splitlines()))
    assert (guessed.form, dict(guessed.roles)) == (form, roles)


def test_a_field_with_values_that_are_no_splits_is_said() -> None:
    records = [{"text": f"第{n}天的风。", "split": ("train", "holdout")[n % 2]} for n in range(30)]
    guessed = guess.guess(sample.Kind(".jsonl", ["a.jsonl"], "lines", lines(records).splitlines()))
    assert (guessed.split_field, guessed.not_a_split) == ("", "split holds holdout")
    records = [{"text": f"第{n}天的风。", "split": ("训练集", "测试集")[n % 2]} for n in range(30)]
    assert guess.guess(sample.Kind(".jsonl", ["a.jsonl"], "lines", lines(records).splitlines())).split_field == "split"


def test_folders_name_splits_and_files_are_read_all_over(tmp_path: Path) -> None:
    """Files are sampled from first to last, test/ is no training text, links out of the folder are not followed."""
    for n in range(60):
        split = "test" if n % 6 == 0 else "train"
        text = f"第{n}天写的几句话，不长。" if n < 30 else "短句。"
        lay(tmp_path, {f"d/{split}/{n:02}.md": text.encode()})
    (tmp_path / "out.md").write_text("在外面的一篇。", encoding="utf-8")
    (tmp_path / "d/train/link.md").symlink_to(tmp_path / "out.md")
    (tmp_path / "d/train/dangling.md").symlink_to(tmp_path / "nowhere")
    found = sample.take(str(tmp_path / "d"))
    assert len(found.kinds[0].names) == 60
    guessed = guess.guess(found.kinds[0])
    assert guessed.min_length < 4
    (tmp_path / "mine.toml").write_text(write.toml(found, found.kinds[0], guessed, "mine", "d"), encoding="utf-8")
    result = workflows.ingest(Workspace(tmp_path / "workspace"), manifests=[tmp_path / "mine.toml"], workers=1)
    counts = result.documents[0].ledger.counts
    assert counts["documents"] == 60
    assert counts["splits"]["test"] == 10


def test_prompts_with_chosen_answers_become_conversations() -> None:
    records = [
        {"messages": [{"role": "user", "content": f"问{n}"}], "chosen": "好", "rejected": "坏"} for n in range(9)
    ]
    guessed = guess.guess(sample.Kind(".jsonl", ["a.jsonl"], "lines", lines(records).splitlines()))
    assert dict(guessed.roles) == {"turns": "messages", "answer": "chosen"}


@pytest.mark.parametrize(
    ("files", "source", "says"),
    [
        ({}, "nowhere", "there is no"),
        ({"d/a.png": b"x"}, "d", "holds no file of records: found a.png"),
        ({"a.jsonl": b"not json\n"}, "a.jsonl", "no record of it is a JSON object"),
        ({"a.jsonl": lines([{"n": 1}] * 5)}, "a.jsonl", "no field holds text; found n"),
        ({"a.zip": b"PK\x03\x04 broken"}, "a.zip", "cannot be read"),
        ({"a.csv": b"x,x\n"}, "a.csv", "header of different names"),
        ({"a.csv": "标题,正文\n雨,下了一夜的雨，今天还在下。\n".encode("gb18030") * 3}, "a.csv", "no record"),
    ],
)  # fmt: skip
def test_what_cannot_be_guessed_is_said(tmp_path: Path, files: dict[str, bytes], source: str, says: str) -> None:
    lay(tmp_path, files)
    with pytest.raises(SourceError, match=says):
        guess.guess(sample.take(str(tmp_path / source)).kinds[0])


DUMPS = {
    "dump.jsonl": lines(ARTICLES),
    "dump.zip": zipped({"a.jsonl": lines(ARTICLES)}),
    "dump.parquet": parquet(ARTICLES),
}


@pytest.mark.parametrize(("name", "data"), DUMPS.items())
def test_a_url(tmp_path: Path, name: str, data: bytes) -> None:
    with Server({f"/x/{name}": data}) as server:
        found = sample.take(server.url(f"/x/{name}"))
        guessed = guess.guess(found.kinds[0])
        assert (guessed.form, write.name_of(found.place)) == ("article", "dump")
        text = write.toml(found, found.kinds[0], guessed, "mine", found.place)
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        workspace = Workspace(tmp_path / "workspace")
        result = workflows.ingest(workspace, manifests=[tmp_path / "mine.toml"], dedup=False, workers=1)
        assert result.documents[0].ledger.counts["documents"] == 40
        with pytest.raises(SourceError, match="404"):
            sample.take(server.url("/x/nothing.jsonl"))


def test_the_commands(tmp_path: Path) -> None:
    """From a folder of Markdown to documents, typed as a user types it."""
    lay(tmp_path, NOTES)
    shown = corpus("manifest", "init", "notes", folder=tmp_path).stdout
    assert "--- document 3" in shown
    assert "notes.toml: form article (title = title, body = text), 40 files *.md" in shown
    assert 'source = "notes"' in (tmp_path / "notes.toml").read_text(encoding="utf-8")
    assert "is there already" in corpus("manifest", "init", "notes", folder=tmp_path, code=2).stderr
    assert "states no licence" in corpus("manifest", "check", "notes.toml", folder=tmp_path).stdout
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "notes.toml").rename(tmp_path / "elsewhere" / "notes.toml")
    (tmp_path / "notes").rename(tmp_path / "elsewhere" / "notes")
    corpus("ingest", "--manifest", "elsewhere/notes.toml", folder=tmp_path)
    assert "notes" in corpus("datasets", folder=tmp_path).stdout
    assert "finished; dropped" in corpus("ingest", "--dataset", "notes", folder=tmp_path).stdout
    broken = (tmp_path / "elsewhere" / "notes.toml").read_text(encoding="utf-8").replace('"email"', '"e-mail"')
    (tmp_path / "broken.toml").write_text(broken, encoding="utf-8")
    says = corpus("manifest", "check", "broken.toml", folder=tmp_path, code=1).stderr
    assert "broken.toml:" in says
    assert "quality.mask: 'e-mail' is not one of" in says
