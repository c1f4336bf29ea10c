"""A dataset of a user's own, from its manifest to rows: every later command knows it by its name."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline import workflows
from corpus.pipeline.documents.transform import make_part
from corpus.pipeline.errors import ManifestError, SourceError
from corpus.pipeline.inspect import lineage
from corpus.pipeline.manifest import parse
from corpus.pipeline.pack import PackConfig
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import TokenizerConfig, files, special_tokens
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import Collator, Rows
from tests.support.command import corpus
from tests.support.records import lines
from tests.support.server import Server

MANIFEST = """name = "talks"
licence = "CC0-1.0"
source = "given"
min_length = 4

[document]
form = "chat"
turns = "messages"
id = ["n"]
"""


def talk(number: int) -> dict[str, Any]:
    sides = [f"第{number}个问题，问了第{turn}遍？" if turn % 2 == 0 else f"第{number}个回答，答了第{turn}遍。"
             for turn in range(2 + number % 3 * 2)]  # fmt: skip
    said = [{"role": ("user", "assistant")[at % 2], "content": side} for at, side in enumerate(sides)]
    return {"n": number, "messages": said, "topic": "雨"}


@pytest.fixture
def talks(tmp_path: Path) -> Workspace:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "talks_train.jsonl").write_bytes(lines([talk(n) for n in range(60)]))
    (tmp_path / "given" / "talks_dev.jsonl").write_bytes(lines([talk(n) for n in range(60, 70)]))
    (tmp_path / "talks.toml").write_text(MANIFEST, encoding="utf-8")
    workspace = Workspace(tmp_path / "workspace")
    workflows.ingest(workspace, manifests=[tmp_path / "talks.toml"], workers=1)
    return workspace


def test_conversations_become_rows_in_which_every_answer_is_learnt(talks: Workspace) -> None:
    workflows.pack(talks, vocab_size=400, seq_length=128, workers=1)
    report = workflows.pack(talks, datasets=["talks"], form="chat", seq_length=128, workers=1).rows[0]
    model = files.load(talks.tokenizer)
    user, assistant, pad = (
        model.token_to_id(token) for token in (special_tokens.USER, special_tokens.ASSISTANT, special_tokens.PAD)
    )
    assert pad is not None
    collator = Collator(seq_length=128, pad_id=pad, answer_after=assistant, question_after=user)
    for split, count in (("train", 60), ("validation", 10)):
        rows = open_rows(talks.packed("talks", "chat"))[split]
        batch = collator(Rows([rows]).__getitems__(range(len(rows))))
        labels = batch["labels"].numpy()
        learnt = model.decode(labels[labels >= 0].tolist(), skip_special_tokens=False).split("<|endoftext|>")
        numbers = range(60) if split == "train" else range(60, 70)
        answers = [turn["content"] for n in numbers for turn in talk(n)["messages"] if turn["role"] == "assistant"]
        assert sorted(learnt) == sorted([*answers, ""])
        counts = report.ledger.counts["splits"][split]
        assert counts["documents"] == count
        assert counts["answer_tokens"] == int((labels >= 0).sum()) == np.count_nonzero(labels >= 0)
    segments, _ = lineage.row(talks, "talks", "train", 0, "chat")
    assert all(segment.rebuilt and segment.origin.rebuilt for segment in segments)
    assert any(segment.text.count("<|user|>") > 1 for segment in segments)
    assert "CC0-1.0" in (talks.packed("talks", "chat") / "README.md").read_text(encoding="utf-8")


def test_every_command_knows_it(talks: Workspace) -> None:
    folder = talks.root.parent
    corpus("pack", "--dataset", "talks", "--seq-length", 128, folder=folder)
    assert "talks: described by its manifest in the workspace" in corpus("datasets", folder=folder).stdout
    assert "packed/talks" in corpus("status", folder=folder).stdout
    assert "第7个问题" in corpus("trace", "--dataset", "talks", "--text", "第7个问题", folder=folder).stdout
    corpus("report", folder=folder)
    corpus("verify", folder=folder)
    assert "is not one of" in corpus("pack", "--dataset", "walks", folder=folder, code=2).stderr


def test_a_changed_manifest_reruns_and_a_built_in_name_is_refused(talks: Workspace) -> None:
    path = talks.root.parent / "talks.toml"
    path.write_text(MANIFEST.replace("min_length = 4", "min_length = 60"), encoding="utf-8")
    says = corpus("ingest", "--dataset", "talks", folder=talks.root.parent).stderr
    assert f"{path} has changed since it was given; --manifest {path} takes the change" in says
    result = workflows.ingest(talks, manifests=[path], workers=1)
    assert "min-length was 4 and is 60" in result.documents[0].reasons
    path.write_text(MANIFEST.replace('"talks"', '"demo"'), encoding="utf-8")
    with pytest.raises(ManifestError, match="'demo' is a built-in dataset"):
        workflows.ingest(talks, manifests=[path], workers=1)
    assert "demo" not in {path.stem for path in talks.manifests.glob("*.toml")}


def test_mirrors_members_and_splits_of_a_manifest(tmp_path: Path) -> None:
    """Archives come from a mirror, the next one where the first fails, with the member's split and checksum."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/first.jsonl", lines([{"t": f"第{n}篇写的是昨天的事。"} for n in range(20)]))
        archive.writestr("x/second.jsonl", lines([{"t": f"第{n}篇写的是今天的事。"} for n in range(20, 30)]))
        archive.writestr("x/notes.txt", "不要的文件")
    with Server({"/good/mine.zip": out.getvalue()}) as server:
        (tmp_path / "mine.toml").write_text(
            f"""name = "mine"
archive = "mine.zip"
[[mirrors]]
name = "gone"
files = ["{server.url("/gone/mine.zip")}"]
[[mirrors]]
name = "good"
files = ["{server.url("/good/mine.zip")}"]
[[members]]
pattern = "first.jsonl"
split = "train"
[[members]]
pattern = "second.jsonl"
split = "test"
[document]
form = "article"
body = "t"
""",
            encoding="utf-8",
        )
        result = workflows.ingest(Workspace(tmp_path / "workspace"), manifests=[tmp_path / "mine.toml"], workers=1)
    assert result.documents[0].ledger.counts["splits"] == {"train": 20, "test": 10}


