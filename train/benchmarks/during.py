"""A benchmark that a run measures on the model while it trains, so that what pre-training brings is a curve.

In: a run's configuration; at every so many steps its model. Out: figures named `benchmark/<task>/<figure>` for
`metrics.jsonl`.
Method: plain passes in the run's own process (`plain`), without lm-evaluation-harness; answers are compared by
log-probability, per character, and of minimal pairs by SLLN-LP.
Invariants: no random number is drawn and the model's mode is restored, so the weights are the same with and without;
items are read before the run begins, and their digest is part of the run's identity.
Cost: one pass for each different answer of an item.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from corpus.train.benchmarks import scores
from corpus.train.benchmarks.chosen import Benchmark, find
from corpus.train.benchmarks.pairs import PairEncoder
from corpus.train.benchmarks.plain import log_likelihoods
from corpus.train.benchmarks.scores import Scored
from corpus.train.config import TrainConfig
from corpus.train.evaluation.tokens import DocumentTokenizer

PREFIX = "benchmark/"


def of(config: TrainConfig) -> Benchmark | None:
    """The benchmark that a run measures; None without one.

    Raises:
        TaskError, BenchmarkError: as `corpus.train.benchmarks.chosen.find`.

    """
    if not config.eval_benchmark:
        return None
    return find(config.eval_benchmark, config.eval_benchmark_data, limit=config.eval_benchmark_limit or 0)


def settings(config: TrainConfig, benchmark: Benchmark | None) -> dict[str, Any]:
    """What a run's ledger says of it; nothing without one, so that other runs stay as they were."""
    if benchmark is None:
        return {}
    digest = hashlib.sha256(repr(benchmark.questions).encode()).hexdigest()
    return {"eval_benchmark": {"name": benchmark.name, "every": config.eval_benchmark_every, "items": digest}}


class Curve:
    """A benchmark, encoded once for a model of a run.

    `save_tokenizer` writes the model's tokenizer into a folder; the embedding has `rows` rows.
    """

    def __init__(
        self, benchmark: Benchmark, save_tokenizer: Callable[[Path], None], *, rows: int, context: int,
        texts_per_pass: int, precision: str,
    ) -> None:  # fmt: skip
        self._benchmark = benchmark
        with tempfile.TemporaryDirectory() as folder:
            save_tokenizer(Path(folder))
            encoder = PairEncoder(DocumentTokenizer(Path(folder), rows=rows), context=context)
        pairs = dict.fromkeys((each.context, answer) for each in benchmark.questions for answer in each.answers)
        self._places = {pair: number for number, pair in enumerate(pairs)}
        self._encoded = [encoder.pair(*pair) for pair in pairs]
        self._score = functools.partial(log_likelihoods, context=context, rows=texts_per_pass, precision=precision)

    def figures(self, model: Any) -> dict[str, float]:
        """The figures of a model as it is."""
        task, logs = self._benchmark.task, self._score(model, self._encoded)
        found = []
        for question in self._benchmark.questions:
            places = [self._places[question.context, answer] for answer in question.answers]
            tokens = [float(len(self._encoded[place][1])) for place in places]
            found.append(
                Scored(
                    group="", label=question.label, logs_k=logs[places],
                    characters_k=np.array([float(len(answer)) for answer in question.answers]),
                    tokens_k=np.array(tokens) if task.kind == "minimal_pairs" else None,
                )
            )  # fmt: skip
        return {f"{PREFIX}{task.name}/{name}": value for name, value in scores.figures(found).items()}


class BenchmarkCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped to us
    """Has a benchmark measured every so many steps, and after the last one."""

    def __init__(self, measure: Callable[[], None], *, every: int, steps: int) -> None:
        self._measure, self._every, self._steps = measure, every, steps

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Measure where it is due."""
        if state.global_step % self._every == 0 or state.global_step == self._steps:
            self._measure()
