"""The stage as a whole: what lies in `raw/` afterwards, when it is skipped, and what sources have in common."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import fsspec
import pytest

from corpus.pipeline import manifest as manifests
from corpus.pipeline.download.stage import DownloadConfig, plan, run
from corpus.pipeline.errors import ChecksumError, CorpusError, DownloadError, ManifestError, SourceError, WorkspaceError
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, read_ledger
from tests.support.archives import (
    DATA,
    FAST,
    NAME,
    OTHER,
    A,
    Said,
    archive,
    assert_unfinished,
    assert_whole,
    from_mirrors,
    mirrored,
)
from tests.support.server import Server, cut, status


def bring(
    workspace: Workspace, source: str | Path | None, dataset: str = "baike2018qa", said: Said | None = None
) -> Report:
    config = DownloadConfig(dataset=dataset, source=None if source is None else str(source))
    return run(config, workspace, progress=said or Said(), retry=FAST)


def ledger_bytes(workspace: Workspace, dataset: str = "baike2018qa") -> bytes:
    return (workspace.raw(dataset) / "ledger.json").read_bytes()


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with the archive."""
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / NAME).write_bytes(DATA)
    return folder


def test_configs_name_the_flag(workspace: Workspace) -> None:
    with pytest.raises(ManifestError, match="there is no dataset called 'nothing'"):
        run(DownloadConfig(dataset="nothing"), workspace)
    with pytest.raises(ValueError, match=r"--source must name .*, is empty"):
        DownloadConfig(dataset="demo", source=" ")