def test_a_manifest_whose_files_do_not_come_leaves_nothing_behind(talks: Workspace, tmp_path: Path) -> None:
    bad = MANIFEST.replace('"talks"', '"walks"').replace('"given"', '"nowhere"')
    (tmp_path / "walks.toml").write_text(bad, encoding="utf-8")
    assert "there is no" in corpus("ingest", "--manifest", "walks.toml", folder=tmp_path, code=1).stderr
    assert "walks" not in talks.datasets()


def test_datasets_come_in_the_order_in_which_they_were_added(talks: Workspace, tmp_path: Path) -> None:
    """So a document that two of them have stays in the earlier one."""
    for name in ("zebra", "ant"):
        (tmp_path / f"{name}.toml").write_text(MANIFEST.replace('"talks"', f'"{name}"'), encoding="utf-8")
        workflows.ingest(talks, manifests=[tmp_path / f"{name}.toml"], workers=1)
    assert talks.datasets()[-3:] == ("talks", "zebra", "ant")
    used = {
        name: sum(batch.num_rows for batch in workflows.used_documents(talks, name)) for name in talks.datasets()[-3:]
    }
    assert used == {"talks": 70, "zebra": 0, "ant": 0}


ARTICLE = '[document]\nform = "article"\nbody = "t"\n'


def article(number: int) -> dict[str, str]:
    return {"t": f"第{number}篇，写的是第{number}件事。"}


def ingest(folder: Path, files: dict[str, bytes], manifest: str = "") -> Workspace:
    """Documents of a folder of files, without a search for duplicates."""
    for name, data in files.items():
        (folder / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "given" / name).write_bytes(data)
    text = manifest or f'name = "dumps"\nsource = "given"\n{ARTICLE}'
    (folder / "dumps.toml").write_text(text, encoding="utf-8")
    workspace = Workspace(folder / "workspace")
    workflows.ingest(workspace, manifests=[folder / "dumps.toml"], dedup=False, workers=1)
    return workspace


