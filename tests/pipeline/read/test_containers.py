"""Archives and other containers: each gives the same documents, or is refused by name."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.pipeline import manifest as manifests
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import ArchiveError, CorpusError, SourceError
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.records import read, record_at
from corpus.pipeline.read.spans import ReadSizes, RecordFile, Span
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN
from tests.support.ingested import FORMS, PLAIN, documents, make, rejected, tar_of, zip_of
from tests.support.records import LayRaw, baike, lines


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


def test_a_parquet_row_that_is_too_large_is_rejected_as_a_line_is(tmp_path: Path) -> None:
    rows, sizes = [baike(1), baike(2, answer="长" * 200), baike(3)], ReadSizes(record=500, rejected=90)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows")
    (tmp_path / "lines").write_bytes(lines(rows))
    file = RecordFile(
        container="rows", codec="parquet", path="rows", tail="", split="train", shape="x", layout="rows", bytes=None
    )
    ((by_row, large),) = read(tmp_path, Span(file, 0, None), sizes=sizes)
    beside = replace(file, container="lines", codec="plain", layout="lines")
    ((by_line, too_long),) = read(tmp_path, Span(beside, 0, None), sizes=sizes)
    assert [json.loads(record) for _, record in by_row] == [json.loads(record) for _, record in by_line] == rows[::2]
    (first,), (second,) = large, too_long
    assert (first.offset, first.reason, first.raw) == (1, "too_large", orjson.dumps(rows[1])[:90])
    assert (first.reason, len(first.raw), "more than 500" in first.detail) == (second.reason, len(second.raw), True)


def test_many_small_members_of_a_tape_are_taken_together(workspace: Workspace, lay_raw: LayRaw) -> None:
    record = {
        "url": "",
        "title": "词条",
        "text": "词条\n\n这一条写得足够长，讲清楚了它的来历、用途和别名，谁都看得懂，也记得住。",
    }
    files = {f"wiki_zh/AA/wiki_{n:02d}": lines([record | {"id": str(n)}]) for n in range(60)}
    lay_raw("wiki2019zh", {"wiki_zh_2019.tar.gz": tar_of(files, "w:gz")})
    config = IngestConfig(dataset="wiki2019zh", workers=1)
    assert [output.path for output in ingest.run(config, workspace).ledger.outputs] == ["part-00000.parquet"]
    assert [row["source_file"] for row in documents(workspace, "wiki2019zh")] == sorted(files)


def damaged_zip(position: int) -> bytes:
    data = bytearray(zip_of(PLAIN))
    data[position] ^= 0xFF
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(zip_of(PLAIN))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + at] |= 1
            place = data.find(signature, place + 4)
    return bytes(data)


ARCHIVES = [
    ("baike2018qa.zip", damaged_zip(200), "cannot be unpacked"),
    ("baike2018qa.zip", zip_of(PLAIN)[:-300], "cannot be opened"),
    ("baike2018qa.zip", encrypted_zip(), "encrypted"),
    ("baike2018qa.zip", zip_of({f"../../{TRAIN}": b"{}"}), "leads out of its folder"),
    ("baike2018qa.zip", zip_of({f"/etc/{TRAIN}": b"{}"}), "leads out of its folder"),
    ("baike2018qa.zip", zip_of({TRAIN: b"\0" * (80 << 20)}), "250 times its size"),
    ("baike2018qa.tar", tar_of({f"../{TRAIN}": b"{}"}, "w"), "leads out of its folder"),
    (f"{TRAIN}.gz", gzip.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.gz", gzip.compress(b" " * (80 << 20)), "250 times its size"),
    (f"{TRAIN}.xz", lzma.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(PLAIN[TRAIN])[:-40], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(PLAIN[TRAIN])[:-1], "cannot be unpacked"),
    (f"{TRAIN}.zst", zstandard.compress(b" " * (80 << 20)), "250 times its size"),
    ("baike2018qa.tar.zst", zstandard.compress(tar_of(PLAIN, "w"))[:-40], "cannot be opened"),
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
    "files", [{"baike2018qa.zip": zip_of({"inner.zip": b"x", "read.me": b"y"})}, {"other.bin": b"x"}]
)
def test_wrong_members_are_named(workspace: Workspace, lay_raw: LayRaw, files: dict[str, bytes]) -> None:
    lay_raw("baike2018qa", files)
    with pytest.raises(SourceError) as caught:
        make(workspace)
    assert "looked for baike_qa_train.json" in caught.value.message
    assert ("inner.zip" in caught.value.message) or ("other.bin" in caught.value.message)


def test_a_damaged_bzip2_member_is_named(workspace: Workspace, lay_raw: LayRaw) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(TRAIN, lines([baike(n) for n in range(400)]))
    data = bytearray(packed.getvalue())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    lay_raw("baike2018qa", {"baike2018qa.zip": bytes(data)})
    with pytest.raises(ArchiveError, match="baike_qa_train"):
        ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)


def zipped(files: dict[str, bytes], *, link: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            packed.writestr(entry, "/etc/hostname")
    return out.getvalue()


WHOLE = lines([baike(n) for n in range(30)])
SPOILT = WHOLE.replace("第7个".encode(), "第6个".encode(), 1)
NAMED: list[tuple[str, bytes, type[CorpusError], str]] = [
    ("baike2018qa.zip", b"", SourceError, "looked for baike_qa_train.json"),
    ("baike2018qa.zip", zipped({}), SourceError, "found nothing"),
    ("baike2018qa.tar", b"", ArchiveError, "cannot be opened"),
    ("baike2018qa.tar", b"\0" * 10240, SourceError, "found nothing"),
    ("baike2018qa.zip", zipped({TRAIN: WHOLE}).replace(WHOLE, SPOILT), ArchiveError, "Bad CRC-32"),
    ("baike2018qa.zip", zipped({"x": b""}, link=TRAIN), ArchiveError, "is a symbolic link"),
    ("baike2018qa.zip", zipped({f"a\\..\\..\\{TRAIN}": WHOLE}), ArchiveError, "leads out of its folder"),
]


@pytest.mark.parametrize(("name", "data", "kind", "says"), NAMED)
def test_archives_that_are_refused(
    workspace: Workspace, lay_raw: LayRaw, name: str, data: bytes, kind: type[CorpusError], says: str
) -> None:
    lay_raw("baike2018qa", {name: data})
    with pytest.raises(kind) as caught:
        ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=1), workspace)
    assert says in caught.value.message
    assert not (workspace.documents("baike2018qa") / "ledger.json").exists()
