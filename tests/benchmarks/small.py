"""The small model by whose bits per character texts and tokenizers are compared.

In: a workspace with documents of the five corpora and a tokenizer. Out: bits per character on their validation splits.
Cost: about three minutes for 400 steps on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from corpus.pipeline.manifest import CORPORA
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.workspace.layout import Workspace

F = TypeVar("F", bound=Callable[..., Any])


def options(command: F) -> F:
    """What all comparisons let their user choose; every model of one gets the same."""
    for option in (
        click.option("--learning-rate", default=2e-3, show_default=True, help="Peak of the schedule."),
        click.option("--vocab-size", default=8000, show_default=True, help="Entries of each tokenizer."),
        click.option("--seq-length", default=512, show_default=True, help="Tokens of a row."),
        click.option("--batch-size", default=4, show_default=True, help="Rows of a step."),
        click.option("--steps", default=600, show_default=True, help="Optimizer steps of each model."),
    ):
        command = option(command)
    return command


def bits_per_character(workspace: Workspace, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Pack the five corpora, train the model, and measure it on each; `settings` are the values of `options`."""
    from corpus.train.config import TrainConfig
    from corpus.train.run.stage import run

    for dataset in CORPORA:
        pack.run(pack.PackConfig(dataset=dataset, seq_length=settings["seq_length"]), workspace)
    config = TrainConfig(
        model="tiny", max_steps=settings["steps"], batch_size=settings["batch_size"], eval_rows=0, seed=seed,
        learning_rate=settings["learning_rate"], eval_steps=settings["steps"], save_steps=settings["steps"],
    )  # fmt: skip
    scores = run(config, workspace).ledger.counts["validation"]
    return {dataset: scores[dataset]["bits_per_character"] for dataset in CORPORA}
