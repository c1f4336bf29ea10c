"""Documents that hold evaluation items, and the files of the items."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks import contamination as benchmark
from tests.support.contaminated import PLANTED, QUESTION, wiki
from tests.support.documents import TRAIN, VALID
from tests.support.items import CONTEXT, SHORT, SOME, prose
from tests.support.records import LayRaw, baike, lines


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw) -> Workspace:
    """Questions and prose, some of which hold what the evaluation sets ask."""
    answers = {
        5: f"书上是这样讲的:{benchmark.repunctuated(CONTEXT, random.Random(1))}",
        17: benchmark.traditional(CONTEXT, random.Random()),
    }
    records = [
        baike(n, title=f"第{n}个问题该怎样回答？", answer=answers.get(n, SOME[n % 12] + f"这是第{n * 3}次说起。"))
        for n in range(60)
    ]
    records.append(baike(60, title=QUESTION, answer="因为平日里没有多少人要过河，开船反而亏本。"))
    valid = [baike(n, answer=f"{SOME[n % 12]}{CONTEXT if n == 63 else ''}") for n in range(61, 66)]
    lay_raw("baike2018qa", {TRAIN: lines(records), VALID: lines(valid)})
    articles = {3: PLANTED, 8: CONTEXT + "如此而已。", 11: prose(11) + "\n" + SHORT + "？\n" + prose(111)}
    articles[12] = prose(12) + "有人问渡口从前归谁管理呢，没有人答得上来。" + prose(112)
    articles[13] = f"{SHORT}\n没有人答得上来，问了也是白问，大家都笑。"  # less than a document would be left
    lay_raw("wiki2019zh", {"AA/wiki_00": lines([wiki(n, articles.get(n, prose(n))) for n in range(40)])})
    for name in ("baike2018qa", "wiki2019zh"):
        ingest.run(IngestConfig(dataset=name, workers=1, piece_bytes=9_000), workspace)
    return workspace


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluation files."""
    reading, short = tmp_path / "reading.jsonl", tmp_path / "short.txt"
    items = [
        {"context": CONTEXT, "question": QUESTION, "answers": ["平日里过河的人少"]},
        {"context": CONTEXT, "question": "船篷里常有什么动物来睡觉？", "answers": ["野猫"]},
        {"context": "这一段话在哪里都没有人写过，只是为了凑数才放在这里的。", "question": "", "answers": []},
    ]
    reading.write_bytes(lines(items))
    short.write_text(f"{SHORT}？\n短\n", encoding="utf-8")
    return reading, short
