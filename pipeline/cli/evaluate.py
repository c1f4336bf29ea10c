"""`corpus evaluate`: a model in, figures out. Heavy modules are imported inside the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import benchmarks, completion
from corpus.pipeline.cli.options import (
    NamedPath,
    config_of,
    dataset_option,
    json_option,
    model_folder,
    nothing_to_resume,
    workspace_of,
    workspace_option,
)
from corpus.pipeline.cli.workspace_url import sending
from corpus.pipeline.humanize import count_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.evaluation.config import Evaluation
    from corpus.train.tasks.config import Measured, TaskEvaluation

_DEFAULT = click.core.ParameterSource.DEFAULT


@click.command()
@click.option(
    "--model", metavar="DIR", shell_complete=completion.models,
    help="A run's name, or a model's folder.  [default: the newest run; with --task the newest of a task]",
)  # fmt: skip
@dataset_option("all that have documents of the split")
@click.option(
    "--split", type=click.Choice(["validation", "test", "train"]), default=None,
    help="Which documents or items.  [default: validation; with --task and --benchmark test]",
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
@click.option(
    "--task", metavar="NAME|FILE", shell_complete=completion.tasks,
    help="Measure a model that was fine-tuned on this task, on the task's items.",
)  # fmt: skip
@click.option(
    "--predictions", type=NamedPath(dir_okay=False), metavar="FILE",
    help="With --task: write a line of JSON for each item.",
)  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@benchmarks.benchmark_options
@json_option
@workspace_option()
def evaluate(
    model: str | None, datasets: tuple[str, ...], task: str | None, benchmark_names: tuple[str, ...], as_json: bool,
    workspace_dir: Path, **settings: Any,
) -> None:  # fmt: skip
    """Measure a model on documents, on a task, or by prompts.

    On documents that it was not trained on: loss, perplexity, bits per character and per byte on each dataset's
    validation split, for any folder that AutoModelForCausalLM and AutoTokenizer open. Models with different
    tokenizers are compared by bits per character or byte; loss and perplexity are a token's, so they compare only
    models that share a tokenizer. A document longer than the model's context is cut into windows, and the first
    token of each later one is not predicted: give models of different contexts the same --context.

    With --task a run of `corpus train --objective task`: accuracy, macro-F1 and MCC on the test items, beside what
    needs no model (the floors), by group, and with and without the items that stand in the training items or in
    the documents of the model that it started from.

    With --benchmark the model chooses among answers by their likelihood, through lm-evaluation-harness (the extra
    `eval`): zhoblimp, c3, chid, xcopa_zh, cmmlu, ocnli, chnsenticorp, tnews, gaokao and others that `corpus tasks`
    lists, each with its data given by --data. Accuracy stands beside that of guessing and of always the most
    frequent label; --shots puts examples before an item, in several draws; --calibrate and --pmi correct for answers
    that are likely whatever the item says. `translation` translates documents of a translation dataset, measured by
    BLEU and chrF. Figures, prompts and log-likelihoods are left in --output.

    \b
    Examples:
      corpus evaluate
      corpus evaluate --task ocnli --model RUN --data ocnli.jsonl --predictions out.jsonl
      corpus evaluate --model ~/models/qwen --dataset baike2018qa --documents 500
      corpus evaluate --model gpt2-small-3f9a1c --split test --stride 512 --json
      corpus evaluate --benchmark zhoblimp --data zhoblimp.jsonl.xz
      corpus evaluate --benchmark eprstmt --data eprstmt.jsonl --shots 0 --shots 4 --calibrate --pmi
      corpus evaluate --benchmark translation --shots 0 --shots 4 --limit 200
    """
    workspace = workspace_of(workspace_dir)
    _check_flags(click.get_current_context(), task=task is not None, benchmark=bool(benchmark_names))
    if benchmark_names:
        with nothing_to_resume():
            folder = model_folder(workspace, model, of_task=False)
            with sending(workspace_dir, "benchmarks"):
                benchmarks.run(workspace, folder, benchmark_names, settings, datasets=datasets, as_json=as_json)
        return
    from corpus.train.evaluation.config import EvaluateConfig

    if task is not None:
        _evaluate_task(workspace, model, as_json, task=task, settings=settings)
        return
    names = ("split", "documents", "context", "stride", "batch_size", "precision", "device")
    own = {name: settings[name] for name in names} | {"split": settings["split"] or "validation"}
    folder = model_folder(workspace, model, of_task=False)
    config = config_of(EvaluateConfig, model=folder, datasets=datasets, **own)
    console.Console().say(f"loading {config.model} ...")
    with nothing_to_resume():
        from corpus.train.evaluation import stage

        evaluation = stage.run(config, workspace, progress=console.Console())
    if as_json:
        console.data(evaluation.to_dict())
    else:
        _evaluated(evaluation)


def _check_flags(context: click.Context, *, task: bool, benchmark: bool) -> None:
    """Refuse flags that do not go with the way in which the model is measured."""
    if task and benchmark:
        raise click.UsageError("--task and --benchmark must not both be given")
    way = "--task" if task else "--benchmark" if benchmark else ""
    ways: dict[str, tuple[str, ...]] = dict.fromkeys(benchmarks.OWN, ("--benchmark",))
    ways |= {"documents": ("",), "stride": ("",), "datasets": ("", "--benchmark"), "context": ("", "--benchmark")}
    ways |= {"predictions": ("--task",), "data": ("--task", "--benchmark")}
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ways and way not in ways[name] and context.get_parameter_source(name) is not _DEFAULT:
            flag, needed = parameter.opts[0], " or ".join(filter(None, ways[name]))
            raise click.UsageError(f"{flag} must not stand with {way}" if way else f"{flag} must stand with {needed}")


def _evaluate_task(
    workspace: Workspace, model: str | None, as_json: bool, *, task: str, settings: Mapping[str, Any]
) -> None:
    """Measure a task model."""
    from corpus.train.tasks.config import TaskEvaluateConfig

    if len(settings["data"]) > 1:
        raise click.UsageError("--data must be given once with --task")
    own = {name: settings[name] for name in ("predictions", "batch_size", "precision", "device")}
    own |= {"data": next(iter(settings["data"]), None), "split": settings["split"] or "test"}
    config = config_of(TaskEvaluateConfig, task=task, model=model_folder(workspace, model, of_task=True), **own)
    console.Console().say(f"loading {config.model} ...")
    with nothing_to_resume():
        from corpus.train.tasks import evaluation

        found = evaluation.run(config, workspace, progress=console.Console())
    if as_json:
        console.data(found.to_dict())
    else:
        _task_evaluated(found)


def _task_evaluated(found: TaskEvaluation) -> None:
    """The figures of all items and of groups, beside the floors."""
    names = list(found.all.figures)

    def row(name: str, each: Measured) -> tuple[object, ...]:
        return name, each.items or "-", *(f"{each.figures[figure]:.4f}" if each.items else "-" for figure in names)

    rows = [row("model", found.all), *(row(f"floor: {name}", each) for name, each in found.floors.items())]
    for leak in found.leaks:
        if leak.items:
            rows += [row(f"in {leak.where}", leak.inside), row(f"not in {leak.where}", leak.outside)]
    rows += [row(name, each) for name, each in found.groups.items()]
    console.table((f"{found.task}, {found.split}", "items", *(name.replace("_", " ") for name in names)), rows)
    low, high = found.interval
    console.line(f"{found.metric}: {found.all.figures[found.metric]:.4f}, 95 % interval {low:.4f} to {high:.4f}")
    console.line(f"model: {found.model} ({found.precision}, loss {found.loss:.4f}, {found.seconds:.1f} s)")
    for note in found.notes:
        console.line(f"note: {note}")


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
