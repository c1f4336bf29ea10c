"""Evaluation items in documents: what is left out of a document, the books, and the reruns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from corpus.pipeline.decontaminate import search as search_module
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import BooksError, DamageError, SourceError, WorkspaceError
from corpus.pipeline.storage import removal_lists, selection
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref
from corpus.pipeline.text.normalize import fold
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, fingerprint, write_ledger
from tests.support.contaminated import QUESTION, wiki
from tests.support.documents import TRAIN, Listener, tree
from tests.support.items import CONTEXT, SHORT, SOME, prose
from tests.support.left_out import documents_out, rows_of
from tests.support.records import LayRaw, baike, lines


def make(workspace: Workspace, *against: Path, **values: Any) -> Any:
    return decontaminate.run(DecontaminateConfig(against=against, **({"workers": 1} | values)), workspace)


def rows(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    return rows_of(workspace.decontaminate, name)


def listed_hits(workspace: Workspace) -> list[dict[str, Any]]:
    return list(pq.read_table(workspace.decontaminate / "hits.parquet").to_pylist())


def documents(workspace: Workspace, dataset: str) -> dict[int, dict[str, Any]]:
    """All documents by their reference."""
    return {
        document_ref(number, line): row
        for number, path in enumerate(sorted(workspace.documents(dataset).glob("part-*.parquet")))
        for line, row in enumerate(pq.read_table(path).to_pylist())
    }


def selected(workspace: Workspace, dataset: str) -> dict[int, str]:
    """The documents that are used, as they are used."""
    chosen = selection.load(workspace, dataset)
    return {
        document_ref(shard, line): text
        for path in sorted(workspace.documents(dataset).glob("part-*.parquet"))
        for shard, numbers, batch in selection.read_selected(path, ["text"], chosen)
        for line, text in zip(numbers.tolist(), batch["text"].to_pylist(), strict=True)
    }


def test_documents_that_hold_items_go_whole(ready: Workspace, sets: tuple[Path, Path]) -> None:
    report = make(ready, *sets)
    every = {name: documents(ready, name) for name in ("baike2018qa", "wiki2019zh")}
    found = {name: {row["id"].split("@")[0] for row in rows(ready, name)} for name in every}
    assert found == {"baike2018qa": {"qid_5", "qid_17", "qid_60", "qid_63"}, "wiki2019zh": {"3", "8", "11", "13"}}
    for name, known in every.items():
        for row in rows(ready, name):
            document = known[row["document"]]
            assert (row["id"], row["split"]) == (document["id"], document["split"])
            assert (row["start"], row["end"], row["whole"]) == (0, len(document["text"]), True)
            assert row["reason"] == "contaminated"
            span = row["detail"].partition(": ")[2]
            assert span in document["text"].replace("\n", " ")
            assert len(span) <= 80
        kept = {reference for reference in known if reference not in {row["document"] for row in rows(ready, name)}}
        assert selected(ready, name) == {reference: known[reference]["text"] for reference in kept}
    details = [row["detail"] for row in rows(ready, "wiki2019zh")]
    assert details == [*[f"reading.jsonl:1: {CONTEXT[:-1]}"] * 2, *[f"short.txt:1: {SHORT}"] * 2]
    counts = report.ledger.counts
    assert counts["datasets"]["baike2018qa"]["contaminated"] == {"train": 3, "validation": 1}
    assert counts["datasets"]["baike2018qa"]["documents"] == {"train": 61, "validation": 5}
    assert counts["datasets"]["wiki2019zh"]["whole"] == 4
    assert counts["evals"] == {
        "reading.jsonl": {"items": 3, "items_hit": 2, "items_too_short": 0, "hits": 6},
        "short.txt": {"items": 2, "items_hit": 1, "items_too_short": 1, "hits": 2},
    }
    assert report.notes == ("short.txt: 1 of 2 items are too short to search for",)


def test_every_hit_is_listed_with_its_place(ready: Workspace, sets: tuple[Path, Path]) -> None:
    make(ready, *sets)
    every = documents(ready, "baike2018qa"), documents(ready, "wiki2019zh")
    hits = listed_hits(ready)
    assert [(hit["dataset"], hit["id"].split("@")[0], hit["file"], hit["item"], hit["field"]) for hit in hits] == [
        ("wiki2019zh", "3", "reading.jsonl", 1, "context"),
        ("wiki2019zh", "8", "reading.jsonl", 1, "context"),
        ("wiki2019zh", "11", "short.txt", 1, "text"),
        ("wiki2019zh", "13", "short.txt", 1, "text"),
        ("baike2018qa", "qid_5", "reading.jsonl", 1, "context"),
        ("baike2018qa", "qid_17", "reading.jsonl", 1, "context"),
        ("baike2018qa", "qid_60", "reading.jsonl", 1, "question"),
        ("baike2018qa", "qid_63", "reading.jsonl", 1, "context"),
    ]
    for hit in hits:
        text = every[hit["dataset"] == "wiki2019zh"][hit["document"]]["text"]
        assert hit["share"] == 1
        assert hit["items"] == (2 if hit["field"] == "context" else 1)
        assert text[hit["span_start"] : hit["span_end"]][:200] == hit["span"]
        assert fold(hit["span"]) == fold({"context": CONTEXT, "question": QUESTION, "text": SHORT}[hit["field"]])


def test_cut_takes_just_the_shared_span_out_of_prose(ready: Workspace, sets: tuple[Path, Path]) -> None:
    report = make(ready, *sets, cut=True)
    every = {name: documents(ready, name) for name in ("baike2018qa", "wiki2019zh")}
    assert [(row["id"].split("@")[0], row["whole"]) for row in rows(ready, "wiki2019zh")] == [
        ("3", False),
        ("8", True),  # hardly more than the item
        ("11", False),
        ("13", True),
    ]
    assert all(row["whole"] for row in rows(ready, "baike2018qa"))  # or their prompt would end elsewhere
    used = selected(ready, "wiki2019zh")
    by_id = {row["id"].split("@")[0]: (reference, row["text"]) for reference, row in every["wiki2019zh"].items()}
    reference, text = by_id["3"]
    assert used[reference] == text.replace(CONTEXT[:-1], "")  # the last mark is not part of what is shared
    assert "他又写道：“。”😀末了" in used[reference]
    reference, text = by_id["11"]
    assert used[reference] == text.replace(SHORT, "")
    assert by_id["8"][0] not in used
    assert len(by_id["13"][1]) - len(SHORT) > len(by_id["13"][1]) / 2
    assert report.ledger.counts["datasets"]["wiki2019zh"] | {"documents": 0} == {
        "documents": 0, "contaminated": report.ledger.counts["datasets"]["wiki2019zh"]["contaminated"], "whole": 2,
        "spans": 2, "left_out_by_dedup": 0,
    }  # fmt: skip
    lists = selection.load(ready, "wiki2019zh")
    assert lists.reasons == {"contaminated": 4}
    assert lists.documents.total() == 2


def test_workers_change_no_byte(ready: Workspace, sets: tuple[Path, Path]) -> None:
    trees = []
    for workers in (1, 2):
        shutil.rmtree(ready.decontaminate, ignore_errors=True)
        make(ready, *sets, workers=workers, cut=True)
        trees.append(tree(ready.decontaminate))
    assert trees[0] == trees[1]
    assert {name for name in trees[0] if "/part-" not in name} == {
        "lists/baike2018qa.json", "lists/wiki2019zh.json", "hits.parquet", "evals/reading.jsonl", "evals/short.txt",
        LEDGER,
    }  # fmt: skip


def test_a_rerun_needs_no_files_and_does_nothing(ready: Workspace, sets: tuple[Path, Path], tmp_path: Path) -> None:
    first = make(ready, *sets)
    for path in sets:
        path.unlink()
    assert make(ready).skipped
    for path in ready.decontaminate.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()
    assert [entry.path for entry in first.ledger.inputs] == [
        "documents/wiki2019zh/ledger.json", "documents/baike2018qa/ledger.json", "decontaminate/evals/reading.jsonl",
        "decontaminate/evals/short.txt",
    ]  # fmt: skip


def test_what_changed_is_done_again_and_told(ready: Workspace, sets: tuple[Path, Path], tmp_path: Path) -> None:
    listener = Listener()
    make(ready, sets[0])
    config = DecontaminateConfig(against=(sets[1],), workers=1)
    report = decontaminate.run(config, ready, progress=listener)
    assert report.reasons == ("input decontaminate/evals/short.txt is new",)
    assert listener.said[0] == "short.txt is added to the evaluation files of the workspace: 2 in all"
    assert make(ready, cut=True).reasons == ("cut was false and is true",)
    assert 'fields was [] and is ["context", "text"]' in make(ready, fields=("text", "context")).reasons
    assert {row["id"].split("@")[0] for row in rows(ready, "baike2018qa")} == {"qid_5", "qid_17", "qid_63"}
    (ready.decontaminate / "evals" / "short.txt").unlink()
    assert "input decontaminate/evals/short.txt is gone" in make(ready, fields=("context",)).reasons
    assert {row["id"].split("@")[0] for row in rows(ready, "wiki2019zh")} == {"3", "8"}
    (ready.decontaminate / "lists" / "baike2018qa.json").write_bytes(b"{}")
    assert make(ready, fields=("context",)).reasons == (
        "output lists/baike2018qa.json has another size than its ledger says",
    )
    report = make(ready, fields=("context",), datasets=("wiki2019zh",))
    assert "input documents/baike2018qa/ledger.json is gone" in report.reasons
    assert not [*ready.decontaminate.glob("lists/baike2018qa*/*"), *ready.decontaminate.glob("lists/baike2018qa.json")]
    assert documents_out(selection.load(ready, "baike2018qa")) == []


def leave_out(workspace: Workspace, dataset: str, references: list[int]) -> None:
    """A finished dedup that left out these documents."""
    import pyarrow as pa

    folder, known = workspace.dedup, documents(workspace, dataset)
    folder.mkdir(exist_ok=True)
    table = [
        {
            "document": reference, "id": known[reference]["id"], "split": known[reference]["split"],
            "reason": "exact_duplicate", "detail": "", "start": 0, "end": len(known[reference]["text"]), "whole": True,
        }
        for reference in references
    ]  # fmt: skip
    lists = removal_lists.by_shard(pa.Table.from_pylist(table, REMOVED_SCHEMA))
    written = removal_lists.write(folder, dataset, lists, workspace.digest)
    inputs = [workspace.file_digest(workspace.documents(dataset) / LEDGER)]
    ledger = Ledger(
        stage="dedup", dataset=None, version=1, config={}, inputs=inputs,
        outputs=workspace.file_digests(written, folder), counts={},
        fingerprint=fingerprint("dedup", 1, {}, inputs),
    )  # fmt: skip
    write_ledger(folder, ledger, {})


def test_what_dedup_left_out_is_not_looked_at(ready: Workspace, sets: tuple[Path, Path]) -> None:
    make(ready, *sets)
    by_id = {row["id"].split("@")[0]: reference for reference, row in documents(ready, "baike2018qa").items()}
    leave_out(ready, "baike2018qa", sorted([by_id["qid_5"], by_id["qid_6"], by_id["qid_63"]]))
    report = make(ready)
    assert report.reasons == ("input dedup/lists/baike2018qa.json is new",)
    assert {row["id"].split("@")[0] for row in rows(ready, "baike2018qa")} == {"qid_17", "qid_60"}
    counts = report.ledger.counts["datasets"]
    assert counts["baike2018qa"]["left_out_by_dedup"] == 3
    assert counts["baike2018qa"]["documents"] == {"train": 59, "validation": 4}
    assert counts["wiki2019zh"]["left_out_by_dedup"] == 0
    assert by_id["qid_6"] not in selected(ready, "baike2018qa")
    assert by_id["qid_17"] not in selected(ready, "baike2018qa")


def test_a_list_of_dedup_must_be_of_these_documents_and_whole(ready: Workspace, sets: tuple[Path, Path]) -> None:
    leave_out(ready, "baike2018qa", [])
    ledger = ready.dedup / LEDGER
    whole = ledger.read_bytes()
    values = json.loads(whole)
    values["inputs"][0]["sha256"] = "0" * 64
    ledger.write_text(json.dumps(values))
    with pytest.raises(WorkspaceError, match="made from other documents"):
        make(ready, *sets)
    ledger.write_bytes(whole)
    (ready.dedup / "lists" / "baike2018qa.json").write_bytes(b"{}")
    with pytest.raises(DamageError, match=r"dedup/lists/baike2018qa\.json"):
        make(ready, *sets)


def test_evaluation_files_of_one_name(ready: Workspace, sets: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "reading.jsonl"
    other.parent.mkdir()
    other.write_bytes(sets[0].read_bytes())
    make(ready, sets[0], other)  # the same bytes
    other.write_bytes(lines([{"question": QUESTION}]))
    for against in ((sets[0], other), (other,)):
        with pytest.raises(SourceError, match="differs from the evaluation file of that name in the workspace"):
            make(ready, *against)
    (ready.decontaminate / "evals" / "reading.jsonl").unlink()
    with pytest.raises(SourceError, match="differs from the evaluation file of that name"):
        make(ready, sets[0], other)


def test_an_evaluation_file_can_be_taken_out_again(ready: Workspace, sets: tuple[Path, Path]) -> None:
    make(ready, sets[0])
    alone = tree(ready.decontaminate)
    make(ready, sets[1])
    listener = Listener()
    decontaminate.run(DecontaminateConfig(forget=("short.txt",), workers=1), ready, progress=listener)
    assert tree(ready.decontaminate) == alone
    assert listener.said[0] == "short.txt is forgotten: 1 evaluation files are left"
    with pytest.raises(WorkspaceError, match=r"--forget short\.txt: no evaluation file has this name") as caught:
        make(ready, forget=("reading.jsonl", "short.txt"))
    assert caught.value.hint == "There are: reading.jsonl."
    assert tree(ready.decontaminate) == alone


def test_the_last_evaluation_file_can_be_taken_out(ready: Workspace, sets: tuple[Path, Path]) -> None:
    make(ready, sets[1])
    report = make(ready, forget=("short.txt",))
    assert report.ledger.counts["evals"] == {}
    assert not rows(ready, "wiki2019zh")
    assert not selection.load(ready, "wiki2019zh").documents
    assert make(ready).skipped


def test_one_command_replaces_an_evaluation_file(ready: Workspace, sets: tuple[Path, Path], tmp_path: Path) -> None:
    make(ready, sets[0])
    other = tmp_path / "other" / "reading.jsonl"
    other.parent.mkdir()
    other.write_bytes(lines([{"question": QUESTION}]))
    assert make(ready, other, forget=("reading.jsonl",)).ledger.counts["evals"]["reading.jsonl"]["items"] == 1


def test_a_file_of_before_without_the_field_is_searched_for_whole(ready: Workspace, sets: tuple[Path, Path]) -> None:
    make(ready, sets[1])  # lines of text, whose field is `text`
    report = make(ready, sets[0], fields=("context",))
    assert report.ledger.counts["evals"]["short.txt"]["items_hit"] == 1
    assert "short.txt has no field context: all of its fields are searched for" in report.notes
    with pytest.raises(SourceError, match="no evaluation file has the field contxt"):
        make(ready, fields=("contxt",))


def test_a_file_that_is_no_use_is_not_taken(ready: Workspace, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"{")
    for path, says in (
        (bad, r"bad\.jsonl:1: expected"),
        (tmp_path / "gone.jsonl", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(SourceError, match=says):
            make(ready, path)
    with pytest.raises(WorkspaceError, match="no evaluation files"):
        make(ready)
    assert not (ready.decontaminate / "evals" / "bad.jsonl").exists()
    assert not (ready.decontaminate / LEDGER).exists()


def test_documents_must_be_there_and_whole(workspace: Workspace, ready: Workspace, sets: tuple[Path, Path]) -> None:
    with pytest.raises(WorkspaceError, match="news2016zh has no documents"):
        make(ready, *sets, datasets=("news2016zh",))
    with pytest.raises(WorkspaceError, match="no documents to look through"):
        make(Workspace(ready.root / "other"), *sets)
    path = min(ready.documents("baike2018qa").glob("part-*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="part-00000"):
        make(ready, *sets)


def test_books_that_do_not_balance_are_told(
    ready: Workspace, sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = search_module.search_shard

    def wrong(*arguments: Any, **named: Any) -> Any:
        found = right(*arguments, **named)
        found.counts["documents"]["train"] -= 1
        return found

    monkeypatch.setattr(decontaminate, "search_shard", wrong)
    with pytest.raises(BooksError, match="40 documents"):
        make(ready, *sets, datasets=("wiki2019zh",))
    assert not (ready.decontaminate / LEDGER).exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_share": 0.0}, "--min-share"),
        ({"min_share": 1.5}, "--min-share"),
        ({"workers": -1}, "--workers"),
        ({"fields": ("",)}, "--field"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DecontaminateConfig(**values)


def test_phrases_are_counted_over_all_datasets(workspace: Workspace, lay_raw: LayRaw, tmp_path: Path) -> None:
    phrase = "各位乡亲父老兄弟姐妹们大家新年好呀"
    asked = tmp_path / "asked.txt"
    asked.write_text(f"{phrase}，这话是谁说的\n", encoding="utf-8")
    answers = [f"{SOME[n % 12]}{phrase if n % 2 else ''}，第{n * 3}次。" for n in range(20)]
    lay_raw("baike2018qa", {TRAIN: lines([baike(n, answer=answer) for n, answer in enumerate(answers)])})
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)
    assert len(rows_after(workspace, asked)) == 10
    lay_raw("wiki2019zh", {"AA/wiki_00": lines([wiki(n, prose(n) + (phrase if n == 4 else "")) for n in range(9)])})
    ingest.run(IngestConfig(dataset="wiki2019zh", workers=1), workspace)
    assert rows_after(workspace, asked) == []
    assert make(workspace).ledger.counts["hits_too_common"] == 11
    shutil.rmtree(workspace.decontaminate)
    assert "11 hits do not count" in make(workspace, asked).notes[0]


def rows_after(workspace: Workspace, *against: Path) -> list[dict[str, Any]]:
    make(workspace, *against)
    return listed_hits(workspace)
