"""What the lists keep out is out of the tokenizer and the rows, and the books still balance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from corpus.pipeline.decontaminate import config
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.inspect import lineage
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import document_at, document_ref, parts
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer.stage import TokenizerConfig
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.documents import TRAIN, VALID
from tests.support.left_out import documents_out, spans_out
from tests.support.records import LayRaw, baike, lines

NAME = "baike2018qa"


def news(number: int, content: str) -> dict[str, str]:
    """A record of news2016zh."""
    fields = {"source": "报", "time": "", "keywords": "", "desc": ""}
    return {"news_id": str(number), "title": f"第{number}条消息", "content": content, **fields}


def answer(number: int) -> str:
    return "".join(f"第{number * 31 + step * 7}条要记住{chr(0x4E00 + number * 17 + step * 101)}。" for step in range(6))


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """Three hundred documents, of which a third of a piece of training repeats validation."""
    records = [baike(n, title=f"第{n}个问题怎么办", answer=answer(n)) for n in range(300)]
    held_out = [
        baike(9000 + n, title=record["title"], answer=record["answer"]) for n, record in enumerate(records[:40])
    ]
    lay_raw(NAME, {TRAIN: lines(records), VALID: lines(held_out)})
    ingest.run(IngestConfig(dataset=NAME, workers=1, piece_bytes=5_000), workspace)
    return workspace


def packed(workspace: Workspace, **settings: Any) -> dict[str, dict[str, int]]:
    tokenizer.run(TokenizerConfig(vocab_size=400), workspace)
    values: dict[str, Any] = {"dataset": NAME, "workers": 1, "seq_length": 64, "unit_characters": 1500} | settings
    report = pack.run(PackConfig(**values), workspace)
    return dict(report.ledger.counts["splits"])


def test_without_lists_everything_is_used(ready: Workspace) -> None:
    chosen = selection.load(ready, NAME)
    assert not chosen.inputs
    assert packed(ready)["train"]["documents"] == 300


def test_what_repeats_validation_is_not_trained_on(ready: Workspace) -> None:
    dedup.run(dedup.DedupConfig(workers=1), ready)
    counts = packed(ready)
    assert (counts["train"]["documents"], counts["validation"]["documents"]) == (260, 40)
    rows = datasets.load_from_disk(str(ready.packed(NAME)))
    assert rows["train"].num_rows == counts["train"]["rows"]
    used = {segment["document"] for row in rows["train"]["segments"] for segment in row}
    assert not used & set(documents_out(selection.load(ready, NAME)))
    ledger = read_ledger(ready.packed(NAME))
    assert ledger is not None
    assert ledger.counts["left_out"] == {"exact_duplicate": 40}
    assert "dedup/lists/baike2018qa.json" in [entry.path for entry in ledger.inputs]


def test_a_whole_unit_may_be_left_out(ready: Workspace, lay_raw: LayRaw) -> None:
    same = [baike(n, title="一个问题", answer="同一个回答，说了又说，还是它。") for n in range(200)]
    lay_raw(NAME, {TRAIN: lines(same), VALID: lines(same[:3])})
    ingest.run(IngestConfig(dataset=NAME, workers=1, piece_bytes=4_000), ready)
    dedup.run(dedup.DedupConfig(workers=1), ready)
    with pytest.raises(WorkspaceError, match="no training documents"):
        packed(ready)
    lay_raw(
        NAME, {TRAIN: lines([*same, *[baike(900 + n, answer=answer(n)) for n in range(20)]]), VALID: lines(same[:3])}
    )
    ingest.run(IngestConfig(dataset=NAME, workers=1, piece_bytes=4_000), ready)
    dedup.run(dedup.DedupConfig(workers=1), ready)
    counts = packed(ready)
    assert counts["train"]["documents"] == 20
    rows = datasets.load_from_disk(str(ready.packed(NAME)))
    assert sum(len(row) for row in rows["train"]["segments"]) >= 20


def test_a_list_of_other_documents_is_refused(ready: Workspace) -> None:
    dedup.run(dedup.DedupConfig(workers=1), ready)
    tokenizer.run(TokenizerConfig(vocab_size=400), ready)
    ingest.run(IngestConfig(dataset=NAME, workers=1, piece_bytes=5_000, min_length=40), ready)
    with pytest.raises(WorkspaceError, match="other documents") as caught:
        packed(ready)
    assert "corpus dedup" in caught.value.hint


def test_a_damaged_list_is_refused(ready: Workspace) -> None:
    dedup.run(dedup.DedupConfig(workers=1), ready)
    path = ready.dedup / "lists" / NAME / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamageError, match="has other bytes than its ledger says") as caught:
        packed(ready)
    assert caught.value.hint == "Delete it and run `corpus dedup`."
    path.unlink()
    with pytest.raises(DamageError, match="is missing") as caught:
        packed(ready)
    assert caught.value.hint == "Run `corpus dedup` to rebuild it."


def test_a_missing_shard_is_not_to_be_deleted(ready: Workspace) -> None:
    parts(ready.documents(NAME))[0].unlink()
    with pytest.raises(DamageError, match=r"part-00000\.parquet is missing") as caught:
        packed(ready)
    assert caught.value.hint == f"Run `corpus ingest --dataset {NAME}` to rebuild it."


@pytest.mark.parametrize("area", ["documents/baike2018qa", "dedup"])
def test_a_broken_ledger_is_named_before_what_was_made_from_it(ready: Workspace, area: str) -> None:
    dedup.run(dedup.DedupConfig(workers=1), ready)
    (ready.root / area / "ledger.json").write_text("{}")
    with pytest.raises(WorkspaceError, match=rf"{area}/ledger\.json is not a ledger"):
        packed(ready)


SPAN = "评测题里的这一段话谁也不该在训练里见到，哪怕只见一次也不行，因为那样分数就不算数了。"


@pytest.fixture
def cut(workspace: Workspace, lay_raw: LayRaw, tmp_path: Path) -> Workspace:
    """Forty articles; the one of number 7 loses a span, and 21 repeats 3, for which nobody has looked yet."""
    articles = [news(n, content=answer(n) * 4) for n in range(40)]
    articles[7] = news(7, content=answer(7) * 3 + SPAN + answer(700) * 3)
    articles[21] = {**articles[3], "news_id": "21"}
    lay_raw("news2016zh", {"news2016zh_train.json": lines(articles)})
    ingest.run(IngestConfig(dataset="news2016zh", workers=1, off=("repeated_spans",)), workspace)
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": SPAN}, ensure_ascii=False) + "\n", encoding="utf-8")
    decontaminate.run(config.DecontaminateConfig(against=(exam,), cut=True, workers=1), workspace)
    return workspace


def test_cut_spans_are_out_of_the_rows_and_the_trace_knows(cut: Workspace) -> None:
    assert list(selection.load(cut, "news2016zh").reasons.items()) == [("contaminated", 1)]
    packed(cut, dataset="news2016zh", unit_characters=1 << 20)
    rows = datasets.load_from_disk(str(cut.packed("news2016zh")))["train"]
    model = files.load(cut.tokenizer)
    text = "".join(model.decode(row, skip_special_tokens=False) for row in rows["input_ids"])
    assert SPAN[:12] not in text
    assert answer(700)[:12] in text
    for number in range(rows.num_rows):
        segments, _ = lineage.row(cut, "news2016zh", "train", number)
        assert all(segment.rebuilt for segment in segments)


def test_a_removed_document_that_had_lost_a_span_counts_once(cut: Workspace) -> None:
    before = selection.load(cut, "news2016zh")
    (document,) = spans_out(before)
    assert 0 < before.characters["train"] <= len(SPAN) + 2
    removed = document_at(cut, "news2016zh", document)
    (cut.root / removals.LIST).write_text(f"{removed['id']}\n", encoding="utf-8")
    after = selection.load(cut, "news2016zh", removals=True)
    assert after.removed == [removed["id"]]
    assert not spans_out(after)
    assert documents_out(after) == [document]
    assert (after.documents, after.characters) == ({"train": 1}, {"train": len(removed["text"])})


def test_a_duplicate_goes_whole_beside_a_document_that_loses_a_span(cut: Workspace) -> None:
    before = selection.load(cut, "news2016zh")
    dedup.run(dedup.DedupConfig(workers=1), cut)
    stale = selection.load(cut, "news2016zh")
    decontaminate.run(config.DecontaminateConfig(cut=True, workers=1), cut)
    chosen = selection.load(cut, "news2016zh")
    repeated = document_at(cut, "news2016zh", document_ref(0, 21))
    assert [entry.path for entry in chosen.inputs] == [
        "dedup/lists/news2016zh.json",
        "decontaminate/lists/news2016zh.json",
    ]
    assert documents_out(chosen) == [document_ref(0, 21)]
    assert spans_out(chosen) == spans_out(before)
    assert list(spans_out(chosen)) == [document_ref(0, 7)]
    assert chosen.reasons == stale.reasons == {"exact_duplicate": 1, "contaminated": 1}
    assert (chosen.documents, chosen.characters) == (stale.documents, stale.characters)
    assert chosen.documents == {"train": 1}
    assert chosen.characters["train"] == len(repeated["text"]) + before.characters["train"]
    (path,) = parts(cut.documents("news2016zh"))
    used = {
        int(line): text
        for _, numbers, batch in selection.read_selected(path, ["text"], chosen)
        for line, text in zip(numbers, batch["text"].to_pylist(), strict=True)
    }
    assert sorted(used) == [*range(21), *range(22, 40)]
    assert SPAN[:12] not in used[7]
    assert answer(700)[:12] in used[7]
    counts = packed(cut, dataset="news2016zh", unit_characters=1 << 20)["train"]  # the books balance
    assert counts["documents"] == 39
    assert counts["characters"] == sum(map(len, used.values()))
