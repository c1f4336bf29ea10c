"""A dataset that grows: new files are ingested alone, old shards stay, and nothing is lost on the way."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline import download, workflows
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.documents.transform import make_part
from corpus.pipeline.errors import ShapeError, SourceError
from corpus.pipeline.inspect import verify
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import PackConfig
from corpus.pipeline.pack import share as rows
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import TokenizerConfig
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workflows import shares
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share
from tests.support.command import corpus
from tests.support.documents import tree
from tests.support.own import documents
from tests.support.records import lines

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


def test_a_dataset_that_grows_by_shares(dumps: Workspace) -> None:
    """The jobs keep what was there before, and number what is new after it; the bytes are those of one run."""
    (dumps.root.parent / "given" / "day-1.jsonl").write_bytes(dump(1))
    workflows.download(dumps, datasets=["dumps"])
    other = Workspace(dumps.root.with_name("other"))
    shutil.copytree(dumps.root, other.root)
    areas = [dumps.documents("dumps"), dumps.packed("dumps")]
    before = [stamps(area) for area in areas]
    for index in (2, 1):
        shares.ingest(Workspace(dumps.root), Share(index, 2), datasets=["dumps"], workers=1)
    for workspace in (dumps, other):
        workflows.ingest(workspace, datasets=["dumps"], workers=1)
    for index in (2, 1):
        with dumps.sharing("pack", pack.STAGE):
            rows.run(ROWS, dumps, Share(index, 2))
    for workspace in (dumps, other):
        pack.run(ROWS, workspace)
    for area, old in zip(areas, before, strict=True):
        assert tree(area) == tree(other.root / area.relative_to(dumps.root))
        assert old.items() <= stamps(area).items()
    assert tree(dumps.dedup) == tree(other.dedup)


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


OTHERS = {
    "day-0.jsonl": (lines([{"question": "问", "answer": "答"}] * 30), ShapeError, "not records of dumps"),
    "day-8.json": (b'[{"text": "' + "写到一半".encode() * 9, SourceError, "JSON array cannot be read"),
    "day-9.jsonl": (b"<!DOCTYPE html><html><title>no</title></html>", SourceError, "is an HTML page"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_form_leaves_the_earlier_documents_as_they_were(
    dumps: Workspace, tmp_path: Path, name: str
) -> None:
    data, kind, says = OTHERS[name]
    workflows.ingest(dumps, datasets=["dumps"], workers=1)
    pack.run(ROWS, dumps)
    before = tree(dumps.documents("dumps")), stamps(dumps.documents("dumps"))
    (tmp_path / "given" / name).write_bytes(data)
    (tmp_path / "given" / "day-1.jsonl").write_bytes(dump(1))
    with pytest.raises(kind, match=says) as failure:
        workflows.ingest(dumps, datasets=["dumps"], workers=1)
    assert name in failure.value.message
    assert "came before are as they were" in failure.value.hint
    assert "run `corpus ingest --dataset dumps` again" in failure.value.hint
    assert (tree(dumps.documents("dumps")), stamps(dumps.documents("dumps"))) == before
    states = {row.area: row.state for row in survey(dumps) if row.area in {"documents", "dedup", "packed"}}
    assert set(states.values()) == {"finished"}
    assert pack.run(ROWS, dumps).skipped
    verify.run(dumps)
    (tmp_path / "given" / name).unlink()
    result = workflows.ingest(dumps, datasets=["dumps"], workers=1, dedup=False)
    assert [each["records"] for each in result.documents[0].ledger.counts["batches"]] == [240, 120]


def test_what_was_made_of_good_files_beside_it_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "day-2.jsonl").write_bytes(dump(2))
    (tmp_path / "dumps.toml").write_text(DUMPS, encoding="utf-8")
    workspace, config = Workspace(tmp_path / "workspace"), IngestConfig(dataset="dumps", workers=1, piece_bytes=4000)
    workspace.add_manifest(tmp_path / "dumps.toml")

    def grow() -> dict[str, bytes]:
        download.run(download.DownloadConfig(dataset="dumps"), workspace)
        ingest.run(config, workspace)
        return tree(workspace.documents("dumps"))

    before = grow()
    (tmp_path / "given" / "day-3.jsonl").write_bytes(dump(3))
    (tmp_path / "given" / "day-9.jsonl").write_bytes(OTHERS["day-0.jsonl"][0])
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpus.pipeline.documents.stage.make_part", partial(_noted, made))
        with pytest.raises(ShapeError, match=r"day-9\.jsonl"):
            grow()
    assert made  # shards of day-3
    assert tree(workspace.documents("dumps")) == before


def _noted(made: list[str], piece: Any, **settings: Any) -> Any:
    """Make a part, and note its name."""
    done = make_part(piece, **settings)
    made.append(done.piece)
    return done


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
