"""`corpus evaluate`: a model in, figures out. Heavy modules are imported inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import (
    config_of,
    dataset_option,
    json_option,
    model_folder,
    nothing_to_resume,
    workspace_of,
    workspace_option,
)
from corpus.pipeline.humanize import count_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.train.evaluation.config import Evaluation


@click.command()
@click.option(
    "--model", metavar="DIR", shell_complete=completion.models,
    help="A run's name, or a model's folder.  [default: the newest run]",
)  # fmt: skip
@dataset_option("all that have documents of the split")
@click.option(
    "--split", type=click.Choice(["validation", "test", "train"]), default="validation", show_default=True,
    help="Which documents.",
)  # fmt: skip
@click.option(
    "--documents", type=int, default=0, show_default="all", metavar="N",
    help="Most documents of a dataset, spread evenly.",
)  # fmt: skip
@click.option("--context", type=int, metavar="N", help="Tokens of a window.  [default: the model's most]")
@click.option(
    "--stride", type=int, metavar="N",
    help="Tokens from one window to the next; below --context they overlap.  [default: the window]",
)  # fmt: skip
@click.option("--batch-size", type=int, metavar="N", help="Windows of a pass.  [default: what fits]")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@json_option
@workspace_option()
def evaluate(model: str | None, datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Measure a model on documents it was not trained on.

    Loss, perplexity, bits per character and per byte on each dataset's validation split, for any folder that
    AutoModelForCausalLM and AutoTokenizer open. Models with different tokenizers are compared by bits per
    character or byte; loss and perplexity are a token's, so they compare only models that share a tokenizer.
    A document longer than the model's context is cut into windows, and the first token of each is not predicted:
    give models of different contexts the same --context.

    \b
    Examples:
      corpus evaluate
      corpus evaluate --model ~/models/qwen --dataset baike2018qa --documents 500
      corpus evaluate --model gpt2-small-3f9a1c --split test --stride 512 --json
    """
    from corpus.train.evaluation.config import EvaluateConfig

    workspace = workspace_of(workspace_dir)
    config = config_of(EvaluateConfig, model=model_folder(workspace, model), datasets=datasets, **settings)
    console.Console().say(f"loading {config.model} ...")
    with nothing_to_resume():
        from corpus.train.evaluation import stage

        evaluation = stage.run(config, workspace, progress=console.Console())
    if as_json:
        console.data(evaluation.to_dict())
    else:
        _evaluated(evaluation)


def _evaluated(evaluation: Evaluation) -> None:
    """The figures of each dataset, and of all together when there are several."""
    results = [*evaluation.results]
    if len(results) > 1:
        results.append(evaluation.total())
    rows = [
        (
            result.dataset,
            result.documents,
            count_text(result.score.tokens),
            f"{result.score.loss:.3f}",
            _perplexity(result.score.perplexity),
            f"{result.score.bits_per_character:.3f}",
            f"{result.score.bits_per_byte:.3f}",
        )
        for result in results
    ]
    console.table((evaluation.split, "documents", "tokens", "loss", "perplexity", "bits/\nchar", "bits/\nbyte"), rows)
    overlap = f", {evaluation.stride:,} apart" if evaluation.stride < evaluation.context else ""
    console.line(
        f"model: {evaluation.model} (windows of {evaluation.context:,} tokens{overlap}, {evaluation.precision}, "
        f"{evaluation.seconds:.1f} s)"
    )
    for note in evaluation.notes:
        console.line(f"note: {note}")


def _perplexity(value: float) -> str:
    """A perplexity in at most eight characters: that of an untrained model can be any number.

    >>> _perplexity(23.456), _perplexity(31234.5), _perplexity(1.5e9)
    ('23.46', '31,234', '1.5e+09')
    """
    return f"{value:,.2f}" if value < 1e3 else f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"
