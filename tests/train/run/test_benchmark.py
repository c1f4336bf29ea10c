"""A benchmark measured while a run trains: figures in metrics.jsonl, the same weights, a panel of the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.pipeline.errors import TaskError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.benchmarks.chosen import find
from corpus.train.benchmarks.pairs import PairEncoder
from corpus.train.benchmarks.plain import log_likelihoods
from corpus.train.config import TrainConfig
from corpus.train.evaluation.tokens import DocumentTokenizer
from corpus.train.model.load import load_any
from corpus.train.run.curves import picture
from corpus.train.run.stage import run
from tests.support.packed import SEQ_LENGTH, lay_all
from tests.support.training import config_of

NAME = "demo_minimal_pairs"
MEASURED: dict[str, Any] = {"eval_benchmark": NAME, "eval_benchmark_every": 2, "eval_benchmark_limit": 6}
pytestmark = pytest.mark.usefixtures("narrow")


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_curve_is_written_and_nothing_else_changes(workspace: Workspace) -> None:
    lay_all(workspace)
    changes = {"dropout": 0.1, "max_steps": 5, "epochs": None, "device": "cpu", "precision": "fp32"}
    plain = run(config_of({**changes, "run": "plain"}), workspace)
    asked = run(config_of({**changes, **MEASURED, "run": "asked"}), workspace)
    weights = [(report.folder / "model.safetensors").read_bytes() for report in (plain, asked)]
    assert weights[0] == weights[1]
    history = metrics(asked.folder)
    own = [line for line in history if f"benchmark/{NAME}/accuracy" in line]
    assert [line["step"] for line in own] == [2, 4, 5]
    assert [line for line in history if line not in own] == metrics(plain.folder)
    assert set(own[0]) == {"step", "rows", "epoch"} | {
        f"benchmark/{NAME}/{figure}" for figure in ("accuracy", "per_character", "slln_lp")
    }
    assert own[-1][f"benchmark/{NAME}/accuracy"] == by_hand(asked.folder)
    assert "eval_benchmark" not in plain.ledger.config
    assert asked.ledger.config["eval_benchmark"]["name"] == NAME
    assert picture(history) != picture([line for line in history if line not in own])
    assert run(config_of({**changes, **MEASURED, "run": "asked"}), workspace).skipped


def by_hand(folder: Path) -> float:
    """The accuracy of the finished model, from its folder."""
    model = load_any(folder, precision="fp32")
    tokenizer = DocumentTokenizer(folder, rows=model.config.vocab_size)
    encoder = PairEncoder(tokenizer, context=SEQ_LENGTH)
    assert encoder.start == tokenizer.before, "the run's tokenizer puts the separator before a text"
    right = []
    for question in find(NAME, None, limit=6).questions:
        pairs = [encoder.pair("", answer) for answer in question.answers]
        logs = log_likelihoods(model, pairs, context=SEQ_LENGTH, rows=1)
        right.append(int(np.argmax(logs)) == question.label)
    return sum(right) / len(right)


def test_items_are_read_before_anything_is_written(workspace: Workspace) -> None:
    lay_all(workspace)
    with pytest.raises(TaskError, match="there is no task called 'zhoblim'"):
        run(config_of({"eval_benchmark": "zhoblim"}), workspace)
    with pytest.raises(TaskError, match="the task zhoblimp brings no data"):
        run(config_of({"eval_benchmark": "zhoblimp"}), workspace)
    assert not workspace.models.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval_benchmark_every": 5}, "--eval-benchmark-every must stand with --eval-benchmark"),
        ({"eval_benchmark": NAME, "eval_benchmark_every": 0}, "--eval-benchmark-every must be at least 1, is 0"),
        (
            {"eval_benchmark": NAME, "objective": "task", "task": "demo_choice"},
            "--eval-benchmark must not stand with --objective task",
        ),
    ],
)
def test_wrong_settings(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(**changes)
