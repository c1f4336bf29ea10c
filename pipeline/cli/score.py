"""`corpus score`: answers in, the scores of a reward model out. Heavy modules are imported inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import config_of, model_folder, nothing_to_resume, workspace_of, workspace_option
from corpus.pipeline.terminal import console


@click.command()
@click.option(
    "--model", metavar="DIR", required=True, shell_complete=completion.models,
    help="A run of corpus train --objective reward, or its folder.",
)  # fmt: skip
@click.option(
    "--input", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="JSON Lines with `answer` and, where there is one, `prompt`.  [default: standard input]",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where the scored lines go.  [default: standard output]",
)  # fmt: skip
@click.option("--batch-size", type=int, metavar="N", help="Answers of a pass.  [default: what keeps the device busy]")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@workspace_option()
def score(model: str, workspace_dir: Path, **settings: Any) -> None:
    """Score answers with a reward model.

    Each line comes back with its `score`. Demonstrations, the best answers that the model learnt from, have a mean of
    0; only scores of one model compare. An answer longer than the model's context has the score null.

    \b
    Examples:
      corpus score --model RM --input answers.jsonl --output scored.jsonl
      echo '{"prompt": "天为什么蓝？", "answer": "因为散射。"}' | corpus score --model RM
    """
    from corpus.train.preferences.config import ScoreConfig

    config = config_of(ScoreConfig, model=model_folder(workspace_of(workspace_dir), model), **settings)
    progress = console.Console()
    progress.say(f"loading {config.model} ...")
    with nothing_to_resume():
        from corpus.train.preferences import scoring

        scored = scoring.run(config, progress=progress, write=console.write)
    mean = "none" if scored.mean is None else f"{scored.mean:.4f}"
    late = f", {scored.too_long:,} longer than the context" if scored.too_long else ""
    progress.say(f"{scored.answers:,} answers, mean score {mean}{late} ({scored.seconds:.1f} s)")
