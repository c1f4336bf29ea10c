"""`corpus evaluate --benchmark`: its options, the call, and the table. Heavy modules are imported inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import config_of
from corpus.pipeline.terminal import console
from corpus.train.benchmarks.config import folder_of, interval

if TYPE_CHECKING:
    from corpus.generate.translation import Translation
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.benchmarks.config import BenchmarkResult

F = TypeVar("F", bound=Callable[..., Any])
TRANSLATION = "translation"
OWN = ("shots", "orders", "limit", "calibrate", "pmi", "seed", "output")
"""Settings that only benchmarks have."""
_TAKEN = (*OWN, "data", "batch_size", "context", "precision", "device")
"""Settings that benchmarks have."""
_COLUMNS = {
    "per_character": "per\nchar", "slln_lp": "SLLN-\nLP", "calibrated": "calib-\nrated", "pmi": "PMI",
    "pmi_domain": "PMI,\ndomain",
}  # fmt: skip


def benchmark_options(command: F) -> F:
    """The options of benchmarks."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--benchmark", "benchmark_names", multiple=True, metavar="NAME", shell_complete=completion.benchmarks,
        help="Ask the model instead, without training: a built-in task, a task file, `translation`, or hf:NAME, a task "
        "of lm-evaluation-harness; may be repeated.",
    ),
    click.option(
        "--data", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
        help="Items of the task or benchmark, a file or a folder; once, or once for each --benchmark.",
    ),
    click.option(
        "--shots", type=int, multiple=True, metavar="N",
        help="Examples before each item, from the training split; may be repeated.  [default: 0]",
    ),
    click.option("--orders", type=int, metavar="N", help="Draws of the examples, each in its own order.  [default: 3]"),
    click.option("--limit", type=int, metavar="N", help="Most items of a benchmark, spread evenly.  [default: all]"),
    click.option("--calibrate", is_flag=True, help="Also divide by the answers' chances after inputs without content."),
    click.option("--pmi", is_flag=True, help="Also divide by the answers' chances without the item."),
    click.option("--seed", type=int, metavar="N", help="Of the draws.  [default: 1]"),
    click.option(
        "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        help="Folder of the results.  [default: benchmarks/MODEL in the workspace]",
    ),
)  # fmt: skip


def run(
    workspace: Workspace, model: Path, names: Sequence[str], settings: Mapping[str, Any], *,
    datasets: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Measure a model on benchmarks and print the table."""
    from corpus.train import benchmarks

    split = settings["split"]
    given = {name: settings[name] for name in _TAKEN if settings[name] not in (None, ())}
    asked = tuple(dict.fromkeys(name for name in names if name != TRANSLATION))
    config = config_of(benchmarks.BenchmarkConfig, model=model, benchmarks=asked, split=split or "", **given)
    if asked and datasets and TRANSLATION not in names:
        raise click.UsageError("--dataset goes with --benchmark translation alone")
    console.Console().say("loading torch, transformers and lm-evaluation-harness ...")
    results = benchmarks.run(config, workspace, progress=console.Console()) if asked else []
    translated = _translate(workspace, model, given, datasets, split) if TRANSLATION in names else None
    folders = [result.folder for result in results]
    if translated:
        folders.append(_keep(translated, folder_of(workspace.root, model, config.output) / TRANSLATION))
    if as_json:
        both = [*(result.to_dict() for result in results), *([translated.to_dict()] if translated else [])]
        console.data({"model": str(model), "benchmarks": both})
        return
    if results:
        _table(results)
    if translated:
        _translation_table(translated)
    for note in (note for result in results for note in result.notes):
        console.line(f"note: {note}")
    for folder in folders:
        console.line(f"results: {folder}")


def _translate(
    workspace: Workspace, model: Path, given: Mapping[str, Any], datasets: Sequence[str], split: str | None
) -> Translation:
    from corpus.generate import translation

    if len(datasets) > 1:
        raise click.UsageError("--benchmark translation takes one --dataset")
    names = {"shots", "orders", "limit", "seed", "batch_size", "device", "precision"}
    config = translation.TranslationConfig(
        model=model, dataset=datasets[0] if datasets else "", split=split or "validation",
        **{name: value for name, value in given.items() if name in names},
    )  # fmt: skip
    return translation.run(config, workspace, progress=console.Console())


def _keep(result: Translation, folder: Path) -> Path:
    """Write the figures and the translations; returns the folder."""
    from corpus.pipeline.workspace.files import disk_errors, write_atomic

    written = result.to_dict()
    timings = {"seconds": written.pop("seconds")}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{json.dumps(line, ensure_ascii=False)}\n" for line in result.samples()]
        write_atomic(folder / "samples.jsonl", "".join(lines).encode())
        for name, value in (("timings", timings), ("results", written)):
            write_atomic(folder / f"{name}.json", f"{json.dumps(value, indent=1, sort_keys=True)}\n".encode())
    return folder


def _table(results: Sequence[BenchmarkResult]) -> None:
    """A line for each benchmark and number of examples."""
    lines = [(result, shots, result.summary(shots)) for result in results for shots in result.shots]
    shown = [name for name in _COLUMNS if any(name in summary for _, _, summary in lines)]
    has_draws = any(len(result.runs) > len(result.shots) for result in results)
    majority = any(result.majority is not None for result in results)
    rows = []
    for result, shots, summary in lines:
        mean, deviation = summary.get("accuracy", (None, 0.0))
        low, high = interval(mean, result.items) if mean is not None else (0.0, 0.0)
        draws = sum(run.shots == shots for run in result.runs)
        rows.append(
            (
                result.benchmark, f"{result.items:,}", shots,
                "-" if mean is None else f"{100 * mean:.1f} ±{50 * (high - low):.1f}",
                *([f"{100 * deviation:.1f}" if draws > 1 else "-"] if has_draws else []),
                *(_percent(summary[name][0] if name in summary else None) for name in shown),
                _percent(result.chance),
                *([_percent(result.majority)] if majority else []),
            )
        )  # fmt: skip
    heads = (
        "benchmark", "items", "shots", "accuracy", *(["draws'\nsd"] if has_draws else []),
        *(_COLUMNS[name] for name in shown), "chance", *(["majo-\nrity"] if majority else []),
    )  # fmt: skip
    console.table(heads, rows)
    for result, _, summary in lines:
        if "accuracy" not in summary:
            console.line(f"{result.benchmark}: {_figures(summary)}")


def _translation_table(result: Translation) -> None:
    rows = [
        (
            result.dataset, f"{len(result.pairs):,}", shots,
            *(_with_deviation(result, shots, name, factor) for name, factor in _FACTORS.items()),
        )
        for shots in result.shots
    ]  # fmt: skip
    console.table(("translation", "documents", "shots", "BLEU", "chrF", "ended"), rows)


_FACTORS = {"bleu": 1, "chrf": 1, "ended": 100}
"""Figures of translations; the last one is a share."""


def _with_deviation(result: Translation, shots: int, name: str, factor: int) -> str:
    mean, deviation = result.summary(shots)[name]
    many = sum(run.shots == shots for run in result.runs) > 1
    return f"{factor * mean:.1f}" + (f" ±{factor * deviation:.1f}" if many else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _figures(summary: Mapping[str, tuple[float, float]]) -> str:
    shown: Iterable[str] = (f"{name} {mean:.4g}" for name, (mean, _) in summary.items())
    return ", ".join(shown)
