"""`corpus dedup --spans`: what is written, the books, the reruns, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline.dedup import span_lists
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.errors import BooksError, DamageError, WorkspaceError
from corpus.pipeline.inspect import shared
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import document_ref
from corpus.pipeline.workspace.layout import Workspace
from tests.support.copies import lay, make, random_texts, removed, rows
from tests.support.documents import tree

NOTICE, OTHER, *OWN = random_texts(12, 150, 11)


def shards() -> dict[str, list[Any]]:
    """A notice in six documents, another in two; one document is there twice."""
    return {
        "wiki2019zh": [
            [*rows(OWN[0] + NOTICE, OWN[1] + NOTICE), ("held", "validation", NOTICE + OWN[2])],
            rows(OWN[1] + NOTICE, OTHER + OWN[3], prefix="second "),
        ],
        "demo": [rows(NOTICE[:100] + OWN[4], OWN[5] + OTHER + OWN[6] + NOTICE, NOTICE[:99] + OWN[7], OWN[8])],
    }


def listed(workspace: Workspace, dataset: str) -> list[tuple[Any, ...]]:
    keys = ("document", "id", "split", "start", "end", "first_dataset", "first_document", "first_id", "first_start")
    tables = [pq.read_table(path) for path in sorted((workspace.dedup / "spans" / dataset).glob("*.parquet"))]
    assert all(table.schema.equals(span_lists.SCHEMA) for table in tables)
    return [tuple(row[key] for key in keys) for table in tables for row in table.to_pylist()]


def test_runs_of_documents_that_stay_are_listed_with_the_first_document(workspace: Workspace) -> None:
    report = make(lay(workspace, shards()), spans=100)
    assert [row["id"] for row in removed(workspace)] == ["second 0"]  # a copy, which is not searched
    held = ("wiki2019zh", document_ref(0, 2), "held", 0)
    assert listed(workspace, "wiki2019zh") == [
        (document_ref(0, 0), "0", "train", 150, 300, *held),
        (document_ref(0, 1), "1", "train", 150, 300, *held),
    ]
    assert listed(workspace, "demo") == [
        (document_ref(0, 0), "0", "train", 0, 100, *held),
        (document_ref(0, 1), "1", "train", 150, 300, "wiki2019zh", document_ref(1, 1), "second 1", 0),
        (document_ref(0, 1), "1", "train", 450, 600, *held),
    ]
    counts = report.ledger.counts["spans"]
    assert counts["datasets"] == {
        "wiki2019zh": {"documents": {"train": 2}, "characters": {"train": 300}, "runs": 2},
        "demo": {"documents": {"train": 2}, "characters": {"train": 400}, "runs": 3},
    }
    assert counts["passages"] == 2
    found = [*shared.passages(workspace, ["wiki2019zh"], limit=9)]
    assert [(each.documents, each.runs, each.characters, each.id, each.text) for each in found] == [
        (4, 4, 550, "held", NOTICE), (1, 1, 150, "second 1", OTHER),
    ]  # fmt: skip
    (run,) = shared.runs_of(workspace, "demo", document_ref(0, 0))
    assert (run.start, run.end, run.first_dataset, run.first_id, run.first_start) == (0, 100, "wiki2019zh", "held", 0)
    assert shared.runs_of(workspace, "demo", document_ref(0, 3)) == []


def test_characters_that_several_runs_cover_count_once(workspace: Workspace) -> None:
    one, other = NOTICE[:110], NOTICE[30:]
    lay(workspace, {"wiki2019zh": [rows(one + OWN[0], OWN[1] + other + OWN[2], OWN[3] + NOTICE + OWN[4])]})
    counts = make(workspace, spans=80).ledger.counts["spans"]["datasets"]["wiki2019zh"]
    spans = [(row[0], row[3] - 150, row[4] - 150) for row in listed(workspace, "wiki2019zh")]
    assert spans == [(1, 0, 80), (2, 0, 110), (2, 31, 150)]
    assert (counts["documents"], counts["characters"]) == ({"train": 2}, {"train": 230})


def test_workers_and_what_a_killed_run_left_change_no_byte(tmp_path: Path) -> None:
    trees = []
    for workers in (1, 2):
        workspace = lay(Workspace(tmp_path / str(workers)), shards())
        make(workspace, workers=workers, spans=100)
        trees.append(tree(workspace.dedup))
    assert trees[0] == trees[1]
    assert {"spans/demo/part-00000.parquet", "passages.parquet"} <= trees[0].keys()
    (workspace.dedup / ".spans-prints-00000.77.tmp").write_bytes(b"half")
    (workspace.dedup / "spans" / "demo" / "part-00007.parquet").write_bytes(b"of another run")
    (workspace.dedup / "ledger.json").unlink()
    make(workspace, spans=100)
    assert tree(workspace.dedup) == trees[0]


class Interrupted(Progress):
    """Ends the run when a bar of this name begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        if label == self.name:
            raise KeyboardInterrupt