def test_the_same_bytes_from_anywhere_give_the_same_ledger(tmp_path: Path, given: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe(f"/equal/{NAME}", DATA)
    ledgers = []
    with Server({A: DATA}) as server:
        server.script(A, cut(100_000))
        sources: list[str | Path] = [
            given,
            given / NAME,
            f"file://{given}",
            server.url("/a"),
            server.url(A),
            "memory://equal",
        ]
        for number, source in enumerate(sources):
            workspace = Workspace(tmp_path / str(number))
            report = bring(workspace, source)
            assert_whole(workspace)
            assert not report.skipped
            ledgers.append(ledger_bytes(workspace))
    assert len(set(ledgers)) == 1
    values = json.loads(ledgers[0])
    assert values["config"] == {"source": "given"}
    assert values["inputs"] == []
    assert values["counts"] == {"files": 1, "bytes": len(DATA)}
    assert str(tmp_path).encode() not in ledgers[0]


def test_origin_tells_people_where_from(tmp_path: Path, given: Path) -> None:
    workspace = Workspace(tmp_path / "one")
    bring(workspace, given)
    text = (workspace.raw("baike2018qa") / "origin.json").read_text()
    assert json.loads(text)["source"] == "given"
    assert str(given) not in text
    with Server({A: DATA}) as server:
        bring(workspace, server.url("/a"))
        origin = json.loads((workspace.raw("baike2018qa") / "origin.json").read_bytes())
        assert origin["source"] == server.url("/a")
        entry = origin["files"][NAME]
        assert entry["from"] == server.url(A)
        assert entry["sha256"] == hashlib.sha256(DATA).hexdigest()
        assert entry["etag"].startswith('"')
        assert entry["modified"] == "Tue, 05 Feb 2019 10:00:00 GMT"


def test_local_files_are_linked_not_copied(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    assert (workspace.raw("baike2018qa") / NAME).samefile(given / NAME)
    assert not (workspace.raw("baike2018qa") / NAME).is_symlink()


def test_from_another_disk_they_are_copied(tmp_path: Path, given: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    root = other / f"corpus-test-{os.getpid()}"
    try:
        workspace = Workspace(root)
        said = Said()
        bring(workspace, given, said=said)
        assert_whole(workspace)
        assert not (workspace.raw("baike2018qa") / NAME).samefile(given / NAME)
        assert said.bars[-1] == [len(DATA), len(DATA)]
        assert bring(workspace, given).skipped
    finally:
        shutil.rmtree(root)


def test_a_finished_dataset_is_skipped(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    before = {path: path.stat().st_mtime_ns for path in workspace.raw("baike2018qa").iterdir()}
    assert bring(workspace, given).skipped
    os.utime(given / NAME, (1, 1))
    assert bring(workspace, given).skipped, "a touched file is not a changed one"
    assert bring(workspace, None).skipped, "without --source what is there is taken"
    for path, time in before.items():
        if path.name != NAME:
            assert path.stat().st_mtime_ns == time


def test_a_finished_url_is_not_asked_again(workspace: Workspace) -> None:
    with Server({A: DATA}) as server:
        bring(workspace, server.url("/a/"))
        count = len(server.log)
        assert bring(workspace, server.url("/a")).skipped
        assert bring(workspace, None).skipped
        assert len(server.log) == count
        assert plan(DownloadConfig(dataset="baike2018qa", source=server.url("/a")), workspace) is None


def test_a_change_of_the_same_size_at_the_source_is_seen(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    times = (given / NAME).stat()
    changed = OTHER[: len(DATA)].ljust(len(DATA), b"\0")
    (given / NAME).unlink()
    (given / NAME).write_bytes(changed)
    os.utime(given / NAME, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = bring(workspace, given)
    assert report.reasons == (f"{NAME} at the source has changed",)
    assert_whole(workspace, changed)
    (given / NAME).write_bytes(DATA[:-1] + b"\1")  # in place, through the link
    assert bring(workspace, given).reasons == (f"{NAME} at the source has changed",)
    assert_whole(workspace, DATA[:-1] + b"\1")


def test_another_source_replaces_what_was_there(workspace: Workspace, given: Path, tmp_path: Path) -> None:
    bring(workspace, given)
    unpacked = tmp_path / "unpacked"
    (unpacked / "sub").mkdir(parents=True)
    (unpacked / "sub/baike_qa_train.json").write_text('{"qid": "1"}\n')
    report = bring(workspace, unpacked)
    assert report.reasons == (f"{NAME} is gone from the source", "sub/baike_qa_train.json is new at the source")
    raw = workspace.raw("baike2018qa")
    assert sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()) == [
        "ledger.json",
        "origin.json",
        "sub/baike_qa_train.json",
        "timings.json",
    ]
    assert (given / NAME).read_bytes() == DATA, "only our link to it is gone"
    with Server({A: DATA}) as server:
        assert bring(workspace, server.url("/a")).reasons == (f"the source was given and is {server.url('/a')}",)
    assert_whole(workspace)
    assert not (raw / "sub").exists()


def test_a_source_that_fails_leaves_the_finished_dataset_alone(
    workspace: Workspace, given: Path, tmp_path: Path
) -> None:
    bring(workspace, given)
    before = ledger_bytes(workspace)
    with Server({A: OTHER}) as server:
        server.script(A, cut(1000), status(404))
        with pytest.raises(DownloadError, match="404 Not Found"):
            bring(workspace, server.url("/a"))
        with pytest.raises(SourceError):
            bring(workspace, tmp_path / "nowhere")
    assert ledger_bytes(workspace) == before
    assert (workspace.raw("baike2018qa") / NAME).read_bytes() == DATA
    assert bring(workspace, None).skipped


def test_a_source_that_failed_is_not_taken_for_the_finished_one(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    with Server({A: OTHER}) as server:
        server.script(A, status(404))
        with pytest.raises(DownloadError, match="404 Not Found"):
            bring(workspace, server.url("/a"))
        assert not bring(workspace, server.url("/a")).skipped
    assert_whole(workspace, OTHER)


def test_what_is_gone_is_asked_for(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    (workspace.raw("baike2018qa") / NAME).unlink()
    with pytest.raises(WorkspaceError, match=f"output {NAME} is missing, and it came from a --source"):
        bring(workspace, None)
    bring(workspace, given)
    assert_whole(workspace)


def test_official_then_given_names_the_change(workspace: Workspace, given: Path) -> None:
    with Server({A: DATA}) as server:
        from_mirrors(workspace, mirrored(server.url(A)), Said())
        assert from_mirrors(workspace, mirrored(server.url(A)), Said()).skipped
        assert len(server.requests(A)) == 1
    assert json.loads(ledger_bytes(workspace))["config"] == {"source": "official"}
    assert bring(workspace, given).reasons == ("source was official and is given",)
    (workspace.raw("baike2018qa") / NAME).unlink()


def test_wrong_sums_in_a_folder(workspace: Workspace, given: Path) -> None:
    (given / "SHA256SUMS").write_text(f"{'0' * 64}  {NAME}\n")
    with pytest.raises(ChecksumError, match="should be 0000"):
        bring(workspace, given)
    assert_unfinished(workspace)
    (given / "SHA256SUMS").write_text(f"{sha256_file(given / NAME)}  {NAME}\n")
    assert bring(workspace, given).notes == ("baike2018qa: checked against SHA256SUMS at the source: 1 of 1 files",)


def test_a_source_below_the_workspace_does_no_harm(workspace: Workspace, given: Path) -> None:
    bring(workspace, given)
    (given / NAME).unlink()
    for source in (workspace.raw("baike2018qa"), workspace.raw("baike2018qa") / NAME):
        with pytest.raises(SourceError, match="belongs to the workspace"):
            bring(workspace, source)
    assert_whole(workspace)


class Interrupting(Said):
    """Ctrl-C when so many bytes have come."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def advance(self, amount: int) -> None:
        super().advance(amount)
        self.left -= amount
        if self.left <= 0:
            raise KeyboardInterrupt


LARGE = archive(7, 3_000_000)


def test_other_file_systems_go_on_where_they_were_interrupted(workspace: Workspace) -> None:
    files = fsspec.filesystem("memory")
    files.pipe(f"/resume/{NAME}", LARGE)
    with pytest.raises(KeyboardInterrupt):
        bring(workspace, "memory://resume", said=Interrupting(1_500_000))
    assert_unfinished(workspace)
    said = Said()
    bring(workspace, "memory://resume", said=said)
    assert_whole(workspace, LARGE)
    assert f"{NAME}: resuming at 2.1 MB of 3.0 MB" in said.lines


def test_another_file_system_with_another_version_starts_over(workspace: Workspace) -> None:
    files = fsspec.filesystem("memory")
    files.pipe(f"/resume/{NAME}", LARGE)
    with pytest.raises(KeyboardInterrupt):
        bring(workspace, "memory://resume", said=Interrupting(1_500_000))
    changed = archive(8, 3_000_000)
    files.pipe(f"/resume/{NAME}", changed)
    said = Said()
    bring(workspace, "memory://resume", said=said)
    assert_whole(workspace, changed)
    assert f"{NAME}: the file has changed since the partial download; starting over" in said.lines


def test_ctrl_c_in_a_download_keeps_what_has_come(workspace: Workspace) -> None:
    with Server({A: LARGE}) as server:
        with pytest.raises(KeyboardInterrupt):
            bring(workspace, server.url("/a"), said=Interrupting(1_000_000))
        assert_unfinished(workspace)
        bring(workspace, server.url("/a"))
        assert_whole(workspace, LARGE)
        start = int(server.ranges(A)[-1].removeprefix("bytes=").removesuffix("-"))
        assert start >= 1_000_000


def test_the_built_in_dataset(workspace: Workspace) -> None:
    report = bring(workspace, None, "demo")
    names = [output.path for output in report.ledger.outputs]
    assert names == ["baike.json", "news.json", "translation.json", "webtext.json", "wiki.json"]
    assert report.ledger.config == {"source": "official"}
    assert bring(workspace, None, "demo").skipped
    target = workspace.raw("demo") / "wiki.json"
    target.unlink()
    report = bring(workspace, None, "demo")
    assert report.reasons == ("output wiki.json is missing",)
    assert read_ledger(workspace.raw("demo")) == report.ledger


def test_the_plan_says_what_and_how_much(workspace: Workspace, given: Path, tmp_path: Path) -> None:
    planned = plan(DownloadConfig(dataset="baike2018qa", source=str(given)), workspace)
    assert planned is not None
    assert (planned.files, planned.bytes, planned.new_bytes) == ((NAME,), len(DATA), 0)
    assert planned.document_bytes == int(len(DATA) * 1.25)
    assert not workspace.root.exists()
    official = plan(DownloadConfig(dataset="news2016zh"), workspace)
    assert official is not None
    assert str(official).startswith("news2016zh: new2016zh.zip, 3.6 GB, from Aliyun OSS; needs about 8.1 GB on disk")


def test_a_file_where_a_folder_is_needed(workspace: Workspace, given: Path) -> None:
    workspace.root.mkdir()
    (workspace.root / "raw").write_text("")
    with pytest.raises(CorpusError, match="Not a directory") as caught:
        bring(workspace, given)
    assert caught.value.hint


def test_all_manifests_can_be_planned(workspace: Workspace) -> None:
    for name in manifests.DATASETS:
        planned = plan(DownloadConfig(dataset=name), workspace)
        assert planned is not None
        assert planned.files


@pytest.mark.mirror
def test_the_five_from_a_folder_and_from_a_server_that_is_cut(tmp_path: Path, mirror: Path) -> None:
    folder, site = Workspace(tmp_path / "folder"), Workspace(tmp_path / "site")
    with Server({f"/m/{path.name}": path.read_bytes() for path in mirror.iterdir()}) as server:
        for name in manifests.CORPORA:
            server.script(f"/m/{manifests.load(name).archive}", cut(1_000_000), cut(300_000))
            reports = [bring(folder, mirror, name), bring(site, server.url("/m"), name)]
            assert all(
                report.notes == (f"{name}: checked against SHA256SUMS at the source: 1 of 1 files",)
                for report in reports
            )
            assert ledger_bytes(folder, name) == ledger_bytes(site, name)
