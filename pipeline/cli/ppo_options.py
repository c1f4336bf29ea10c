"""The options of `corpus train --objective ppo`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import NamedPath

_OPTIONS = (
    click.option(
        "--reward", type=NamedPath(), metavar="DIR", shell_complete=completion.models,
        help="With --objective ppo, as the next ones: the reward model, of --objective reward.",
    ),
    click.option(
        "--kl-coef", type=float, default=0.02, show_default=True, metavar="X",
        help="Larger values keep the policy nearer to the model of --init.",
    ),
    click.option(
        "--max-new-tokens", type=int, metavar="N",
        help="Most tokens of an answer; prompts without room for so many are left out.  [default: 64, or half of the "
        "context]",
    ),
    click.option(
        "--missing-end-penalty", type=float, default=1.0, show_default=True, metavar="X",
        help="What an answer without an end loses of its score.",
    ),
    click.option(
        "--prompt-tokens", type=int, default=8, show_default=True, metavar="N",
        help="Of rankings without a question: the prompt is so many tokens of the best answer.",
    ),
    click.option(
        "--inner-epochs", type=int, default=2, show_default=True, metavar="N",
        help="How often each answer is learnt from.",
    ),
    click.option(
        "--minibatches", type=int, default=1, show_default=True, metavar="N",
        help="Optimizer steps of an inner epoch.",
    ),
    click.option(
        "--ptx-dataset", "ptx_datasets", multiple=True, metavar="NAME", shell_complete=completion.datasets,
        help="Learn packed rows of this dataset beside the answers, may be repeated.",
    ),
    click.option(
        "--ptx-coef", type=float, metavar="X", help="Weight of the loss of these rows.  [default: 27.8]"
    ),
    click.option(
        "--ptx-rows", type=int, default=1, show_default=True, metavar="N",
        help="Such rows for each answer and inner epoch.",
    ),
)  # fmt: skip


def ppo_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
