"""A workspace filled for the report, and the figures of a page."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.records import baike
from tests.support.records import lines as json_lines

SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
BIDI = "顺序\u202e倒过来\u2066的\u2069文字"
LONG = "长" * 1_000_000
EXAM = "一只水桶装满后重十二千克，倒出一半水以后重七千克，问水桶本身有多重，写出每一步怎样想、怎样算。"


ANSWER = "先把问题读两遍，想清楚它问的是什么，再用自己的话慢慢地、一步一步地说给别人听。"


def hostile() -> list[dict[str, Any]]:
    """Records that try to break a page."""
    return [
        baike(9001, title=SCRIPT + "怎么办？", answer=ANSWER + SCRIPT),
        baike(9002, qid='"><script>document.title=1</script>', answer=ANSWER + "&lt;b&gt;第二&lt;/b&gt;" + BIDI),
        baike(9003, title="一行很长的字", answer=LONG),
        baike(9004, title="</textarea></script></style><h1>标题</h1>" + "怎么读？", answer=ANSWER + "第四"),
        baike(9005, title="短\u202e", answer="是"),
        baike(9006, title="这道题怎么做？", answer=EXAM),
    ]


def train(workspace: Workspace) -> None:
    """A short run of a narrow model."""
    from corpus.train.config import TrainConfig
    from corpus.train.presets import PRESETS
    from corpus.train.run import stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], layers=1, width=32, heads=2))
        config = TrainConfig(
            model="tiny", run="small", max_steps=8, batch_size=4, log_steps=2, eval_steps=4, threads=1, device="cpu",
            precision="fp32", sample_prompts=("先想",),
        )  # fmt: skip
        stage.run(config, workspace)


def fill(folder: Path, *, trained: bool = True) -> Workspace:
    """The whole way on records made here: drops, changes, duplicates, an evaluation item, rows and a run."""
    source, workspace = folder / "source", Workspace(folder / "workspace")
    source.mkdir()
    records = [baike(number, answer=f"第{number}个：{ANSWER}手机号 1380013{number:04d}。") for number in range(60)]
    repeated = [
        baike(number + 500, title="怎样记住一件事？", answer=ANSWER + "写下来，隔一天再看。") for number in range(4)
    ]
    short = [baike(number + 700, title="短", desc="", answer=f"{number}") for number in range(5)]
    (source / "baike_qa_train.json").write_bytes(json_lines([*records, *repeated, *short, *hostile()]))
    (source / "baike_qa_valid.json").write_bytes(json_lines([baike(number + 900) for number in range(8)]))
    pairs = [
        {
            "english": f"The {number}th bridge is {number + 3} meters long.",
            "chinese": f"第{number}座桥长{number + 3}米。",
        }
        for number in range(30)
    ]
    (source / "translation2019zh_train.json").write_bytes(json_lines(pairs))
    (source / "translation2019zh_valid.json").write_bytes(json_lines(pairs[:3]))
    exam = folder / "exam.jsonl"
    exam.write_bytes(json_lines([{"question": EXAM}]))
    with workspace.writing("test"):
        for name in ("baike2018qa", "translation2019zh"):
            download.run(download.DownloadConfig(dataset=name, source=str(source)), workspace)
            ingest.run(ingest.IngestConfig(dataset=name, workers=1), workspace)
        dedup.run(dedup.DedupConfig(workers=1), workspace)
        decontaminate.run(DecontaminateConfig(against=(exam,), workers=1), workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=600), workspace)
        for name in ("baike2018qa", "translation2019zh"):
            pack.run(pack.PackConfig(dataset=name, seq_length=128, workers=1), workspace)
        pack.run(pack.PackConfig(dataset="baike2018qa", form="chat", seq_length=128, workers=1), workspace)
        if trained:
            train(workspace)
    return workspace


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def numbers(path: Path) -> dict[str, int]:
    """The figures of a page by what they are."""
    found = Tags(path.read_text(encoding="utf-8")).tags
    return {own["data-key"]: int(own["data-n"] or "") for _, own in found if own.get("data-key")}  # type: ignore[misc]


def check_figures(shown: dict[str, int], workspace: Workspace, name: str) -> int:
    """The figures of a dataset are those of its ledgers; returns its records."""
    documents, packed = read_ledger(workspace.documents(name)), read_ledger(workspace.packed(name))
    assert documents
    assert packed
    assert shown[f"{name}.records"] == documents.counts["records"]
    assert shown[f"{name}.documents"] == documents.counts["documents"]
    assert shown[f"{name}.used"] == sum(split["documents"] for split in packed.counts["splits"].values())
    assert shown[f"text.{name}.rows"] == sum(split["rows"] for split in packed.counts["splits"].values())
    assert shown[f"{name}.tokens"] == packed.counts["splits"]["train"]["tokens"]
    for split, counts in documents.counts["splits"].items():
        assert shown[f"{name}.{split}.documents"] == counts
    records: int = documents.counts["records"]
    return records
