"""`corpus dedup --spans --cut`: runs are out of the rows, the books balance, and the lineage is whole."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from corpus.pipeline.decontaminate import config
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.inspect import examples, lineage
from corpus.pipeline.pack import dataset_card
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import document_at, document_ref, parts
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer.stage import TokenizerConfig
from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import corpus
from tests.support.copies import make
from tests.support.documents import TRAIN
from tests.support.left_out import documents_out, rows_of, spans_out
from tests.support.records import LayRaw, baike, lines

NAME = "news2016zh"
NOTICE = (
    "河边的茶馆每逢初一十五照常开门，来客请自带杯子，听书的坐东边，下棋的坐西边，"
    "雨天廊下另设长凳，茶钱一律记在门口那块黑板上，月底再算。"
)
ITEM_BEGINS, ITEM_ENDS = 30, 14
"""Characters of the evaluation item before and within the notice."""


def body(number: int) -> str:
    steps = (f"第{number * 31 + step * 7}条要记住{chr(0x4E00 + number * 17 + step * 101)}，" for step in range(9))
    return "".join(steps) + chr(0x6000 + number)


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """Nine articles that end in a notice, of which one has little else, and two questions with a common answer."""
    fields = {"source": "报", "time": "", "keywords": "", "desc": ""}
    contents = [f"{'今日无事可记录的一天' if number == 5 else body(number)}{NOTICE}" for number in range(9)]
    articles = [
        {"news_id": str(number), "title": f"第{number}条", "content": content, **fields}
        for number, content in enumerate(contents)
    ]
    lay_raw(NAME, {"news2016zh_train.json": lines(articles)})
    questions = [baike(number, title=body(50 + number), answer=NOTICE) for number in range(2)]
    lay_raw("baike2018qa", {TRAIN: lines(questions)})
    for name in (NAME, "baike2018qa"):
        ingest.run(IngestConfig(dataset=name, workers=1, min_length=20), workspace)
    return workspace


def texts(workspace: Workspace, chosen: selection.Selection, name: str = NAME) -> dict[int, str]:
    """The texts that are used, by line."""
    (path,) = parts(workspace.documents(name))
    read = selection.read_selected(path, ["text"], chosen)
    return {int(line): text for _, at, batch in read for line, text in zip(at, batch["text"].to_pylist(), strict=True)}


def test_all_but_the_first_are_cut_out_of_prose(ready: Workspace) -> None:
    whole = texts(ready, selection.Selection())
    counts = make(ready, spans=60, cut=True).ledger.counts["spans"]["datasets"]
    assert len(whole) == sum(text.endswith(NOTICE) for text in whole.values()) == 9
    chosen = selection.load(ready, NAME)
    used = texts(ready, chosen)
    assert used == {line: text if line == 0 else text.removesuffix(NOTICE) for line, text in whole.items() if line != 5}
    assert documents_out(chosen) == [document_ref(0, 5)]
    assert chosen.reasons == {"shared_span": 8}
    gone = sum(map(len, whole.values())) - sum(map(len, used.values()))
    assert (chosen.documents, chosen.characters) == ({"train": 1}, {"train": gone})
    assert counts[NAME] == {
        "documents": {"train": 8}, "characters": {"train": 8 * len(NOTICE)}, "runs": 8,
        "cut": {"train": 7}, "characters_cut": {"train": 7 * len(NOTICE)},
        "left_out": {"train": 1}, "characters_left_out": {"train": len(whole[5])},
    }  # fmt: skip
    listed = rows_of(ready.dedup, NAME)
    assert [row["whole"] for row in listed] == [row["document"] == 5 for row in listed]
    name = f"{NAME}:{document_at(ready, NAME, 0)['id']}"
    assert {row["detail"] for row in listed} == {f"{name} {whole[0].index(NOTICE)}"}
    assert counts["baike2018qa"]["documents"] == {"train": 2}  # listed, but a question and its answer stay whole
    assert counts["baike2018qa"]["cut"] == {}
    assert not selection.load(ready, "baike2018qa").lists
    shown = [*examples.sample(ready, [NAME], reason="shared_span", limit=9)]
    assert sum(("gone", NOTICE) in each.pieces for each in shown) >= 1


def test_rows_have_no_cut_run_and_their_trace_is_whole(ready: Workspace, tmp_path: Path) -> None:
    make(ready, spans=60, cut=True)
    whole = texts(ready, selection.Selection())
    at = whole[7].index(NOTICE)
    item = whole[7][at - ITEM_BEGINS : at + ITEM_ENDS].lstrip("，")
    begin = at + ITEM_ENDS - len(item)
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": item}, ensure_ascii=False) + "\n", encoding="utf-8")
    decontaminate.run(config.DecontaminateConfig(against=(exam,), cut=True, workers=1), ready)
    chosen = selection.load(ready, NAME)
    assert spans_out(chosen)[document_ref(0, 7)] == [(begin, len(whole[7]))]  # of both lists, as one
    assert chosen.reasons == {"shared_span": 8, "contaminated": 1}
    used = texts(ready, chosen)
    assert used[7] == whole[7][:begin]
    assert chosen.characters["train"] == sum(map(len, whole.values())) - sum(map(len, used.values()))
    tokenizer.run(TokenizerConfig(vocab_size=400), ready)
    report = pack.run(PackConfig(dataset=NAME, workers=1, seq_length=64), ready)
    counts = report.ledger.counts["splits"]["train"]
    assert (counts["documents"], counts["characters"]) == (8, sum(map(len, used.values())))
    rows = datasets.load_from_disk(str(ready.packed(NAME)))["train"]
    model = files.load(ready.tokenizer)
    assert "".join(map(model.decode, rows["input_ids"])).count(NOTICE[-30:]) == 1
    for number in range(rows.num_rows):
        segments, _ = lineage.row(ready, NAME, "train", number)
        assert all(segment.rebuilt for segment in segments)
    card = dataset_card.write(ready, NAME, "text").read_text(encoding="utf-8")
    assert "--threshold 0.7 --spans 60 --cut\n" in card


def test_runs_are_shown_as_a_user_asks_for_them(ready: Workspace, tmp_path: Path) -> None:
    for arguments, says in (
        (["dedup", "--spans", "60", "--cut", "--workers", "1"], "runs of 60 or more characters of earlier documents"),
        (["inspect", "--passages", "--dataset", NAME], f"10 documents repeat characters 85 to 151 of {NAME}"),
        (["trace", "--text", "今日无事可记录", "--dataset", NAME], f"stand in {NAME} "),
    ):
        assert says in corpus(*arguments, "--workspace", str(ready.root), folder=tmp_path).stdout


def test_cut_needs_to_know_how_long_a_run_is() -> None:
    with pytest.raises(ValueError, match="--cut needs --spans N"):
        DedupConfig(cut=True)


def test_a_report_becomes_a_cut_and_back(ready: Workspace) -> None:
    make(ready, spans=60)
    assert not selection.load(ready, NAME).reasons
    assert make(ready, spans=60, cut=True).reasons == ("cut was unset and is true",)
    assert selection.load(ready, NAME).reasons == {"shared_span": 8}
    make(ready, spans=60)
    assert not selection.load(ready, NAME).reasons
