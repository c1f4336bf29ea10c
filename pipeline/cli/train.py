"""`corpus train`: flags in, a run out, and a closing table.

Heavy modules are imported inside the commands. Under torchrun each process runs `corpus train`: the first one holds the
workspace, prints and writes; the others are silent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import completion, summaries
from corpus.pipeline.cli.options import (
    NamedPath,
    config_of,
    in_workspace,
    json_option,
    model_folder,
    tell_behind,
    typed,
    workspace_of,
    workspace_option,
)
from corpus.pipeline.cli.ppo_options import ppo_options
from corpus.pipeline.cli.rows_options import rows_options
from corpus.pipeline.errors import CorpusError, PeerError
from corpus.pipeline.progress import SILENT
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.pipeline.workspace.ledger import Report
    from corpus.train.config import TrainConfig

_FIRST_ENDS_S = 20
"""Seconds after which the first process of torchrun has met the same failure and ended the others, or never will."""


@click.command()
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME[=WEIGHT]", shell_complete=completion.datasets,
    help="Dataset, may be repeated; weights are shares of the tokens.  [default: all that are packed, by their size]",
)  # fmt: skip
@rows_options
@click.option(
    "--max-repeats", type=float, metavar="X",
    help="Most epochs of a dataset; the others take its place.  [default: 4 with weights]",
)  # fmt: skip
@click.option(
    "--objective", type=click.Choice(["text", "sft", "task", "reward", "dpo", "ppo"]), default="text",
    show_default=True,
    help="text: every token of packed rows; sft: answers alone, on the rows of `corpus pack --form chat`; task: the "
    "labels of a task; reward, dpo, ppo: a score, or a policy, on `corpus pack --form ranking`.",
)  # fmt: skip
@click.option(
    "--task", default="", metavar="NAME|FILE", shell_complete=completion.tasks,
    help="With --objective task: a built-in task, see `corpus tasks`, or a task file.",
)  # fmt: skip
@click.option("--data", type=NamedPath(), metavar="PATH", help="File or folder of the task's items.")
@click.option(
    "--aux-lm",
    type=float,
    default=0.5,
    show_default=True,
    help="Weight of the loss of a task item's own tokens; 0: none.",
)
@click.option("--one-order", is_flag=True, help="Read a pair of similarity in one order, in place of both.")
@click.option("--delimiter/--no-delimiter", default=True, show_default=True, help="Between the texts of a task's item.")
@click.option(
    "--beta",
    type=float,
    default=0.1,
    show_default=True,
    help="With --objective dpo: larger values keep the policy nearer to the model of --init.",
)
@ppo_options
@click.option(
    "--model", default="", metavar="PRESET|PATH", shell_complete=completion.presets,
    help="Size of the model, see --list-models; or a config.json of transformers, whose shape a new model gets.  "
    "[default: gpt2-small; with --init as that model]",
)  # fmt: skip
@click.option(
    "--init", type=NamedPath(), metavar="DIR|none", shell_complete=completion.models,
    help="Start from this run or model; none: from random weights, which task and reward must say.",
)  # fmt: skip
@click.option(
    "--run", default="", metavar="NAME", shell_complete=completion.runs,
    help="Folder below models/.  [default: PRESET and a fingerprint]",
)  # fmt: skip
@click.option(
    "--epochs",
    type=float,
    metavar="X",
    help="How often each row is seen.  [default: 1; for task, and sft with --init, 3]",
)
@click.option("--max-steps", type=int, metavar="N", help="Optimizer steps, instead of --epochs.")
@click.option(
    "--batch-size",
    type=int,
    metavar="N",
    help="Rows of a step, over all devices.  [default: the preset's; for sft with --init at most 32; for task, reward, "
    "dpo and ppo 32]",
)
@click.option("--micro-batch-size", type=int, metavar="N", help="Rows of one pass of one device.  [default: what fits]")
@click.option(
    "--learning-rate",
    type=float,
    metavar="X",
    help="Peak of the schedule.  [default: the preset's; for task, and sft with --init, a quarter; for reward an "
    "eighth; for dpo 1/100; for ppo 1/16]",
)
@click.option(
    "--optimizer", type=click.Choice(["adamw", "muon"]),
    help="muon: Muon on the blocks' matrices, AdamW on the rest.  [default: adamw; for llama presets muon]",
)  # fmt: skip
@click.option(
    "--adam-learning-rate", type=float, metavar="X",
    help="AdamW's peak with --optimizer muon.  [default: --learning-rate]",
)  # fmt: skip
@click.option(
    "--schedule", type=click.Choice(["cosine", "wsd", "linear", "constant"]),
    help="Learning rate after the warm-up; wsd: constant, then a decay.  [default: cosine; for task linear; for llama "
    "presets wsd]",
)  # fmt: skip
@click.option(
    "--decay-share",
    type=float,
    metavar="X",
    help="Share of the run that decays with --schedule wsd.  [default: 0.2; for llama presets 0.4]",
)
@click.option(
    "--warmup",
    type=float,
    metavar="X",
    help="Steps, or below 1 a share of all.  [default: 0.05, at most the paper's; for task 0.002; for reward 0.03; "
    "for dpo and ppo 0.1]",
)
@click.option("--warmup-tokens", type=int, metavar="N", help="Warm-up in tokens, instead of --warmup.")
@click.option(
    "--decay-to", type=float, metavar="X", help="Share of the learning rate at the end.  [default: the preset's]"
)
@click.option("--ramp-from", type=int, metavar="N", help="Rows of the first step; the batch grows over --ramp-tokens.")
@click.option("--ramp-tokens", type=int, metavar="N", help="Tokens in which the batch grows to --batch-size.")
@click.option("--weight-decay", type=float, default=0.1, show_default=True, help="On matrices.")
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
    "--eval-rows",
    type=int,
    metavar="N",
    help="Most validation rows of a dataset; 0: all.  [default: 128; for task, reward, dpo all; for ppo 64]",
)
@click.option(
    "--sample-prompt", "sample_prompts", multiple=True, metavar="TEXT",
    help="Continue this at each evaluation, into samples.jsonl; may be repeated.",
)  # fmt: skip
@click.option(
    "--eval-benchmark", default=None, metavar="NAME", shell_complete=completion.benchmarks,
    help="Ask the model about this task while it trains, such as zhoblimp; into metrics.jsonl.",
)  # fmt: skip
@click.option("--eval-benchmark-data", type=NamedPath(), metavar="FILE", help="Items of --eval-benchmark.")
@click.option(
    "--eval-benchmark-every", type=int, metavar="N", help="Steps between two measurements.  [default: --eval-steps]"
)
@click.option("--eval-benchmark-limit", type=int, metavar="N", help="Most items, spread evenly.  [default: all]")
@click.option("--early-stop", type=int, metavar="N", help="End after N evaluations without a better one.")
@click.option(
    "--save-steps", type=int, metavar="N", help="Steps between two checkpoints.  [default: a tenth of the run]"
)
@click.option("--resume/--no-resume", default=True, show_default=True, help="Resume from the run's last checkpoint.")
@click.option("--gradient-checkpointing", is_flag=True, help="Compute activations twice to save memory.")
@click.option("--compile", "compile_model", is_flag=True, help="Use torch.compile.")
@click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: torch's choice]")
@click.option(
    "--workers", type=int, metavar="N", help="Processes that make batches.  [default: 2 beside an accelerator]"
)
@click.option(
    "--ddp-timeout", type=int, default=1800, show_default=True, metavar="SECONDS",
    help="Under torchrun: end when the other processes are silent for so long.",
)  # fmt: skip
@click.option(
    "--report-to", multiple=True, metavar="NAME",
    help="Also log to tensorboard, wandb, swanlab or mlflow, may be repeated.  [default: none]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print parameters, memory, FLOPs, steps and time, and leave.")
@click.option("--device-rate", metavar="FLOPS", help="For --dry-run: FLOP/s of all devices together, such as 150T.")
@click.option("--list-models", is_flag=True, help="Print the presets and leave.")
@json_option
@workspace_option()
def train(
    datasets: tuple[str, ...], compile_model: bool, list_models: bool, dry_run: bool, device_rate: str | None,
    report_to: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any,
) -> None:  # fmt: skip
    """Train a GPT on rows; tune one for chat, tasks or rankings.

    Prints parameters, tokens, steps and an estimate of the time before it starts. An interrupted run resumes from
    its last checkpoint when the same command is run again. Losses and bits per character on each dataset's
    validation split are in models/RUN/metrics.jsonl, as a picture in curves.png; the model of the best
    evaluation is in models/RUN/best/.

    \b
    Examples:
      corpus train --list-models
      corpus train --model tiny --max-steps 200
      corpus train --model llama-small
      corpus train --model ~/Qwen3-0.6B/config.json --dry-run
      corpus train --dataset wiki2019zh=0.7 --dataset baike2018qa=0.3 --model gpt2-small
      corpus train --rows s3://bucket/workspace --model gpt2-small --cache-bytes 200G
      corpus train --model gpt3-xl --dry-run --device-rate 400T
      corpus train --objective sft --dataset baike2018qa --init RUN
      corpus train --model tiny --eval-benchmark zhoblimp --eval-benchmark-data zhoblimp.jsonl
      corpus train --objective task --task ocnli --data ocnli.jsonl --init RUN
      corpus train --objective reward --dataset webtext2019zh --init TUNED_RUN
      corpus train --objective dpo --dataset webtext2019zh --init TUNED_RUN
      corpus train --objective ppo --dataset webtext2019zh --init TUNED_RUN --reward RM
      torchrun --nproc-per-node 8 -m -- corpus.pipeline.cli train --model gpt2-xl
    """
    if list_models:
        summaries.presets(as_json=as_json)
        return
    from corpus.train.config import TrainConfig
    from corpus.train.model.choices import rank

    workspace = workspace_of(workspace_dir)
    init, path = settings["init"], _architecture(settings["model"])
    if init is None and settings["objective"] in {"task", "reward"}:
        raise click.UsageError(
            f"--objective {settings['objective']} needs --init RUN, or --init none for random weights"
        )
    if init == Path("none"):
        init = settings["init"] = None
    if path:
        settings |= {"model": "", "architecture": path}
    trackers = [name.strip() for text in report_to for name in text.split(",")]
    with _silent_unless_first(rank()):
        if init is not None:
            settings["init"] = model_folder(workspace, str(init), "--init")
        if settings["reward"] is not None:
            settings["reward"] = model_folder(workspace, str(settings["reward"]), "--reward")
        config = config_of(
            TrainConfig, datasets=datasets, compile=compile_model,
            report_to=tuple(dict.fromkeys(name for name in trackers if name != "none")), **settings,
        )  # fmt: skip
        _check_datasets(config, workspace.datasets())
        rate = _rate(device_rate)
        if rank() == 0 and dry_run:
            _dry_run(config, workspace, rate, as_json=as_json)
        elif not dry_run:
            _train(config, workspace, is_first=rank() == 0, as_json=as_json)


def _check_datasets(config: TrainConfig, known: Sequence[str]) -> None:
    """Refuse a dataset that is not known; with `--rows` others may be packed there."""
    packed: Iterable[str] = () if config.rows else config.mixture
    for flag, names in {"--dataset": packed, "--ptx-dataset": config.ptx_datasets}.items():
        for name in names:
            if name not in known:
                raise click.UsageError(f"{flag} {name}: must be one of {', '.join(known)}")


def _architecture(model: str) -> Path | None:
    """The file or folder that `--model` names where it names no preset; None where there is nothing of this name."""
    from corpus.train.presets import PRESETS

    if model and model not in PRESETS:
        with contextlib.suppress(OSError, RuntimeError):  # a name too long, or `~` of an unknown user
            path = Path(model).expanduser()
            return path if path.exists() else None
    return None


def _dry_run(config: TrainConfig, workspace: Workspace, rate: float | None, *, as_json: bool) -> None:
    progress = console.Console()
    progress.say("loading torch and transformers ...")
    from corpus.train.run import dry_run

    forecast = dry_run.run(config, workspace, rate=rate, progress=progress)
    if as_json:
        console.data(asdict(forecast))
    else:
        console.table(("what", "how much"), forecast.lines())


def _train(config: TrainConfig, workspace: Workspace, *, is_first: bool, as_json: bool) -> None:
    """Train, as one of the processes that torchrun started or alone; the first process holds the workspace."""
    progress = console.Console() if is_first else SILENT
    progress.say("loading torch and transformers ...")
    from corpus.train.run import stage

    if is_first:
        tell_behind(workspace)
    with workspace.writing("train") if is_first else contextlib.nullcontext():
        report = stage.run(config, workspace, progress=progress)
    if _has_process_group():
        sys.modules["torch.distributed"].destroy_process_group()
    if is_first and as_json:
        summaries.as_json([report])
    elif is_first:
        summaries.train(report)
        console.line(f"next: {in_workspace(_next(config, report), workspace.root)}")


def _next(config: TrainConfig, report: Report) -> str:
    """The command that shows what was learnt."""
    run, chats = report.folder.name, config.objective in {"sft", "dpo"} or report.ledger.config.get("chat")
    if config.objective == "task":
        data = f" --data {typed(str(config.data))}" if config.data else ""
        return f"corpus evaluate --task {typed(config.task)} --model {run}{data}"
    if config.objective == "reward":
        return f"corpus score --model {run} --input answers.jsonl"
    return f"corpus sample --model {run} {'--chat' if chats else '--prompt 你好'}"


@contextlib.contextmanager
def _silent_unless_first(rank: int) -> Iterator[None]:
    """Leave messages to the first process, which meets the same failures before training.

    A failure during training can be one of this process alone, such as a full device, so it is printed; one before
    it only where the first process does not end by itself soon, for torchrun then ends the others.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if rank == 0:
            raise
        raise click.exceptions.Exit(130) from interrupt
    except PeerError as lost:  # all processes of the node lose the others
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise click.exceptions.Exit(1) from lost
        raise
    except (click.UsageError, CorpusError):
        if rank != 0 and not _has_process_group():
            time.sleep(_FIRST_ENDS_S)
        raise


def _has_process_group() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _rate(text: str | None) -> float | None:
    """FLOP/s as people write them: 150T is 150e12."""
    if text is None:
        return None
    units = {"G": 1e9, "T": 1e12, "P": 1e15}
    digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        rate = float(digits) * unit
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise click.UsageError(f"--device-rate must be a number such as 150T or 3.1e14, is {text}")
    return rate
