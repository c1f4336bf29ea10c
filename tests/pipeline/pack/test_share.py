"""A share of the rows: several jobs in one workspace leave what one run leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import share as shares
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.documents import TRAIN, VALID, tree
from tests.support.packed import lay_tokenizer
from tests.support.records import LayRaw, baike, lines

ROWS = PackConfig(dataset="baike2018qa", seq_length=64, workers=1, unit_characters=2000)


def job(workspace: Workspace, index: int, count: int, config: PackConfig = ROWS) -> ShareReport:
    """One job of an array, as it starts on another machine."""
    other = Workspace(workspace.root)
    with other.sharing(f"pack --shard {index}/{count}", pack.STAGE):
        return shares.run(config, other, Share(index, count))


def finish(workspace: Workspace, config: PackConfig = ROWS) -> dict[str, bytes]:
    other = Workspace(workspace.root)
    with other.writing("pack"):
        return tree(pack.run(config, other).folder)


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """A workspace with documents and a small tokenizer."""
    lay_raw(
        "baike2018qa", {TRAIN: lines([baike(n) for n in range(240)]), VALID: lines([baike(n) for n in range(240, 260)])}
    )
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=4000), workspace)
    lay_tokenizer(workspace)
    return workspace


def test_shares_leave_what_one_run_leaves(ready: Workspace) -> None:
    alone = finish(ready)
    for count in (1, 2, 5, 40):
        shutil.rmtree(ready.packed("baike2018qa"))
        reports = [job(ready, index, count) for index in range(1, count + 1)]
        (pieces,) = {report.pieces for report in reports}
        assert 5 < pieces < 40
        assert sum(report.made for report in reports) == pieces == len(receipts.read_all(reports[0].folder))
        assert not list(reports[0].folder.rglob("*.json"))[pieces + 1 :]  # receipts and their number, nothing else
        before = {path: path.stat().st_mtime_ns for path in reports[0].folder.rglob("*.arrow")}
        assert finish(ready) == alone
        assert {path: path.stat().st_mtime_ns for path in reports[0].folder.rglob("*.arrow")} == before
    assert job(ready, 1, 2).finished


def test_jobs_of_which_some_are_missing_or_doubled(ready: Workspace) -> None:
    chat = replace(ROWS, form="chat")
    alone = finish(ready, chat)
    folder = ready.packed("baike2018qa", "chat")
    shutil.rmtree(folder)
    first = job(ready, 1, 3, chat)
    (folder / "train" / "data-00000.arrow").write_bytes(b"torn")
    again = job(ready, 1, 3, chat)
    assert (again.made, again.kept) == (1, first.made - 1)
    why = [row.why for row in survey(Workspace(ready.root)) if row.area == "chat"]
    assert why == [f"{first.made} of {first.pieces} pieces are there"]
    assert finish(ready, chat) == alone


def test_shards_of_a_finished_stage_are_kept_and_get_the_receipts_of_their_makers(ready: Workspace) -> None:
    alone = finish(ready)
    folder = ready.packed("baike2018qa")
    (folder / "dataset_dict.json").unlink()  # so the rows are stale
    adopted = job(ready, 1, 1)
    assert (adopted.made, adopted.kept) == (0, adopted.pieces)
    told = [found.receipt.to_json() for found in receipts.read_all(folder)]
    shutil.rmtree(folder)
    assert job(ready, 1, 1).made == adopted.pieces
    assert [found.receipt.to_json() for found in receipts.read_all(folder)] == told
    assert finish(ready) == alone


def test_what_describes_older_rows_goes_before_the_first_of_them_changes(ready: Workspace) -> None:
    finish(ready)
    beside = [ready.packed("baike2018qa") / name for name in ("README.md", "croissant.json", "timings.json")]
    for path in beside:
        path.write_text("of rows of 64 tokens")
    assert job(ready, 1, 2).finished
    assert all(path.exists() for path in beside)
    job(ready, 1, 2, replace(ROWS, seq_length=32))
    assert not any(path.exists() for path in beside)


def test_the_tokenizer_is_trained_before(ready: Workspace) -> None:
    shutil.rmtree(ready.tokenizer)
    with pytest.raises(WorkspaceError, match="no tokenizer") as refused:
        workflow.pack(ready, Share(1, 2), workers=1)
    assert "`corpus tokenizer`" in refused.value.hint
