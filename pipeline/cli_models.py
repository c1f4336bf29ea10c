"""The commands that need a model: train, sample.

In: options. Out: a stage's `run`, a table or a text. Nothing heavy is imported at the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline import closing, console
from corpus.pipeline.cli_options import config_of, dataset_option, workspace_of, workspace_option
from corpus.pipeline.manifest import BUILT_IN

if TYPE_CHECKING:
    from corpus.pipeline.workspace import Workspace


@click.command()
@dataset_option("all that are packed")
@click.option(
    "--model", default="gpt2-small", show_default=True, metavar="PRESET", help="Size of the model; see --list-models."
)
@click.option(
    "--init", type=click.Path(path_type=Path), metavar="DIR", help="Go on from this model instead of random weights."
)
@click.option("--run", default="", metavar="NAME", help="Folder below models/.  [default: PRESET and a fingerprint]")
@click.option("--epochs", type=float, default=1.0, show_default=True, help="How often each row is seen.")
@click.option("--max-steps", type=int, metavar="N", help="Optimizer steps, instead of --epochs.")
@click.option("--batch-size", type=int, metavar="N", help="Rows of a step, over all devices.  [default: the preset's]")
@click.option("--micro-batch-size", type=int, metavar="N", help="Rows of one pass of one device.  [default: what fits]")
@click.option("--learning-rate", type=float, metavar="X", help="Peak of the schedule.  [default: the preset's]")
@click.option("--warmup", type=float, default=0.05, show_default=True, help="Steps, or below 1 a share of all.")
@click.option("--weight-decay", type=float, default=0.1, show_default=True, help="AdamW's, on matrices.")
@click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient; 0: none.")
@click.option("--dropout", type=float, metavar="X", help="Share of units dropped.  [default: the preset's]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights, order and dropout.")
@click.option(
    "--document-mask/--no-document-mask", default=True, show_default=True, help="Attention stays inside a document."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--log-steps", type=int, default=10, show_default=True, help="Steps between two losses in metrics.jsonl.")
@click.option(
    "--eval-steps", type=int, metavar="N", help="Steps between two evaluations.  [default: about ten in a run]"
)
@click.option(
    "--eval-rows", type=int, default=128, show_default=True, help="Most validation rows of a dataset; 0: all."
)
@click.option(
    "--save-steps", type=int, metavar="N", help="Steps between two checkpoints.  [default: a tenth of the run]"
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the last checkpoint of the same run."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Compute activations twice to save memory.")
@click.option("--compile", "compile_model", is_flag=True, help="Use torch.compile.")
@click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: torch's choice]")
@click.option("--list-models", is_flag=True, help="Print the presets and leave.")
@workspace_option()
def train(
    datasets: tuple[str, ...], compile_model: bool, list_models: bool, workspace_dir: Path, **settings: Any
) -> None:
    """Train a GPT on packed rows.

    Prints parameters, tokens, steps and an estimate of the time before it starts. Interrupted, it goes on from
    its last checkpoint when the same command is run again. Losses and bits per character on each dataset's
    validation split are in models/RUN/metrics.jsonl.

    \b
    Examples:
      corpus train --list-models
      corpus train --model tiny --max-steps 200
      corpus train --dataset wiki2019zh --model gpt2-small --epochs 5
    """
    if list_models:
        _list_models()
        return
    from corpus.train.config import TrainConfig

    workspace = workspace_of(workspace_dir)
    config = config_of(TrainConfig, datasets=datasets, compile=compile_model, **settings)
    console.Console().say("loading torch and transformers ...")
    from corpus.train import train as stage

    with workspace.writing("train"):
        report = stage.run(config, workspace, progress=console.Console())
    closing.train(report)


@click.command()
@click.option("--model", metavar="DIR", help="A run's name, or a model's folder.  [default: the newest run]")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Text to continue, may be repeated; left out: a new document.",
)
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="Most tokens of one sample.")
@click.option(
    "--temperature", type=float, default=1.0, show_default=True, help="Below 1 bolder choices get rarer; 0: none."
)
@click.option("--top-k", type=int, default=30, show_default=True, help="Choose among the k likeliest tokens; 0: all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="... that together reach this probability.")
@click.option(
    "--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1, repeating gets less likely."
)
@click.option("--num-samples", type=int, default=1, show_default=True, help="Different continuations of each prompt.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.  [default: a new one, printed]")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Most samples written at the same time.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End where this text comes, may be repeated.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@workspace_option()
def sample(
    model: str | None, device: str, precision: str, seed: int | None, workspace_dir: Path, **settings: Any
) -> None:
    """Continue a prompt, token by token, until the model ends the document.

    \b
    Examples:
      corpus sample --prompt 我感冒了怎么办？
      corpus sample --prompt 秋天的山里 --num-samples 3 --temperature 0.8 --seed 7
    """
    from corpus.generate.config import SampleConfig

    workspace = workspace_of(workspace_dir)
    settings["prompts"] = settings["prompts"] or ("",)
    config = config_of(SampleConfig, **settings, **({} if seed is None else {"seed": seed}))
    folder = _model_folder(workspace, model)
    console.Console().say(f"loading {folder} ...")
    from corpus.generate import sample as stage

    print_samples(stage, stage.load(folder, device=device, precision=precision), config)


def train_demo(workspace: Workspace, max_steps: int) -> Path:
    """The tiny model of `corpus demo`; returns its folder."""
    from corpus.train.config import TrainConfig

    config = config_of(
        TrainConfig, datasets=(BUILT_IN,), model="tiny", max_steps=max_steps, batch_size=8, learning_rate=1e-3,
        dropout=0.0, log_steps=20, eval_steps=max(1, max_steps),
    )  # fmt: skip
    console.Console().say("loading torch and transformers ...")
    from corpus.train import train as stage

    report = stage.run(config, workspace, progress=console.Console())
    closing.losses(report.folder)
    closing.train(report)
    return report.folder


def print_samples(stage: Any, model: Any, config: Any) -> None:
    """Samples one after another as they are written: the prompt, its continuation, and how it ended."""
    many = len(config.prompts) * config.num_samples > 1
    opened: set[tuple[int, int]] = set()
    progress = console.Console()
    for piece in stage.in_order(stage.stream(model, config, progress=progress), config):
        if (piece.prompt, piece.sample) not in opened:
            opened.add((piece.prompt, piece.sample))
            if many:
                console.write(f"--- prompt {piece.prompt + 1}, sample {piece.sample + 1}")
            console.write(config.prompts[piece.prompt], end="")
        console.write(console.harmless(piece.text), end="")
        if piece.finish:
            console.write()
            progress.say(
                f"({piece.finish.tokens} tokens, {piece.finish.tokens_per_second:.0f} a second, "
                f"ended by {piece.finish.reason}, seed {config.seed})"
            )


def _list_models() -> None:
    from corpus.train.presets import list_models

    rows = [
        (
            row.name,
            row.layers,
            row.width,
            row.heads,
            row.context,
            f"{row.parameters / 1e6:,.1f} M",
            console.size(row.memory),
        )
        for row in list_models()
    ]
    console.table(("preset", "layers", "width", "heads", "context", "parameters", "memory"), rows)


def _model_folder(workspace: Workspace, model: str | None) -> Path:
    from corpus.pipeline.errors import ModelError
    from corpus.pipeline.workspace import LEDGER

    if model is not None:
        named = workspace.models / model
        return named if named.is_dir() else Path(model).expanduser()
    finished = sorted(workspace.models.glob(f"*/{LEDGER}"), key=lambda path: path.stat().st_mtime_ns)
    if not finished:
        raise ModelError(
            f"{workspace.models} holds no finished model",
            hint="Run `corpus train` first, or name one with --model DIR.",
        )
    return finished[-1].parent