def test_an_interrupted_search_starts_again(workspace: Workspace) -> None:
    lay(workspace, shards())
    for name in ("dedup: stretches", "dedup: runs", "dedup: comparing"):
        with pytest.raises(KeyboardInterrupt):
            make(workspace, Interrupted(name), spans=100)
        assert not (workspace.dedup / "ledger.json").exists()
        assert not list(workspace.dedup.glob(".*"))
    make(workspace, spans=100)
    found = tree(workspace.dedup)
    (workspace.dedup / "ledger.json").unlink()
    make(workspace, spans=100)
    assert tree(workspace.dedup) == found


def test_runs_are_looked_for_again_where_something_changed(workspace: Workspace) -> None:
    lay(workspace, shards())
    before = tree(make(workspace).folder)
    assert b'"spans"' not in before["ledger.json"]
    with pytest.raises(WorkspaceError, match="not looked for"):
        [*shared.passages(workspace, ["demo"], limit=1)]
    assert make(workspace, spans=100).reasons == ("spans was unset and is 100",)
    assert make(workspace, spans=100).skipped
    assert make(workspace, spans=101).reasons == ("spans was 100 and is 101",)
    assert [row[:2] for row in listed(workspace, "demo")] == [(1, "1"), (1, "1")]
    (workspace.dedup / "passages.parquet").unlink()
    with pytest.raises(DamageError, match="passages"):
        [*shared.passages(workspace, ["demo"], limit=1)]
    assert make(workspace, spans=101).reasons == ("output passages.parquet is missing",)
    make(workspace)
    assert tree(workspace.dedup) == before


def test_passages_of_other_documents_than_there_are_now_are_refused(workspace: Workspace) -> None:
    make(lay(workspace, shards()), spans=100)
    names = workspace.finished("documents")
    assert [*shared.passages(workspace, names, limit=1)]
    lay(workspace, {"demo": [rows("今天没有事")]})
    with pytest.raises(WorkspaceError, match="made from other documents") as refused:
        [*shared.passages(workspace, names, limit=1)]
    assert "`corpus dedup`" in refused.value.hint


def test_no_runs_are_an_empty_table(workspace: Workspace) -> None:
    report = make(lay(workspace, {"wiki2019zh": [[]], "demo": [rows(OWN[0], "", OWN[1])]}), spans=50)
    assert report.ledger.counts["spans"]["datasets"]["demo"] == {"documents": {}, "characters": {}, "runs": 0}
    assert listed(workspace, "demo") == []
    with pytest.raises(WorkspaceError, match="no document repeats 50 or more characters"):
        [*shared.passages(workspace, ["demo"], limit=1)]


def test_runs_that_are_lost_on_the_way_are_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pq.write_table

    def lossy(table: pa.Table, *options: Any, **named: Any) -> None:
        write(table.slice(1) if table.schema.equals(span_lists.SCHEMA) else table, *options, **named)

    monkeypatch.setattr(pq, "write_table", lossy)
    with pytest.raises(BooksError, match="do not hold the runs"):
        make(lay(workspace, shards()), spans=100)
    assert not (workspace.dedup / "ledger.json").exists()


@pytest.mark.parametrize("least", [-1, 0, 49])
def test_a_run_is_not_too_short(least: int) -> None:
    with pytest.raises(ValueError, match=f"--spans must be at least 50, is {least}"):
        DedupConfig(spans=least)
