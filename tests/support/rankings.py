"""Small rankings with a rule that characters decide, and networks that read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corpus.pipeline.storage import ranking_shards, row_shards
from corpus.pipeline.storage.ranking_shards import Ranking
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER
from corpus.pipeline.workspace.files import atomic, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, write_ledger
from corpus.train.model.build import make
from corpus.train.preferences.batches import RankingCollator, RankingItem
from corpus.train.presets import PRESETS
from tests.support.packed import VOCAB_SIZE, make_tokenizer, pad_id, separator_id

NARROW: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2}
CONTEXT = 48
_PLAIN = "春雨早石书窗猫尾山灯船茶"
_MARKS = "好香坏苦"
"""Better ones first."""


def ids_of(text: str) -> np.ndarray:
    return np.array(make_tokenizer().encode(text, add_special_tokens=False).ids, np.int64)


def ranking(question: str, answers: Sequence[str], pairs: Sequence[tuple[int, int]] = ()) -> Ranking:
    """An empty question means no question; without pairs all answers are compared."""
    user, assistant = (np.array([make_tokenizer().token_to_id(name)]) for name in (USER, ASSISTANT))
    asked = np.concatenate([user, ids_of(question), assistant]) if question else np.zeros(0, np.int64)
    every = [(one, other) for one in range(len(answers)) for other in range(one + 1, len(answers))]
    return Ranking(
        question=asked, answers=[np.append(ids_of(text), separator_id()) for text in answers],
        sources=[(0, at) for at in range(len(answers))], pairs=list(pairs) or every,
    )  # fmt: skip


def item(question: str, answers: Sequence[str], pairs: Sequence[tuple[int, int]] = ()) -> RankingItem:
    made = ranking(question, answers, pairs)
    return RankingItem(made.question, made.answers, np.array(made.pairs), np.zeros(len(answers)))


def collator() -> RankingCollator:
    return RankingCollator(separator_id(), pad_id())


def toy(count: int, *, seed: int) -> list[Ranking]:
    """Questions whose answers hold one character of a known rank; two to four answers."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        marks = sorted(random.choice(len(_MARKS), int(random.integers(2, 5)), replace=False).tolist())
        texts = ["".join(random.choice(list(_PLAIN), int(random.integers(1, 5)))) + _MARKS[at] for at in marks]
        found.append(ranking("".join(random.choice(list(_PLAIN), 2)) + "？", texts))
    return found


def lay_rankings(workspace: Workspace, dataset: str, splits: Mapping[str, Sequence[Ranking]]) -> None:
    """Write `ranking/DATASET` as the stage leaves it; the workspace has a tokenizer."""
    folder = workspace.rankings(dataset)
    for split, rankings in splits.items():
        with atomic(folder / split / "data-00000.arrow") as file:
            row_shards.write_rows(file, ranking_shards.rankings_table(rankings, VOCAB_SIZE))
        write_atomic(folder / split / "dataset_info.json", ranking_shards.describe_rankings(VOCAB_SIZE, name=dataset))
        state = row_shards.describe_state(["data-00000.arrow"], split=split, fingerprint="0" * 64)
        write_atomic(folder / split / "state.json", state)
    write_atomic(folder / "dataset_dict.json", json.dumps({"splits": list(splits)}).encode())
    beside = {LEDGER, "timings.json"}
    written = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in beside]
    ledger = Ledger(
        stage="ranking", dataset=dataset, version=1, config={"seq_length": CONTEXT},
        inputs=[workspace.file_digest(workspace.tokenizer / "tokenizer.json")],
        outputs=[workspace.file_digest(path, folder) for path in written], counts={}, fingerprint="0" * 64,
    )  # fmt: skip
    write_ledger(folder, ledger, {})


def causal(family: str = "gpt2", *, seed: int = 3, scale: float = 10.0) -> Any:
    """A narrow model whose outputs differ; `scale` makes its random embeddings larger."""
    preset = PRESETS["tiny" if family == "gpt2" else "llama-tiny"]
    model = make(
        dataclasses.replace(preset, **NARROW), vocab_size=VOCAB_SIZE, seq_length=CONTEXT,
        separator=separator_id(), pad=pad_id(), dropout=0.0, seed=seed,
    )  # fmt: skip
    model.get_input_embeddings().weight.data *= scale
    return model.eval()
