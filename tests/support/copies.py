"""Documents with and without copies, and a search for duplicates among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.dedup.stage import DedupConfig
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.duplicates import Row, lay_documents, plant
from tests.support.left_out import rows_of

RAIN = (
    "春天的雨下了一整夜，早上院子里的石板还是湿的，台阶边上落下几片昨天开的花；"
    "他把伞收起来靠在门后，回屋里烧了一壶水，想到今年的新茶什么时候能寄到。"
)
NOODLES = "面要煮三分钟，水开之后再加一碗凉水，等它第二次滚起来就可以盛出来了。"
HAN = np.arange(0x4E00, 0x9000, dtype=np.uint32)


def rows(*texts: str, split: str = "train", prefix: str = "") -> list[Row]:
    return [(f"{prefix}{number}", split, text) for number, text in enumerate(texts)]


def make(workspace: Workspace, progress: Progress | None = None, **settings_: Any) -> Any:
    return dedup.run(DedupConfig(**({"workers": 1} | settings_)), workspace, progress=progress or Progress())


def removed(workspace: Workspace, dataset: str = "wiki2019zh") -> list[dict[str, Any]]:
    return rows_of(workspace.dedup, dataset)


def random_texts(count: int, length: int, seed: int = 0) -> list[str]:
    codes = HAN[np.random.default_rng(seed).integers(0, len(HAN), (count, length))]
    return [row.astype("<u4").tobytes().decode("utf-32-le") for row in codes]


def sample(seed: int = 3) -> dict[str, list[list[Row]]]:
    """Three datasets in shards, with copies within and across them, and their splits."""
    random = np.random.default_rng(seed)
    texts = [f"{text}。{text[::-1]}" for text in random_texts(160, 70, seed)]
    copies = plant(texts[:65], random)
    every = [*texts, *[text for _, _, text in copies], *texts[100:130], "", "。！", "好的", "好的。"]
    order = random.permutation(len(every))
    names = ("wiki2019zh", "baike2018qa", "demo")
    splits = ("train", "train", "train", "validation", "test")
    laid: dict[str, list[list[Row]]] = {name: [[] for _ in range(4)] for name in names}
    for place, which in enumerate(order.tolist()):
        name = names[place % 3]
        laid[name][place // 3 % 4].append((f"{name} {which}", splits[which % 5], every[which]))
    return laid


def lay(workspace: Workspace, laid: dict[str, list[list[Row]]]) -> Workspace:
    for name, shards in laid.items():
        lay_documents(workspace, name, shards)
    return workspace
