"""Raw files to documents: the books, the splits, the reruns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpus.pipeline import manifest as manifests
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.read import deflate
from corpus.pipeline.read.restart_files import FOLDER
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID, Listener, tree
from tests.support.ingested import FORMS, PLAIN, documents, make, rejected, zip_of
from tests.support.records import LayRaw, baike, lines


def test_books_and_columns(workspace: Workspace, lay_raw: LayRaw) -> None:
    bad = [baike(1000, answer=""), baike(1001, title="短", answer="短"), baike(1002, answer=None)]
    lay_raw(
        "baike2018qa", {TRAIN: lines([baike(n) for n in range(200)] + bad), VALID: lines([baike(n) for n in range(9)])}
    )
    counts = make(workspace).ledger.counts
    assert counts["records"] == 212
    assert counts["documents"] == 209
    assert counts["splits"] == {"train": 200, "validation": 9}
    assert counts["dropped"] == {"empty": 1, "too_short": 1, "wrong_type": 1}
    rows = documents(workspace)
    assert len({row["id"] for row in rows}) == len(rows)
    raw = (workspace.raw("baike2018qa") / TRAIN).read_bytes()
    for row in rows[:200]:
        record = json.loads(raw[row["source_offset"] :].split(b"\n")[0])
        assert record["qid"] == json.loads(row["meta"])["qid"]
        assert row["text"][row["prompt_length"] :] == record["answer"]
        assert row["source_file"] == TRAIN
    assert [row["reason"] for row in rejected(workspace)] == ["empty", "too_short", "wrong_type"]
    assert all(json.loads(row["raw"])["qid"] in {"qid_1000", "qid_1001", "qid_1002"} for row in rejected(workspace))
    assert sum(len(row["text"]) for row in rows) == sum(counts["characters"].values())


def test_workers_and_pieces_change_no_document(tmp_path: Path, lay_raw: LayRaw, workspace: Workspace) -> None:
    lay_raw("baike2018qa", FORMS["plain"])
    trees = []
    for workers in (1, 2, 4):
        shutil.rmtree(workspace.documents("baike2018qa"), ignore_errors=True)
        make(workspace, workers=workers, piece_bytes=7000)
        trees.append(tree(workspace.documents("baike2018qa")))
    assert len(trees[0]) > 5
    assert trees[0] == trees[1] == trees[2]
    before = documents(workspace)
    make(workspace, piece_bytes=1 << 20)
    assert documents(workspace) == before


@pytest.mark.slow
@pytest.mark.skipif(deflate.LIBRARY is None, reason="there is no C library of zlib here")
@pytest.mark.parametrize("members", [2, 9])
def test_eight_workers_unpack_and_change_no_byte(workspace: Workspace, lay_raw: LayRaw, members: int) -> None:
    """Of two members the parent notes the restart points, of nine the workers do."""
    words = "这一条写得足够长，讲清楚了它的来历、用途和别名，谁都看得懂，也记得住。"
    records = [
        {"id": str(n), "url": "", "title": f"词条{n}", "text": f"词条{n}\n\n第{n}条。{words}"} for n in range(90)
    ]
    files = {f"wiki_zh/AA/wiki_{n:02d}": lines(records[n * 10 : n * 10 + 10]) for n in range(members)}
    lay_raw("wiki2019zh", {"wiki_zh_2019.zip": zip_of(files)})
    folder, restarts = workspace.documents("wiki2019zh"), workspace.raw("wiki2019zh") / FOLDER
    left = []
    for workers in (1, 8):
        for made in (folder, restarts):
            shutil.rmtree(made, ignore_errors=True)
        ingest.run(IngestConfig(dataset="wiki2019zh", workers=workers, piece_bytes=1000), workspace)
        left.append((tree(folder), tree(restarts)))
    assert left[0] == left[1]
    assert len(left[0][1]) == members


def test_rerun_skips_and_says_what_changed(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", PLAIN)
    first = make(workspace)
    assert not first.skipped
    (workspace.raw("baike2018qa") / TRAIN).touch()
    assert make(workspace).skipped
    assert make(workspace, min_length=30).reasons == ("min-length was 10 and is 30",)
    other = PLAIN[TRAIN].replace("第7个".encode(), "第８个".encode(), 1)
    assert len(other) == len(PLAIN[TRAIN]) + 2
    lay_raw("baike2018qa", PLAIN | {TRAIN: other})
    assert make(workspace, min_length=30).reasons == (f"input raw/baike2018qa/{TRAIN} has changed",)
    same_size = PLAIN[TRAIN].replace("第7个".encode(), "第6个".encode(), 1)
    (workspace.raw("baike2018qa") / TRAIN).write_bytes(same_size)
    with pytest.raises(DamageError, match="has another size than its ledger says"):
        make(workspace, min_length=30)


def test_damage_is_not_taken_for_finished_work(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", PLAIN)
    folder = make(workspace, piece_bytes=7000).folder
    whole = tree(folder)
    for name in ("part-00001.parquet", "part-00003.parquet"):
        data = bytearray(whole[name])
        data[len(data) // 3] ^= 1
        (folder / name).write_bytes(data)
    (folder / "part-00003.parquet").unlink()
    again = make(workspace, piece_bytes=7000)
    assert "output part-00001.parquet has other bytes than its ledger says" in again.reasons
    assert tree(folder) == whole


def test_no_dropped_shard_is_left_alone(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", {TRAIN: lines([baike(n, title="", answer="短的回答写了九字") for n in range(30)])})
    folder = make(workspace, min_length=9).folder
    assert make(workspace, min_length=9).ledger.counts["dropped"] == {"too_short": 30}
    (folder / "ledger.json").unlink()
    (folder / "part-00000.parquet").unlink()
    ledger = make(workspace, min_length=1).ledger
    assert ledger.counts["dropped"] == {}
    assert [output.path for output in ledger.outputs] == ["part-00000.parquet"]
    assert not rejected(workspace)


def test_neighbours_that_look_like_one_tag(workspace: Workspace, lay_raw: LayRaw) -> None:
    pair = [baike(1, answer="这一句在标签中间断了，后面没有 <br"), baike(2, title="> 引用的一段<b>话</b>")]
    lay_raw("baike2018qa", {TRAIN: lines(pair)})
    assert make(workspace).ledger.counts["documents"] == 2


def test_half_done_work_is_continued(workspace: Workspace, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", PLAIN)
    make(workspace, piece_bytes=7000)
    folder = workspace.documents("baike2018qa")
    whole = tree(folder)
    (folder / "ledger.json").unlink()
    (folder / "part-00002.parquet").unlink()
    (folder / "part-00003.parquet").write_bytes(whole["part-00003.parquet"][:500])
    (folder / ".part-00001.parquet.99.tmp").write_bytes(b"left over")
    untouched = (folder / "part-00000.parquet").stat().st_mtime_ns
    listener = Listener()
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=7000), workspace, progress=listener)
    assert tree(folder) == whole
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == untouched
    assert any(
        f"{len([n for n in whole if n.startswith('part-')]) - 2} finished shards are kept" in line
        for line in listener.said
    )


class Stopping(Listener):
    """Presses Ctrl-C when so many pieces are done."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.left = pieces

    def advance(self, amount: int) -> None:
        self.left -= amount > 0
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_run_is_resumed_by_receipts(
    workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without opening a shard; one that was changed since its receipt was written is made again."""
    lay_raw("baike2018qa", PLAIN | {VALID: PLAIN[VALID] + lines([baike(n, answer="") for n in range(9)])})
    folder, config = (
        workspace.documents("baike2018qa"),
        IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=7000),
    )
    report = ingest.run(config, workspace)
    whole = tree(folder)
    assert any(name.startswith("rejected/") for name in whole)
    shutil.rmtree(folder)
    with pytest.raises(KeyboardInterrupt):
        ingest.run(config, workspace, progress=Stopping(4))
    told = [output for found in receipts.read_all(folder) for output in found.receipt.outputs]
    assert [output.path for output in told] == [f"part-0000{n}.parquet" for n in range(4)]
    assert [output.digest for output in told] == list(report.ledger.outputs[:4])
    assert [sum(output.groups) for output in told] == [pq.read_metadata(folder / each.path).num_rows for each in told]
    data = bytearray(whole["part-00001.parquet"])
    data[len(data) // 3] ^= 1
    (folder / "part-00001.parquet").write_bytes(data)
    opened = list[Path]()
    monkeypatch.setattr("corpus.pipeline.documents.stage.part_metadata", opened.append)
    again = ingest.run(config, Workspace(workspace.root))
    assert [path.name for path in opened] == ["part-00001.parquet"]
    assert tree(folder) == whole
    assert again.ledger == report.ledger


def test_not_downloaded(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not downloaded"):
        make(workspace)


def test_hash_split_is_stable_and_small(workspace: Workspace, lay_raw: LayRaw) -> None:
    records = [
        {
            "id": str(n),
            "url": "",
            "title": f"词条{n}",
            "text": f"词条{n}\n\n这一条讲的是编号为{n}的事物，它的来历、用途与别名都写在这里，足够长。",
        }
        for n in range(4000)
    ]
    lay_raw("wiki2019zh", {"wiki_zh/AA/wiki_00": lines(records[:2000]), "wiki_zh/AA/wiki_01": lines(records[2000:])})
    counts = ingest.run(IngestConfig(dataset="wiki2019zh", workers=1), workspace).ledger.counts
    assert 5 <= counts["splits"]["validation"] <= 45
    first = {row["id"]: row["split"] for row in documents(workspace, "wiki2019zh")}
    ingest.run(IngestConfig(dataset="wiki2019zh", workers=1, piece_bytes=50_000), workspace)
    assert {row["id"]: row["split"] for row in documents(workspace, "wiki2019zh")} == first
    assert first.keys() >= {"7@AA/wiki_00:" + str(len(lines(records[:7])))}


@pytest.mark.mirror
@pytest.mark.parametrize("dataset", manifests.CORPORA)
def test_the_shared_sample(workspace: Workspace, lay_raw: LayRaw, mirror: Path, dataset: str) -> None:
    archive = manifests.load(dataset).archive
    lay_raw(dataset, {archive: (mirror / archive).read_bytes()})
    report = ingest.run(IngestConfig(dataset=dataset, workers=1), workspace)
    counts = report.ledger.counts
    assert counts["records"] == counts["documents"] + sum(counts["dropped"].values()) > 1000
    assert not set(counts["dropped"]) & {
        "malformed_json",
        "not_utf8",
        "wrong_type",
        "missing_field",
        "duplicate_key",
        "too_large",
    }
    rows = documents(workspace, dataset)
    assert len({row["id"] for row in rows}) == len(rows) == counts["documents"]
    assert not any(
        "<br" in row["text"] or "\r" in row["text"] or "\n\n\n" in row["text"] for row in rows if "`" not in row["text"]
    )


@pytest.mark.parametrize("official", [True, False])
def test_an_official_file_with_another_digest_is_told(workspace: Workspace, lay_raw: LayRaw, official: bool) -> None:
    lay_raw("baike2018qa", FORMS["zip"])
    path = workspace.raw("baike2018qa") / "ledger.json"
    values = json.loads(path.read_text()) | {"config": {"source": "official" if official else "given"}}
    path.write_text(json.dumps(values))
    notes = make(workspace, piece_bytes=4096).notes
    assert bool(notes) == official
    if official:
        assert "baike_qa_train.json does not have the SHA-256 of the official file" in notes[0]
