"""Exports: the same tokens and texts as the workspace's, the reruns, what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from corpus.pipeline import export, templates, workflows
from corpus.pipeline.errors import BooksError, BusyError, DamageError, DiskError, ExportError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger
from tests.support import exported
from tests.support.command import corpus
from tests.support.documents import Listener, tree
from tests.support.left_out import spans_out
from tests.support.records import Shared

UNIT = 3000
"""Characters in a piece: some ten pieces a dataset."""


@pytest.fixture(scope="session")
def laid(shared: Shared) -> Workspace:
    """The workspace to export from; to be read."""
    return Workspace(shared("exported", exported.lay) / "workspace")


@pytest.fixture
def own(laid: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it that a test may change."""
    shutil.copytree(laid.root, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def make(workspace: Workspace, name: str, place: Path, progress: Progress | None = None, **settings: Any) -> Any:
    values: dict[str, Any] = {"workers": 1, "unit_characters": UNIT} | settings
    return export.run(export.ExportConfig(name, place, **values), workspace, progress=progress or Progress())


@pytest.mark.parametrize("form", ["nanogpt", "llmc", "megatron", "mds"])
def test_tokens_are_those_of_the_rows(laid: Workspace, tmp_path: Path, form: str) -> None:
    report = make(laid, form, tmp_path / "out")
    expected = exported.of_rows(laid)
    if form == "megatron":
        found = exported.of_megatron(tmp_path / "out")
    elif form == "mds":
        found = exported.of_mds(tmp_path / "out")
    else:
        found, rest = exported.of_flat(tmp_path / "out", header=1024 if form == "llmc" else 0)
        assert set(rest.values()) == {0}  # the files hold these documents and no other token
    assert found == expected
    named = [(row["dataset"], row["split"], row["document"]) for row in exported.lineage(tmp_path / "out")]
    assert named == sorted(named)  # in document order, each once
    books = report.ledger.counts["datasets"]
    for (dataset, split), documents in Counter(key[:2] for key in expected).items():
        tokens = sum(len(ids) for key, ids in expected.items() if key[:2] == (dataset, split))
        assert (books[dataset][split]["documents"], books[dataset][split]["tokens"]) == (documents, tokens)
    left_out = report.ledger.counts["left_out"]
    assert left_out["baike2018qa"]["exact_duplicate"] > 5
    assert left_out["wiki2019zh"]["contaminated"] == len(spans_out(selection.load(laid, "wiki2019zh"))) == 1  # one span
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("桥")["input_ids"]


def test_nanogpt_finds_its_files(laid: Workspace, tmp_path: Path) -> None:
    make(laid, "nanogpt", tmp_path / "out")
    vocabulary = pickle.loads((tmp_path / "out" / "meta.pkl").read_bytes())["vocab_size"]  # noqa: S301  # written here
    for name in ("train.bin", "val.bin"):
        assert np.memmap(tmp_path / "out" / name, dtype=np.uint16, mode="r").max() < vocabulary <= 360


def test_shards_of_llmc_say_how_many_tokens_they_hold(laid: Workspace, tmp_path: Path) -> None:
    make(laid, "llmc", tmp_path / "out", unit_characters=400)
    shards = sorted((tmp_path / "out").glob("train_*.bin"))
    assert len(shards) > 1
    for path in shards:
        header = np.fromfile(path, np.int32, 256)
        assert (header[0], header[1], header[2] * 2) == (20240520, 1, path.stat().st_size - 1024)
    assert set(exported.of_flat(tmp_path / "out", header=1024)[1].values()) == {0}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_datasets_opens_text(laid: Workspace, tmp_path: Path, form: str) -> None:
    make(laid, form, tmp_path / "out", datasets=("baike2018qa",))
    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    found = {row["id"]: (row["split"], row["text"]) for split in opened.values() for row in split}
    used = [row for batch in workflows.used_documents(laid, "baike2018qa") for row in batch.to_pylist()]
    assert found == {row["id"]: (row["split"], row["text"]) for row in used}
    assert len(used) == sum(len(split) for split in opened.values())
    row = opened["validation"][0]
    assert (row["dataset"], row["source_file"], type(row["source_offset"])) == (
        "baike2018qa",
        "baike_qa_valid.json",
        int,
    )
    assert row["licence"].startswith("MIT (the collection)")
    assert json.loads(row["meta"])["category"] == "生活"
    folders = json.loads((tmp_path / "out" / "dataset_info.json").read_bytes())
    assert folders["baike2018qa"] == {"columns": {"prompt": "text"}, "file_name": "baike2018qa/train"}
    assert {path.parent.name for path in (tmp_path / "out").rglob(f"part-*.{form}")} == {"train", "validation"}


def test_questions_become_messages(laid: Workspace, tmp_path: Path) -> None:
    report = make(laid, "jsonl", tmp_path / "out", form="chat")
    rows = [json.loads(line) for path in sorted((tmp_path / "out").rglob("part-*.jsonl")) for line in path.open("rb")]
    turns = [
        templates.turn(row["text"], row["prompt_length"])
        for name in exported.NAMES
        for batch in workflows.used_documents(laid, name, ("id", "split", "text", "prompt_length"))
        for row in batch.to_pylist()
    ]
    found = [tuple(message["content"] for message in row["messages"]) for row in rows]
    assert Counter(found) == Counter(turn for turn in turns if turn)
    assert {tuple(message["role"] for message in row["messages"]) for row in rows} == {("user", "assistant")}
    books = report.ledger.counts["datasets"]
    without = sum(counts["without_prompt"] for splits in books.values() for counts in splits.values())
    assert without == turns.count(None) > 200
    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sum(split.num_rows for split in opened.values()) == len(rows)
    assert datasets.get_dataset_config_names(str(tmp_path / "out")) == ["default", "baike2018qa"]
    with pytest.raises(WorkspaceError, match="wiki2019zh: no document is left to export"):
        make(laid, "jsonl", tmp_path / "wiki", form="chat", datasets=("wiki2019zh",))
    assert json.loads((tmp_path / "out" / "dataset_info.json").read_bytes())["baike2018qa"]["formatting"] == "sharegpt"


class Interrupter(Listener):
    """Ctrl-C after some pieces."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.left = pieces

    def advance(self, amount: int) -> None:
        self.left -= bool(amount)
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("form", ["llmc", "megatron", "parquet"])
def test_interruption_changes_no_byte(laid: Workspace, tmp_path: Path, form: str) -> None:
    make(laid, form, tmp_path / "whole")
    for pieces in (1, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            make(laid, form, tmp_path / "out", Interrupter(pieces))
        assert not (tmp_path / "out" / LEDGER).exists()
    with next((tmp_path / "out").rglob("*.part"), tmp_path / "out" / "README.md").open("ab") as file:
        file.write(b"half a piece")  # what a killed process leaves
    listener = Listener()
    make(laid, form, tmp_path / "out", listener)
    assert any("pieces are finished and kept" in message for message in listener.said)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["bytes", "lineage"])
def test_what_follows_a_damaged_piece_is_written_again(laid: Workspace, tmp_path: Path, damage: str) -> None:
    make(laid, "megatron", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make(laid, "megatron", tmp_path / "out", Interrupter(5))
    written = sorted((tmp_path / "out" / "lineage").iterdir())
    assert len(written) > 3
    if damage == "bytes":
        start = pq.read_table(written[2])["start"][0].as_py()
        with (tmp_path / "out" / "wiki2019zh_train.bin.part").open("r+b") as file:
            file.seek(2 * start)
            file.write(b"\xff\xff")
    else:
        written[2].unlink()
    listener = Listener()
    make(laid, "megatron", tmp_path / "out", listener)
    assert any(": 2 of " in message for message in listener.said)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_workers_change_no_byte(laid: Workspace, tmp_path: Path) -> None:
    make(laid, "nanogpt", tmp_path / "one")
    make(laid, "nanogpt", tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_reruns(own: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "out"
    first = make(own, "megatron", place)
    before = tree(place)
    assert make(own, "megatron", place).skipped
    with (place / "wiki2019zh_train.bin").open("r+b") as file:
        file.write(b"\xff\xff")
    listener = Listener()
    assert not make(own, "megatron", place, listener).skipped
    assert f"rerunning {place} because output wiki2019zh_train.bin has other bytes" in " ".join(listener.said)
    assert tree(place) == before
    gone = exported.lineage(place)[0]
    (own.root / "exclude.txt").write_text(f"{gone['dataset']}:{gone['id']}\n")
    again = make(own, "megatron", place)
    assert gone["id"] not in {row["id"] for row in exported.lineage(place)}
    assert again.ledger.counts["left_out"]["baike2018qa"]["excluded"] == 1
    assert again.ledger.counts["datasets"]["wiki2019zh"] == first.ledger.counts["datasets"]["wiki2019zh"]
    (place / "mine.bin").write_bytes(b"not ours")
    make(own, "megatron", place, splits=("train",), datasets=("wiki2019zh",))
    names = {path.name for path in place.iterdir() if path.suffix in {".bin", ".idx"}}
    assert names == {"wiki2019zh_train.bin", "wiki2019zh_train.idx", "mine.bin"}
    assert [path.name.rsplit("-", 1)[0] for path in (place / "lineage").iterdir()] == ["wiki2019zh-train"] * len(
        list((place / "lineage").iterdir())
    )


def test_folders_that_are_refused(laid: Workspace, tmp_path: Path) -> None:
    make(laid, "jsonl", tmp_path / "out", splits=("validation",))
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / ".notes.tmp").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, why in (
        (tmp_path / "others", "holds other files"),
        (tmp_path / "file", "is a file"),
        (laid.root / "packed" / "new", "is in the workspace"),
        (tmp_path / "out", "in another format"),
    ):
        with pytest.raises(ExportError, match=why):
            make(laid, "parquet", place)
    assert (tmp_path / "others" / ".notes.tmp").read_text() == "mine"
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".export.json.17.tmp").touch()
    assert not make(laid, "parquet", tmp_path / "killed", splits=("validation",)).skipped
    assert not (laid.root / "packed" / "new").exists()
    with pytest.raises(ExportError, match="file is a file"):
        make(laid, "parquet", tmp_path / "file" / "below")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "export.json").write_bytes((tmp_path / "killed" / "export.json").read_bytes())
    (tmp_path / "blocked" / "lineage").touch()
    with pytest.raises(DiskError, match="blocked/lineage") as failure:
        make(laid, "parquet", tmp_path / "blocked")
    assert "another FOLDER" in failure.value.hint


class Second(Listener):
    """Another export into the same folder, from another workspace, when the first has written a piece."""

    def __init__(self, workspace: Workspace, place: Path) -> None:
        super().__init__()
        self.workspace, self.place = workspace, place
        self.failures: list[BusyError] = []

    def advance(self, amount: int) -> None:
        if amount and not self.failures:
            with pytest.raises(BusyError) as failure:
                make(self.workspace, "jsonl", self.place)
            self.failures.append(failure.value)


def test_a_second_export_into_the_same_folder_is_refused(laid: Workspace, own: Workspace, tmp_path: Path) -> None:
    second = Second(own, tmp_path / "out")
    make(laid, "jsonl", tmp_path / "out", second, splits=("validation",))
    (failure,) = second.failures
    assert failure.message.startswith(f"{tmp_path / 'out'} is being written by `corpus export`, process ")
    assert "\n" not in failure.message
    assert "another FOLDER" in failure.hint
    assert make(own, "jsonl", tmp_path / "out", splits=("validation",)).skipped  # the lock is released
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").touch()
    (tmp_path / "killed" / ".lock.holder").touch()
    make(laid, "jsonl", tmp_path / "killed", splits=("validation",))


def test_documents_that_are_refused(own: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no documents in test"):
        make(own, "jsonl", tmp_path / "out", splits=("test",))
    shard = next(own.documents("wiki2019zh").glob("part-*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"?")
    with pytest.raises(DamageError, match="has other bytes than its ledger says"):
        make(own, "jsonl", tmp_path / "out")
    shard.write_bytes(whole)
    ledger = own.documents("baike2018qa") / LEDGER
    ledger.write_bytes(ledger.read_bytes().replace(b'"validation": 30', b'"validation": 31'))
    for lists in (own.dedup, own.decontaminate):  # made from the other ledger
        shutil.rmtree(lists)
    with pytest.raises(BooksError, match="31 documents are not 30 exported"):
        make(own, "jsonl", tmp_path / "out")
    assert read_ledger(tmp_path / "out") is None
    shutil.rmtree(own.tokenizer)
    with pytest.raises(WorkspaceError, match="no tokenizer"):
        make(own, "nanogpt", tmp_path / "tokens")


def test_the_command(laid: Workspace, tmp_path: Path) -> None:
    arguments = ("export", "--format", "nanogpt", "--workspace", laid.root, "--workers", 1, "out")
    shown = corpus(*arguments, folder=tmp_path).stdout
    assert "wiki2019zh" in shown
    assert "ledger: " in shown
    report = json.loads(corpus(*arguments, "--json", folder=tmp_path).stdout)[0]
    assert (report["stage"], report["skipped"], report["dataset"]) == ("export", True, None)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**The rights in the texts are not settled.**" in card
    for wrong in (("tfrecord",), ("nanogpt", "--form", "chat"), ("nanogpt", "--workers", -1)):
        corpus("export", "--format", *wrong, "--workspace", laid.root, "other", folder=tmp_path, code=2)
    failure = corpus("export", "--format", "jsonl", "--workspace", laid.root, "out", folder=tmp_path, code=1).stderr
    assert "another format" in failure
    assert not (tmp_path / "other").exists()
