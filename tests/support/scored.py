"""Good and other text, laid as documents, and scores of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from corpus.pipeline.progress import Progress
from corpus.pipeline.quality import QualityConfig, model_file
from corpus.pipeline.quality import stage as quality
from corpus.pipeline.quality.model_file import Trained
from corpus.pipeline.quality.scoring import BUCKETS, Weights
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import Row, lay_documents
from tests.support.left_out import rows_of

GOOD = "河流发源于高山北麓，流经平原后注入湖泊；沿岸多为古代城址，其中石桥建于宋代，保存完好。"
OTHER = "亲们快来看看呀，今天打折包邮哦，赶紧下单吧，手慢就没有啦！好用不贵真的超赞哈哈。"
POSITIVE, MIXED, PLAIN = "wiki2019zh", "news2016zh", "baike2018qa"


def text(share: float, length: int, chance: random.Random) -> str:
    """A text of which a share is good."""
    spans = list[str]()
    while sum(map(len, spans)) < length:
        source = GOOD if chance.random() < share else OTHER
        start = chance.randrange(len(source) - 6)
        spans.append(source[start : start + 6])
    return "".join(spans)


def sample(seed: int = 5) -> dict[str, list[list[Row]]]:
    """A positive dataset, one of all shares of good text, and one of other text, in shards."""
    chance, split = random.Random(seed), ("train", "train", "train", "validation", "test")
    shares = {POSITIVE: (0.5, 1.0), MIXED: (0.0, 1.0), PLAIN: (0.0, 0.2)}
    return {
        name: [
            [
                (f"{name}-{shard}-{line}", split[line % 5], text(chance.uniform(*bounds), 60 + line % 90, chance))
                for line in range(60)
            ]
            for shard in range(2)
        ]
        for name, bounds in shares.items()
    }


def lay(workspace: Workspace, laid: dict[str, list[list[Row]]] | None = None) -> Workspace:
    for name, shards in (laid or sample()).items():
        lay_documents(workspace, name, shards)
    return workspace


def make(workspace: Workspace, *positive: str | Path, progress: Progress | None = None, **values: Any) -> Any:
    config = QualityConfig(positive=tuple(map(str, positive)), **({"workers": 1} | values))
    return quality.run(config, workspace, progress=progress or Progress())


def rows(workspace: Workspace, dataset: str) -> list[dict[str, Any]]:
    """The documents that are left out."""
    return rows_of(workspace.quality, dataset)


def scores(workspace: Workspace, dataset: str) -> list[dict[str, Any]]:
    """The scores of all documents."""
    paths = sorted((workspace.quality / "scores" / dataset).glob("part-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def random_model(path: Path, positive: tuple[str, ...] = (POSITIVE,), seed: int = 0) -> Path:
    """A file of random weights, whose scores lie on both sides of a half."""
    weights = np.random.default_rng(seed).normal(0, 30_000, BUCKETS).astype(np.int32)
    facts = {"positive": positive, "documents": {}, "held_back": {"positive": 3, "other": 4}, "auc": 0.75}
    path.write_bytes(model_file.to_bytes(Trained(Weights(weights, 100), "random", facts)))
    return path
