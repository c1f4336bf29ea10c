"""Files of records that stay where they are: read by ranges, of one version alone."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline import workflows
from corpus.pipeline.errors import StoreError
from corpus.pipeline.inspect.lineage import documents
from corpus.pipeline.store import Store, open_store
from corpus.pipeline.store.objects import BLOCK_BYTES
from corpus.pipeline.store.references import open_reference, refer
from corpus.pipeline.workspace.layout import Workspace
from tests.support import object_server
from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, lines
from tests.support.remote import QUICK

RECORDS = [baike(number) for number in range(40)]


def packed(kind: str) -> dict[str, bytes]:
    """The records as files of a source."""
    files = {TRAIN: lines(RECORDS[:30]), VALID: lines(RECORDS[30:])}
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return {"baike2018qa.zip": out.getvalue()}
    if kind == "tar.gz":
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        return {"baike2018qa.tar.gz": out.getvalue()}
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if kind == "gz" else files


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Store]:
    """An empty source in memory."""
    store = open_store(f"memory://references-{tmp_path.name}", retry=QUICK)
    yield store
    for key in store.keys(""):
        store.delete(key)


def read(workspace: Workspace) -> dict[str, str]:
    """The texts of all documents, by id."""
    return {
        document["id"]: document["text"]
        for path in sorted(workspace.documents("baike2018qa").glob("part-*"))
        for document in pq.read_table(path, columns=["id", "text"]).to_pylist()
    }


@pytest.mark.parametrize("kind", ["plain", "gz", "zip", "tar.gz"])
def test_documents_are_those_of_copied_files(kind: str, source: Store, tmp_path: Path) -> None:
    for name, data in packed(kind).items():
        source.write(name, data)
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(data)
    copied, referred = Workspace(tmp_path / "copied"), Workspace(tmp_path / "referred")
    workflows.download(copied, datasets=["baike2018qa"], source=str(tmp_path / "files"))
    workflows.clean(copied, datasets=["baike2018qa"], workers=1)
    (report,) = workflows.download(referred, datasets=["baike2018qa"], source=source.shown, by_reference=True)
    assert all(output.path.endswith(".reference") for output in report.ledger.outputs)
    assert "stay at memory://" in report.notes[0]
    workflows.clean(referred, datasets=["baike2018qa"], workers=1)
    assert read(referred) == read(copied)
    assert len(read(copied)) == len(RECORDS)
    (origin,) = documents(referred, ("baike2018qa",), name=next(iter(read(copied))), limit=1)
    assert origin.rebuilt


def test_a_file_that_was_replaced_is_refused_by_name_until_it_is_referred_to_again(
    source: Store, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    for name, data in packed("plain").items():
        source.write(name, data)
    first = workflows.download(workspace, datasets=["baike2018qa"], source=source.shown, by_reference=True)
    source.write(TRAIN, lines(RECORDS[1:31]))
    with pytest.raises(StoreError, match=f"{TRAIN} was replaced since it was referred to") as caught:
        workflows.clean(workspace, datasets=["baike2018qa"], workers=1)
    assert "corpus download --by-reference" in caught.value.hint
    again = workflows.download(workspace, datasets=["baike2018qa"], source=source.shown, by_reference=True)
    assert again[0].ledger.fingerprint == first[0].ledger.fingerprint
    assert again[0].ledger.outputs != first[0].ledger.outputs
    workflows.clean(workspace, datasets=["baike2018qa"], workers=1)
    source.delete(VALID)
    with pytest.raises(StoreError, match=f"{VALID} is gone"):
        workflows.clean(workspace, datasets=["baike2018qa"], min_length=1, workers=1)


def test_what_is_read_where(source: Store) -> None:
    data = random.Random(5).randbytes(2 * BLOCK_BYTES + 1000)
    source.write("file", data)
    file = open_reference(refer(f"{source.shown}/file", QUICK), QUICK)
    chance = random.Random(6)
    for _ in range(30):
        start, size = chance.randrange(len(data) + 10), chance.randrange(1 << 18)
        assert file.seek(start) == start
        assert file.read(size) == data[start : start + size]
    assert file.seek(-7, io.SEEK_END) == len(data) - 7
    assert file.read() == data[-7:]


def test_parquet_is_read_by_ranges(source: Store) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["一", "二"]}), out)
    source.write("a.parquet", out.getvalue())
    with pq.ParquetFile(open_reference(refer(f"{source.shown}/a.parquet", QUICK), QUICK)) as file:
        assert file.read()["text"].to_pylist() == ["一", "二"]


def test_a_signed_url_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a URL with a query cannot be referred to"):
        refer("s3://bucket/file?X-Amz-Signature=1")
    with pytest.raises(workflows.UsageError, match="--by-reference must stand with --source URL"):
        workflows.download(Workspace(tmp_path / "w"), source=str(tmp_path), by_reference=True)
    with pytest.raises(workflows.UsageError, match="a path or file:// are taken without --by-reference"):
        workflows.download(Workspace(tmp_path / "w"), source=tmp_path.as_uri(), by_reference=True)


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_s3_refuses_another_version(
    s3_server: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_server.environment(f"http://{s3_server[0]}:{s3_server[1]}").items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{object_server.BUCKET}/{tmp_path.name}", retry=QUICK)
    store.write("file", b"first" * 10)
    reference = refer(f"{store.shown}/file", QUICK)
    assert open_reference(reference, QUICK).read() == b"first" * 10
    store.write("file", b"other" * 10)
    with pytest.raises(StoreError, match="file was replaced since it was referred to"):
        open_reference(reference, QUICK).read()
