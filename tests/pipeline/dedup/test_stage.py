"""The search for duplicates as a stage: the books, the reruns, and what it refuses."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.stage import EXACT, NEAR, DedupConfig
from corpus.pipeline.errors import BooksError, DamageError, WorkspaceError
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref, read_part, split_ref
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import Row, lay_documents
from tests.support.copies import NOODLES, RAIN, lay, make, random_texts, removed, rows, sample
from tests.support.documents import Listener, tree
from tests.support.left_out import documents_out


def test_workers_order_and_interruption_change_no_byte(tmp_path: Path) -> None:
    laid = sample()
    trees = []
    for number, workers in enumerate((1, 2)):
        workspace = lay(Workspace(tmp_path / str(number)), dict(reversed(laid.items())) if number else laid)
        report = make(workspace, workers=workers)
        trees.append(tree(workspace.dedup))
    assert trees[0] == trees[1]
    assert sum(count for part in report.ledger.counts["datasets"].values() for count in part[NEAR].values()) > 20
    for missing in ("ledger.json", "keys/demo/part-00002.parquet", "clusters.parquet", "keys/wiki2019zh"):
        path = workspace.dedup / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (workspace.dedup / ".clusters.parquet.77.tmp").write_bytes(b"half")
        assert not make(workspace, workers=1).skipped or missing.startswith("keys")
        assert tree(workspace.dedup).keys() >= {"lists/wiki2019zh.json", "lists/demo.json", "clusters.parquet"}
    (workspace.dedup / "ledger.json").unlink()
    make(workspace)
    assert tree(workspace.dedup) == trees[0]
    assert all(str(tmp_path).encode() not in data for data in trees[0].values())


def test_shards_in_another_order_make_the_same_clusters(tmp_path: Path) -> None:
    found = []
    for number, turn in enumerate((1, -1)):
        workspace = Workspace(tmp_path / str(number))
        lay(workspace, {name: shards[::turn] for name, shards in sample().items()})
        make(workspace)
        clusters: dict[int, set[str]] = {}
        for row in pq.read_table(workspace.dedup / dedup.CLUSTERS).to_pylist():
            clusters.setdefault(row["cluster"], set()).add(row["id"])
        found.append(sorted(map(sorted, clusters.values())))
    assert found[0] == found[1]


def stamps(workspace: Workspace) -> dict[str, int]:
    folder = workspace.dedup / "keys"
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_another_dataset_or_shard_costs_only_its_own_keys(workspace: Workspace) -> None:
    laid = sample()
    lay(workspace, {name: laid[name] for name in ("wiki2019zh", "demo")})
    assert make(workspace).reasons == ()
    assert make(workspace).skipped
    before = stamps(workspace)
    assert len(before) == 8
    lay(workspace, {"baike2018qa": laid["baike2018qa"]})
    listener = Listener()
    report = make(workspace, listener)
    assert "input documents/baike2018qa/ledger.json is new" in report.reasons
    assert "dedup: the keys of 8 of 12 shards are kept" in listener.said
    after = stamps(workspace)
    assert {name: after[name] for name in before} == before
    laid["demo"][1].append(("more", "train", RAIN))
    lay(workspace, {"demo": laid["demo"][:3]})
    make(workspace)
    assert {name for name, stamp in stamps(workspace).items() if stamp != after[name]} == {"demo/part-00001.parquet"}
    assert stamps(workspace).keys() == after.keys() - {"demo/part-00003.parquet"}
    damaged = workspace.dedup / "keys" / "demo" / "part-00000.parquet"
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    whole = tree(workspace.dedup)
    (workspace.dedup / "ledger.json").unlink()
    make(workspace)
    assert tree(workspace.dedup) | {"keys/demo/part-00000.parquet": b""} == whole | {
        "keys/demo/part-00000.parquet": b""
    }
    assert damaged.read_bytes() != data


def test_a_killed_run_goes_on(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(*random_texts(6000, 120, number)) for number in range(12)])
    command = (
        "from pathlib import Path; from corpus.pipeline import dedup\n"
        "from corpus.pipeline.workspace.layout import Workspace\n"
        f"dedup.run(dedup.DedupConfig(workers=1), Workspace(Path({str(workspace.root)!r})))"
    )
    child = subprocess.Popen([sys.executable, "-c", command])
    first = workspace.dedup / "keys" / "wiki2019zh" / "part-00001.parquet"
    while not first.exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = stamps(workspace)
    assert 2 <= len(before) < 12
    assert not (workspace.dedup / "ledger.json").exists()
    make(workspace)
    after = stamps(workspace)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    assert not list(workspace.dedup.rglob(".*.tmp"))


def test_a_stale_list_is_refused(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, NOODLES, RAIN)])
    make(workspace)
    chosen = selection.load(workspace, "wiki2019zh")
    assert documents_out(chosen) == [2]
    assert chosen.characters == {"train": len(RAIN)}
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, RAIN, NOODLES)])
    with pytest.raises(WorkspaceError, match="other documents"):
        selection.load(workspace, "wiki2019zh")
    make(workspace)
    assert documents_out(selection.load(workspace, "wiki2019zh")) == [1]


@pytest.mark.parametrize("shards", [[], [[]], [[], []]])
def test_an_empty_dataset_has_an_empty_list(workspace: Workspace, shards: list[list[Row]]) -> None:
    lay_documents(workspace, "wiki2019zh", shards)
    assert make(workspace).ledger.counts["clusters"] == 0
    assert removed(workspace) == []
    lay_documents(workspace, "demo", [rows(RAIN, RAIN)])
    make(workspace)
    assert (removed(workspace), len(removed(workspace, "demo"))) == ([], 1)


def test_the_books_balance_in_every_split(workspace: Workspace) -> None:
    laid = sample()
    counts = make(lay(workspace, laid)).ledger.counts
    for name, shards in laid.items():
        ids = {
            document_ref(shard, line): (row[0], row[1])
            for shard, part in enumerate(shards)
            for line, row in enumerate(part)
        }
        listed = removed(workspace, name)
        documents = [row["document"] for row in listed]
        assert documents == sorted(set(documents))
        assert [ids[row["document"]] for row in listed] == [(row["id"], row["split"]) for row in listed]
        chosen = selection.load(workspace, name)
        book = counts["datasets"][name]
        for split, count in book["documents"].items():
            out = book[EXACT].get(split, 0) + book[NEAR].get(split, 0)
            assert out == chosen.documents[split]
            kept = [
                text
                for path in sorted(workspace.documents(name).glob("*.parquet"))
                for _, _, batch in selection.read_selected(path, ["split"], chosen)
                for text in batch["split"].to_pylist()
            ]
            assert kept.count(split) == count - out
    total = sum(sum(part[reason].values()) for part in counts["datasets"].values() for reason in (EXACT, NEAR))
    assert total == sum(sum(part.values()) for part in counts["pairs"].values())
    rows_ = pq.read_table(workspace.dedup / dedup.CLUSTERS).to_pylist()
    assert len(rows_) == total + counts["clusters"]
    assert sum(row["kept"] for row in rows_) == counts["clusters"]


def test_books_that_do_not_balance_are_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN, NOODLES, RAIN)])
    write = pq.ParquetWriter.write_table

    def lossy(self: pq.ParquetWriter, table: pa.Table, *options: Any, **named: Any) -> None:
        write(self, table.slice(0, 0) if table.column_names == REMOVED_SCHEMA.names else table, *options, **named)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", lossy)
    with pytest.raises(BooksError, match="wiki2019zh"):
        make(workspace)
    assert not (workspace.dedup / "ledger.json").exists()


def test_damaged_and_missing_documents_are_named(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no documents"):
        make(workspace)
    lay_documents(workspace, "wiki2019zh", [rows(RAIN), rows(NOODLES)])
    with pytest.raises(WorkspaceError, match="demo has no documents"):
        make(workspace, datasets=("demo",))
    path = workspace.documents("wiki2019zh") / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="part-00001"):
        make(workspace)
    path.unlink()
    with pytest.raises(DamageError, match="part-00001"):
        make(workspace)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"threshold": 0.4}, "--threshold"),
        ({"threshold": 1.1}, "--threshold"),
        ({"threshold": float("nan")}, "--threshold"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_settings_are_checked(settings_: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DedupConfig(**settings_)


def test_only_documents_shards_of_the_ledger_are_read(workspace: Workspace) -> None:
    lay_documents(workspace, "wiki2019zh", [rows(RAIN), rows(RAIN)])
    (workspace.documents("wiki2019zh") / "part-00009.parquet").write_bytes(b"not ours")
    make(workspace)
    assert [split_ref(row["document"]) for row in removed(workspace)] == [(1, 0)]
    assert [line for _, line, _ in read_part(workspace.documents("wiki2019zh") / "part-00000.parquet")] == [0]
