"""Raw files to documents: every container, every cut, the books, the reruns."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline import manifest as manifests
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import ArchiveError, DamageError, ShapeError, SourceError, WorkspaceError
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.records import read, record_at
from corpus.pipeline.read.spans import SIZES, ReadSizes, RecordFile, Span
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID, Listener, tree
from tests.support.records import LayRaw, baike, lines


def make(workspace: Workspace, **settings_: Any) -> Any:
    values: dict[str, Any] = {"dataset": "baike2018qa", "workers": 1} | settings_
    return ingest.run(IngestConfig(**values), workspace)


def documents(workspace: Workspace, dataset: str = "baike2018qa") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(workspace.documents(dataset).glob("part-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def rejected(workspace: Workspace, dataset: str = "baike2018qa") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((workspace.documents(dataset) / "rejected").glob("part-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


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


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


PLAIN = {TRAIN: lines([baike(n) for n in range(300)]), VALID: lines([baike(n) for n in range(300, 320)])}
FORMS: dict[str, dict[str, bytes]] = {
    "plain": PLAIN,
    "zip": {"baike2018qa.zip": _zip(PLAIN)},
    "zip in a folder": {"baike2018qa.zip": _zip({f"baike2018qa/{name}": data for name, data in PLAIN.items()})},
    "tar": {"baike2018qa.tar": _tar(PLAIN, "w")},
    "tar.gz": {"baike2018qa.tar.gz": _tar(PLAIN, "w:gz")},
    "tar.zst": {"baike2018qa.tar.zst": zstandard.compress(_tar(PLAIN, "w"))},
    "tar.xz": {"baike2018qa.tar.xz": _tar(PLAIN, "w:xz")},
    "gz": {f"{name}.gz": gzip.compress(data) for name, data in PLAIN.items()},
    "xz": {f"{name}.xz": lzma.compress(data) for name, data in PLAIN.items()},
    "zst": {f"{name}.zst": zstandard.compress(data) for name, data in PLAIN.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("piece_bytes", [4096, 1 << 20])
def test_every_container_gives_the_same_documents(
    workspace: Workspace, lay_raw: LayRaw, form: str, piece_bytes: int
) -> None:
    lay_raw("baike2018qa", FORMS[form])
    make(workspace, piece_bytes=piece_bytes)
    rows = documents(workspace)
    assert [row["id"].split("@")[0] for row in rows] == [f"qid_{n}" for n in range(320)]
    assert [row["split"] for row in rows] == ["train"] * 300 + ["validation"] * 20
    offsets = [row["source_offset"] for row in rows]
    assert offsets[:300] == sorted(offsets[:300])
    raw, files = (
        workspace.raw("baike2018qa"),
        {file.path: file for file in list_files(workspace.raw("baike2018qa"), manifests.load("baike2018qa"))},
    )
    for row in rows[::37]:
        record = json.loads(record_at(raw, files[row["source_file"]], row["source_offset"]))
        assert record["qid"] == row["id"].split("@")[0]


def test_parquet_is_read_by_row(workspace: Workspace, lay_raw: LayRaw) -> None:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([baike(n) for n in range(300)]), out, row_group_size=64)
    lay_raw("baike2018qa", {"train-baikeqa_zh.parquet": out.getvalue()})
    make(workspace, piece_bytes=8192)
    rows = documents(workspace)
    assert [row["source_offset"] for row in rows] == list(range(300))
    assert [row["id"].split("@")[0] for row in rows] == [f"qid_{n}" for n in range(300)]


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
    with pytest.raises(DamageError, match="is not what came with the download"):
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


def test_a_parquet_row_that_is_not_utf8_is_rejected_alone(workspace: Workspace, lay_raw: LayRaw) -> None:
    table = pa.Table.from_pylist([baike(n) for n in range(40)])
    answers = pa.array([b"\xff\xfe" if n == 7 else f"第{n}个回答写得很长。".encode() for n in range(40)], pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 40, answers.buffers())
    table = table.set_column(table.schema.get_field_index("answer"), "answer", strings)
    out = io.BytesIO()
    pq.write_table(table, out)
    lay_raw("baike2018qa", {"train-baikeqa_zh.parquet": out.getvalue()})
    assert make(workspace).ledger.counts["dropped"] == {"not_utf8": 1}
    assert b"\xff\xfe" in rejected(workspace)[0]["raw"]


def test_neighbours_that_look_like_one_tag(workspace: Workspace, lay_raw: LayRaw) -> None:
    pair = [baike(1, answer="这一句在标签中间断了，后面没有 <br"), baike(2, title="> 引用的一段<b>话</b>")]
    lay_raw("baike2018qa", {TRAIN: lines(pair)})
    assert make(workspace).ledger.counts["documents"] == 2


def test_many_small_members_of_a_tape_are_taken_together(workspace: Workspace, lay_raw: LayRaw) -> None:
    record = {
        "url": "",
        "title": "词条",
        "text": "词条\n\n这一条写得足够长，讲清楚了它的来历、用途和别名，谁都看得懂，也记得住。",
    }
    files = {f"wiki_zh/AA/wiki_{n:02d}": lines([record | {"id": str(n)}]) for n in range(60)}
    lay_raw("wiki2019zh", {"wiki_zh_2019.tar.gz": _tar(files, "w:gz")})
    config = IngestConfig(dataset="wiki2019zh", workers=1)
    assert [output.path for output in ingest.run(config, workspace).ledger.outputs] == ["part-00000.parquet"]
    assert [row["source_file"] for row in documents(workspace, "wiki2019zh")] == sorted(files)


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


def test_not_downloaded(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not downloaded"):
        make(workspace)


SHAPES = [
    ("[" + ",\n".join(json.dumps(baike(n)) for n in range(30)) + "]", "JSON array"),
    (lines([baike(n) for n in range(30)]).decode().encode("utf-16"), "UTF-16"),
    (lines([{"question": "x", "answer": "y"}] * 30), "fields qid (str)"),
    (lines([baike(n) for n in range(30)]).decode().encode("gb18030"), "not_utf8"),
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


def damaged_zip(position: int) -> bytes:
    data = bytearray(_zip(PLAIN))
    data[position] ^= 0xFF
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(_zip(PLAIN))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + at] |= 1
            place = data.find(signature, place + 4)
    return bytes(data)


ARCHIVES = [
    ("baike2018qa.zip", damaged_zip(200), "cannot be unpacked"),
    ("baike2018qa.zip", _zip(PLAIN)[:-300], "cannot be opened"),
    ("baike2018qa.zip", encrypted_zip(), "encrypted"),
    ("baike2018qa.zip", _zip({f"../../{TRAIN}": b"{}"}), "leads out of its folder"),
    ("baike2018qa.zip", _zip({f"/etc/{TRAIN}": b"{}"}), "leads out of its folder"),
    ("baike2018qa.zip", _zip({TRAIN: b"\0" * (80 << 20)}), "250 times its size"),
    ("baike2018qa.tar", _tar({f"../{TRAIN}": b"{}"}, "w"), "leads out of its folder"),
    (f"{TRAIN}.gz", gzip.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.gz", gzip.compress(b" " * (80 << 20)), "250 times its size"),
    (f"{TRAIN}.xz", lzma.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(PLAIN[TRAIN])[:-1], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(b" " * (80 << 20)), "250 times its size"),
    ("baike2018qa.tar.zst", zstandard.compress(_tar(PLAIN, "w"))[:-40], "cannot be opened"),
]


@pytest.mark.parametrize(("name", "data", "says"), ARCHIVES)
def test_bad_archives(workspace: Workspace, lay_raw: LayRaw, name: str, data: bytes, says: str) -> None:
    lay_raw("baike2018qa", {name: data})
    with pytest.raises(ArchiveError) as caught:
        make(workspace)
    assert says in caught.value.message
    assert not (workspace.documents("baike2018qa") / "ledger.json").exists()


def test_a_symbolic_link_in_an_archive(workspace: Workspace, lay_raw: LayRaw) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo(TRAIN)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    lay_raw("baike2018qa", {"baike2018qa.tar": out.getvalue()})
    with pytest.raises(ArchiveError, match="link"):
        make(workspace)


@pytest.mark.parametrize(
    "files", [{"baike2018qa.zip": _zip({"inner.zip": b"x", "read.me": b"y"})}, {"other.bin": b"x"}]
)
def test_wrong_members_are_named(workspace: Workspace, lay_raw: LayRaw, files: dict[str, bytes]) -> None:
    lay_raw("baike2018qa", files)
    with pytest.raises(SourceError) as caught:
        make(workspace)
    assert "looked for baike_qa_train.json" in caught.value.message
    assert ("inner.zip" in caught.value.message) or ("other.bin" in caught.value.message)


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


def test_a_damaged_bzip2_member_is_named(workspace: Workspace, lay_raw: LayRaw) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(TRAIN, lines([baike(n) for n in range(400)]))
    data = bytearray(packed.getvalue())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    lay_raw("baike2018qa", {"baike2018qa.zip": bytes(data)})
    with pytest.raises(ArchiveError, match="baike_qa_train"):
        ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)
