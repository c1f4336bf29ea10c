"""A share of the documents: several jobs in one workspace leave what one run leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from corpus.pipeline.documents import share as shares
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.progress import SILENT
from corpus.pipeline.read import deflate
from corpus.pipeline.read.restart_files import FOLDER
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.documents import VALID, tree
from tests.support.ingested import FORMS, PLAIN
from tests.support.records import LayRaw, baike, lines

BAD = {VALID: PLAIN[VALID] + lines([baike(n, answer="") for n in range(9)])}
CONFIG = IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=7000, signatures=True)


def job(workspace: Workspace, index: int, count: int, config: IngestConfig = CONFIG) -> ShareReport:
    """One job of an array, as it starts on another machine."""
    other = Workspace(workspace.root)
    with other.sharing(f"ingest --shard {index}/{count}", ingest.STAGE):
        return shares.run(config, other, Share(index, count))


def whole(workspace: Workspace) -> dict[str, bytes]:
    """Documents and signatures."""
    return tree(workspace.root / "documents") | tree(workspace.dedup)


def finish(workspace: Workspace, config: IngestConfig = CONFIG) -> dict[str, bytes]:
    other = Workspace(workspace.root)
    with other.writing("ingest"):
        ingest.run(config, other)
    return whole(workspace)


@pytest.fixture
def alone(workspace: Workspace, lay_raw: LayRaw) -> dict[str, bytes]:
    """What one run leaves; the workspace then holds the raw files alone."""
    lay_raw("baike2018qa", PLAIN | BAD)
    left = finish(workspace)
    assert any(name.startswith("baike2018qa/rejected/") for name in left)
    for area in ("documents", "dedup"):
        shutil.rmtree(workspace.root / area)
    return left


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_shares_leave_what_one_run_leaves(workspace: Workspace, alone: dict[str, bytes], count: int) -> None:
    reports = [job(workspace, index, count) for index in range(1, count + 1)]
    (pieces,) = {report.pieces for report in reports}
    assert 5 < pieces < 40
    assert sum(report.made for report in reports) == pieces
    folder = workspace.documents("baike2018qa")
    assert not (folder / "ledger.json").exists()
    assert len(receipts.read_all(folder)) == pieces
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("part-*")}
    assert finish(workspace) == alone
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("part-*")} == before  # no piece was made again
    assert job(workspace, 1, count).finished
    assert whole(workspace) == alone


def test_a_run_without_a_share_makes_what_the_jobs_did_not(workspace: Workspace, alone: dict[str, bytes]) -> None:
    job(workspace, 2, 3)
    assert finish(workspace) == alone


def test_a_requeued_job_makes_what_is_missing(workspace: Workspace, alone: dict[str, bytes]) -> None:
    first = job(workspace, 1, 2)
    folder = workspace.documents("baike2018qa")
    (folder / "part-00002.parquet").unlink()
    (folder / "part-00004.parquet").write_bytes(b"torn")
    again = job(workspace, 1, 2)
    assert (again.made, again.kept) == (2, first.made - 2)
    job(workspace, 2, 2)
    assert finish(workspace) == alone


def test_a_job_touches_no_file_of_another(workspace: Workspace, alone: dict[str, bytes]) -> None:
    """Neither partial files, nor shards of older work, nor a shard that is being replaced."""
    job(workspace, 1, 2)
    folder = workspace.documents("baike2018qa")
    for name in (".part-00001.parquet.node7-12-01234567.tmp", "part-00001.parquet", "part-00099.parquet"):
        (folder / name).write_bytes(b"another job's")
    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert job(workspace, 1, 2).made == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == left
    (folder / ".part-00001.parquet.node7-12-01234567.tmp").unlink()
    assert finish(workspace) == alone


def test_finished_documents_become_stale(workspace: Workspace, alone: dict[str, bytes]) -> None:
    """The first job deletes the ledger before a shard changes, and what the ledger shows to be damaged."""
    assert finish(workspace) == alone
    longer = replace(CONFIG, min_length=60)
    folder = workspace.documents("baike2018qa")
    assert job(workspace, 1, 2, longer).made > 0
    assert not (folder / "ledger.json").exists()
    job(workspace, 2, 2, longer)
    left = finish(workspace, longer)
    shutil.rmtree(folder)
    shutil.rmtree(workspace.dedup)
    assert finish(workspace, longer) == left != alone


def test_a_shard_of_a_finished_stage_is_kept_and_gets_its_receipt(
    workspace: Workspace, alone: dict[str, bytes]
) -> None:
    """Unless its ledger shows that it is damaged, though its footer is not."""
    assert finish(workspace) == alone
    folder = workspace.documents("baike2018qa")
    data = bytearray(alone["baike2018qa/part-00002.parquet"])
    data[len(data) // 3] ^= 1
    write_atomic(folder / "part-00002.parquet", bytes(data))
    assert ingest.shard_metadata(folder / "part-00002.parquet") is not None
    reports = [job(workspace, index, 2) for index in (1, 2)]
    assert [report.made for report in reports] == [1, 0]
    adopted = [found.receipt.to_json() for found in receipts.read_all(folder)]
    assert finish(workspace) == alone
    shutil.rmtree(folder)
    for index in (1, 2):
        job(workspace, index, 2)
    assert [found.receipt.to_json() for found in receipts.read_all(folder)] == adopted


def test_the_second_job_leaves_what_the_first_has_begun(workspace: Workspace, alone: dict[str, bytes]) -> None:
    """It saw the ledger, too, which tells nothing of the shards that the first has written since."""
    assert finish(workspace) == alone
    longer = replace(CONFIG, min_length=60)
    stage, _ = ingest.prepare(longer, Workspace(workspace.root), SILENT, Share(2, 2))
    assert stage.skipped() is None
    job(workspace, 1, 2, longer)
    before = tree(stage.folder)
    stage.begin()
    assert tree(stage.folder) == before


class Racing(Workspace):
    """Another job deletes the ledger, and a damaged shard, while the outputs are compared with it."""

    def digest(self, path: Path) -> str:
        if path.name == "part-00001.parquet" and (path.parent / "ledger.json").exists():
            (path.parent / "ledger.json").unlink()
            raise FileNotFoundError(path)
        return super().digest(path)


def test_a_job_that_starts_while_the_first_deletes_the_ledger(workspace: Workspace, alone: dict[str, bytes]) -> None:
    assert finish(workspace) == alone
    report = shares.run(CONFIG, Racing(workspace.root), Share(1, 1))
    assert (report.made, report.kept, report.finished) == (0, report.pieces, False)
    assert finish(workspace) == alone


def test_status_shows_how_many_pieces_are_there(workspace: Workspace, alone: dict[str, bytes]) -> None:
    def why() -> list[str]:
        return [row.why for row in survey(Workspace(workspace.root)) if row.area == "documents"]

    first = job(workspace, 1, 3)
    assert why() == [f"{first.made} of {first.pieces} pieces are there"]
    for index in (2, 3):
        job(workspace, index, 3)
    assert why() == [f"{first.pieces} of {first.pieces} pieces are there"]
    assert finish(workspace) == alone
    assert why() == [""]


@pytest.mark.parametrize("form", ["zip", "tar.gz", "xz"])
def test_pieces_of_archives(workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Those that are read one after another, too; the run that finishes does not read them again."""

    def refuse(*_arguments: object) -> None:
        raise AssertionError("the archive is read again")

    lay_raw("baike2018qa", FORMS[form])
    jobs = [job(workspace, index, 3) for index in (3, 1, 2)]
    assert {each.pieces for each in jobs} == {sum(each.made for each in jobs)}
    with monkeypatch.context() as patched:
        patched.setattr("corpus.pipeline.documents.stage.cut", refuse)
        left = finish(workspace)
    for area in ("documents", "dedup"):
        shutil.rmtree(workspace.root / area)
    assert finish(workspace) == left


@pytest.mark.skipif(deflate.LIBRARY is None, reason="there is no C library of zlib here")
@pytest.mark.parametrize("form", ["zip", "gz"])
def test_a_job_unpacks_its_share_alone(
    workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Once one job has noted where a compressed file can be read from within."""

    def refuse(*_arguments: object, **_settings: object) -> None:
        raise AssertionError("a member is read from its beginning to its end")

    lay_raw("baike2018qa", FORMS[form])
    left = finish(workspace)
    for folder in (*(workspace.root / area for area in ("documents", "dedup")), workspace.raw("baike2018qa") / FOLDER):
        shutil.rmtree(folder)
    job(workspace, 9, 9)
    monkeypatch.setattr("corpus.pipeline.read.pieces.open_deflate", refuse)
    monkeypatch.setattr("corpus.pipeline.read.pieces.open_file", refuse)
    for index in range(1, 9):
        job(workspace, index, 9)
    assert finish(workspace) == left


def test_not_downloaded(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not downloaded"):
        job(workspace, 1, 2)