def table(*numbers: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"t": [article(n)["t"] for n in numbers], "picture": [b"\xff" * 9] * len(numbers)}), out)
    return out.getvalue()


def in_zip(name: str, data: bytes, *more: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in ((name, data), *more):
            archive.writestr(each, content)
    return out.getvalue()


def test_every_file_of_a_folder_is_read_whatever_its_kind(tmp_path: Path) -> None:
    """Parquet beside other forms, a subfolder with the dataset's name, archives whose members have one name."""
    files = {
        "a.jsonl": lines([article(1)]), "b.parquet": table(2, 3), "dumps/c.jsonl": lines([article(4)]),
        "one.zip": in_zip("x.json", lines([article(5)]), ("y.json", json.dumps([article(6)]).encode())),
        "two.zip": in_zip("x.json", lines([article(7)])),
    }  # fmt: skip
    found = documents(ingest(tmp_path, files))
    assert sorted(row["text"] for row in found) == [article(n)["t"] for n in range(1, 8)]
    assert len({row["id"] for row in found}) == 7
    assert not any("picture" in row["meta"] for row in found)


def test_words_for_splits_in_names_and_folders(tmp_path: Path) -> None:
    names = ["train.jsonl", "val.jsonl", "default/test/0.jsonl", "eval-2.jsonl", "latest.jsonl", "测试/1.jsonl"]
    found = documents(ingest(tmp_path, {name: lines([article(n)]) for n, name in enumerate(names)}))
    splits = {row["source_file"]: row["split"] for row in found}
    assert splits == dict(zip(names, ["train", "validation", "test", "validation", "train", "test"], strict=True))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"ledger.json": b"{}"}, "a name that the workspace uses itself"),
        ({"a.zip": in_zip("x.parquet", table(1))}, "Parquet inside an archive"),
    ],
)  # fmt: skip
def test_sources_that_are_refused_by_name(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        ingest(tmp_path, files)


@pytest.mark.parametrize("name", ["clusters", "hits"])
def test_names_that_the_workspace_uses(name: str) -> None:
    with pytest.raises(ManifestError, match="the workspace uses itself"):
        parse(f'name = "{name}"\n{ARTICLE}', where="m", own=True)


def test_a_mirror_cannot_name_a_file_outside(tmp_path: Path) -> None:
    """A name that climbs out when it is unquoted, and one that is packed."""
    files = {"/..%2f..%2f..%2fout.jsonl": lines([article(1)]), "/m/a.jsonl.gz": gzip.compress(lines([article(2)]))}
    with Server(files | {unquote(path): data for path, data in files.items()}) as server:
        for number, path in enumerate(files):
            folder = tmp_path / str(number) / "deep" / "er"
            folder.mkdir(parents=True)
            text = f'name = "dumps"\n[[mirrors]]\nname = "m"\nfiles = ["{server.url(path)}"]\n{ARTICLE}'
            assert len(documents(ingest(folder, {}, text))) == 1
            found = [*tmp_path.rglob("*.jsonl"), *tmp_path.rglob("*.jsonl.gz")]
            assert {file.parent for file in found} <= {each / "raw/dumps" for each in tmp_path.rglob("workspace")}


def test_rejected_records_of_a_batch_go_with_its_shard(tmp_path: Path) -> None:
    """Stopped after rejected/ was written, then run with the old setting again: no stale rejected shard."""
    workspace = ingest(tmp_path, {"a.jsonl": lines([article(n) for n in range(20)])})
    rejected = workspace.documents("dumps") / "rejected"
    rejected.mkdir(exist_ok=True)
    (rejected / "part-00000.parquet").write_bytes(b"of a run that was stopped")
    (tmp_path / "given/b.jsonl").write_bytes(lines([article(n) for n in range(20, 30)]))
    report = workflows.ingest(workspace, datasets=["dumps"], dedup=False, workers=1).documents[0]
    assert not [each.path for each in report.ledger.outputs if "rejected" in each.path]
    assert not list(rejected.glob("*.parquet"))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as `hf://datasets/one/talks` asks for."""

    data = lines([talk(n) for n in range(30)])
    entry: ClassVar[dict[str, Any]] = {"type": "file", "path": "data/train.jsonl", "size": len(data), "oid": "b" * 40}

    def do_GET(self) -> None:
        """Answer."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(with_body=False)

    def do_POST(self) -> None:
        """What is known of some paths."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._send(json.dumps([self.entry] if "train.jsonl" in asked else []).encode(), with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        if "/tree/" in self.path:
            folder = {"type": "directory", "path": "data", "oid": "c" * 40, "size": 0}
            if "recursive=true" in self.path.lower():
                found = [folder, self.entry]
            else:
                found = [folder] if self.path.partition("?")[0].endswith(("/tree/main", "a" * 40)) else [self.entry]
            self._send(json.dumps(found).encode(), with_body=with_body)
        elif self.path.startswith("/api/"):
            self._send(json.dumps({"id": "one/talks", "sha": "a" * 40, "siblings": []}).encode(), with_body=with_body)
        else:
            self._send(self.data, with_body=with_body)

    def _send(self, data: bytes, *, with_body: bool) -> None:
        first, last = 0, len(data) - 1
        if asked := self.headers.get("Range"):
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        for name, value in (("ETag", '"b"'), ("X-Repo-Commit", "a" * 40), ("Content-Length", str(last - first + 1))):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data[first : last + 1])

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf"), "no_proxy": "*",
        "PATH": str(Path(sys.executable).parent),
    }  # fmt: skip
    for command in (
        ["manifest", "init", "hf://datasets/one/talks"], ["ingest", "--manifest", "talks.toml", "--workers", "1"],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "corpus.pipeline.cli", *command], cwd=tmp_path, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    server.shutdown()
    server.server_close()
    assert 'source = "hf://datasets/one/talks"' in (tmp_path / "talks.toml").read_text(encoding="utf-8")
    made = workflows.used_documents(Workspace(tmp_path / "workspace"), "talks")
    assert sum(batch.num_rows for batch in made) == 30


ROWS = PackConfig(dataset="dumps", seq_length=64, workers=1, unit_characters=1)
DUMPS = """name = "dumps"
source = "given"
[document]
form = "article"
body = "text"
"""


def dump(day: int, count: int = 120) -> bytes:
    return lines(
        [
            {"text": f"第{day}天第{n}条，写的是{'一些小事，' * (n % 7)}到此为止，明天{n * day}再说。"}
            for n in range(count)
        ]
    )


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = sorted([*folder.rglob("*.parquet"), *folder.rglob("*.arrow")])
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def documents(workspace: Workspace) -> list[dict[str, Any]]:
    """All documents, used or not."""
    return [row for path in parts(workspace.documents("dumps")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def dumps(tmp_path: Path) -> Workspace:
    (tmp_path / "given").mkdir()
    for day in (2, 4):
        (tmp_path / "given" / f"day-{day}.jsonl").write_bytes(dump(day))
    (tmp_path / "dumps.toml").write_text(DUMPS, encoding="utf-8")
    workspace = Workspace(tmp_path / "workspace")
    workflows.ingest(workspace, manifests=[tmp_path / "dumps.toml"], workers=1)
    tokenizer.run(TokenizerConfig(vocab_size=400), workspace)
    pack.run(ROWS, workspace)
    return workspace


def test_a_dataset_that_grows_keeps_its_shards(dumps: Workspace) -> None:
    """A new file, first by name, is ingested alone: documents, keys and rows that were there stay as they are."""
    given = dumps.root.parent / "given"
    areas = (dumps.documents("dumps"), dumps.dedup / "keys", dumps.packed("dumps"))
    before = [stamps(area) for area in areas]
    (given / "day-1.jsonl").write_bytes(dump(1))
    result = workflows.ingest(dumps, datasets=["dumps"], workers=1)
    assert "day-1.jsonl is new" in " ".join(result.documents[0].reasons)
    pack.run(ROWS, dumps)
    for area, old in zip(areas, before, strict=True):
        new = stamps(area)
        kept = {name: stamp for name, stamp in new.items() if old.get(name) == stamp}
        assert kept.keys() >= {name for name in old if "state" not in name}, area
        assert len(new) > len(old)
    received = result.documents[0].ledger.counts["batches"]
    assert [each["files"] for each in received] == [["day-2.jsonl", "day-4.jsonl"], ["day-1.jsonl"]]
    assert [each["records"] for each in received] == [240, 120]
    used = [row["text"] for batch in workflows.used_documents(dumps, "dumps") for row in batch.to_pylist()]
    assert len(used) == result.documents[0].ledger.counts["documents"] - sum(result.left_out[0].reasons.values())
    says = corpus("verify", folder=dumps.root.parent, code=1).stderr  # the tokenizer stays, and that is said
    assert says.startswith("Error: workspace/tokenizer/ledger.json was made from another documents/dumps/ledger.json")
    again = workflows.ingest(dumps, datasets=["dumps"], workers=1)
    assert again.documents[0].skipped


def test_what_grew_step_by_step_has_the_documents_of_one_step(dumps: Workspace, tmp_path: Path) -> None:
    given = tmp_path / "given"
    (given / "day-1.jsonl").write_bytes(dump(1))
    workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    (given / "day-3.jsonl").write_bytes(dump(3))
    result = workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    whole = Workspace(tmp_path / "whole")
    at_once = workflows.ingest(whole, manifests=[tmp_path / "dumps.toml"], workers=1, dedup=False)
    sums = [{**each.documents[0].ledger.counts, "batches": ()} for each in (result, at_once)]
    assert sums[0] == sums[1]
    made = [documents(each) for each in (dumps, whole)]
    assert sorted(row["text"] for row in made[0]) == sorted(row["text"] for row in made[1])
    assert {row["id"]: row["split"] for row in made[0]} == {row["id"]: row["split"] for row in made[1]}


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_an_old_file_that_changes_is_ingested_again(dumps: Workspace, tmp_path: Path, change: str) -> None:
    given = tmp_path / "given"
    (given / "day-5.jsonl").write_bytes(dump(5))
    workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    if change == "edited":
        (given / "day-4.jsonl").write_bytes(dump(4, count=50))
    else:
        (given / "day-4.jsonl").unlink()
    counts = workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False).documents[0].ledger.counts
    assert counts["records"] == (290 if change == "edited" else 240)
    assert sum("day-4" in row["id"] for row in documents(dumps)) == (50 if change == "edited" else 0)
    workflows.ingest(dumps, datasets=["dumps"], workers=1)
    shutil.rmtree(dumps.tokenizer)
    shutil.rmtree(dumps.packed("dumps"))
    corpus("verify", folder=tmp_path)


def test_growth_that_is_interrupted_loses_nothing(
    dumps: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the new file, the next run keeps the old shards and finishes."""
    before = stamps(dumps.documents("dumps"))
    (tmp_path / "given" / "day-9.jsonl").write_bytes(dump(9))

    def stopped(piece: Any, **settings: Any) -> Any:
        if piece.number >= len(before):
            raise KeyboardInterrupt
        return make_part(piece, **settings)

    monkeypatch.setattr("corpus.pipeline.documents.stage.make_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    monkeypatch.undo()
    result = workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    assert [each["files"] for each in result.documents[0].ledger.counts["batches"]] == [
        ["day-2.jsonl", "day-4.jsonl"], ["day-9.jsonl"],
    ]  # fmt: skip
    after = stamps(dumps.documents("dumps"))
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_finished_documents_outlive_their_source(dumps: Workspace, tmp_path: Path) -> None:
    (tmp_path / "given").rename(tmp_path / "elsewhere")
    assert workflows.ingest(dumps, datasets=["dumps"], workers=1).documents[0].skipped
