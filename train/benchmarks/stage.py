"""`corpus evaluate --benchmark`: a model on tasks that it was not trained on, through lm-evaluation-harness.

In: a model's folder, tasks and their items. Out: for each task accuracies by number of examples, and a folder with
`results.json`, `samples.jsonl` and, where several numbers of examples were asked for, `few_shot.png`.
Invariants: built-in tasks and task files ask no hub and run no code of others; the same command on the same machine
gives the same files; examples come from another split than the items.
Cost: one pass of the model for each different pair of context and answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import BenchmarkError, ModelError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.benchmarks import harness, results, scores, shots
from corpus.train.benchmarks.chosen import Benchmark, find
from corpus.train.benchmarks.config import HUB, BenchmarkConfig, BenchmarkResult, Run, folder_of
from corpus.train.benchmarks.opened import Opened, open_model, out_of_memory
from corpus.train.benchmarks.prompts import Question
from corpus.train.model import device as devices
from corpus.train.model import load

_REMARKS = {
    "cut_contexts": "were longer than the context and lost their beginning",
    "cut_answers": "had an answer longer than the context, cut at its end",
    "seams": "were encoded apart, because a token would span prompt and answer",
}


def run(config: BenchmarkConfig, workspace: Workspace, *, progress: Progress = SILENT) -> list[BenchmarkResult]:
    """Measure a model on each benchmark.

    Raises:
        BenchmarkError: the harness is not installed, a task has no prompt, no items or too few examples, or the hub
            that a task of the harness's own needs cannot be reached.
        TaskError: a task file or its data cannot be read.
        ModelError, TokenizerError, DeviceError: as `corpus.train.evaluation.stage.run`.

    """
    harness.check()
    load.files(config.model, "--model")  # refused before items are read
    chosen = [_find(config, number) for number in range(len(config.benchmarks))]
    opened = open_model(config)
    progress.say(f"{opened.device.describe()}, lm-evaluation-harness {harness.version()}")
    folder = folder_of(workspace.root, config.model, config.output)
    about = {"model": results.model_files(config.model, workspace), "precision": opened.device.precision}
    found = []
    for benchmark in chosen:
        if isinstance(benchmark, Benchmark):
            found.append(_measure(config, benchmark, opened, folder, about, progress))
        else:
            found.append(_measure_hub_task(config, benchmark, opened, folder, about, progress))
    return found


def _find(config: BenchmarkConfig, number: int) -> Benchmark | str:
    """A task with its questions, or the name of a task of the harness's own."""
    name = config.benchmarks[number]
    if harness.is_hub_task(name):
        return name
    return find(name, config.data_of(number), split=config.split, limit=config.limit, with_pool=any(config.shots))


def _measure(
    config: BenchmarkConfig, benchmark: Benchmark, opened: Opened, folder: Path, about: dict[str, Any],
    progress: Progress,
) -> BenchmarkResult:  # fmt: skip
    watch = Stopwatch()
    probes = harness.probes(config)
    runs, samples, notes = list[Run](), list[dict[str, Any]](), list[str]()
    labels = 0 if benchmark.task.kind in {"choice", "minimal_pairs"} else len(benchmark.task.labels)
    plans = list(_plans(config, benchmark, notes))
    with devices.memory_errors(out_of_memory()):
        lm = harness.lm(opened, progress)
        for many, number, examples in plans:
            with progress.bar(f"{benchmark.name}, {many} shots", None, "texts"):
                answers = harness.evaluate(
                    lm, f"{benchmark.name}-{many}-{number}", benchmark.questions, examples=examples, shots=many,
                    probes=probes,
                )  # fmt: skip
            _check_finite(config, benchmark, answers.scored)
            runs.append(
                Run(
                    shots=many, draw=number, figures=scores.figures(answers.scored, labels=labels),
                    groups=scores.by_group(answers.scored, labels=labels), counts=asdict(lm.pairs.take()),
                    examples={group: [each.id for each in own] for group, own in examples.items()} if many else {},
                )
            )  # fmt: skip
            harness.check_agreement(runs[-1].figures, answers.harness)
            samples += results.sample_lines(benchmark.questions, answers, shots=many, draw=number)
    result = BenchmarkResult(
        benchmark=benchmark.name, items=len(benchmark.questions), chance=scores.chance(answers.scored),
        majority=scores.majority(answers.scored) if labels else None, runs=tuple(runs), seconds=watch.seconds,
        folder=folder / benchmark.name, notes=(*notes, *_notes(runs)),
    )  # fmt: skip
    results.write(result, config, benchmark, about, samples, answers.prompt)
    return result


def _plans(
    config: BenchmarkConfig, benchmark: Benchmark, notes: list[str]
) -> Iterator[tuple[int, int, dict[str, list[Question]]]]:
    """Number of examples, number of the draw, and the examples."""
    wanted = dict.fromkeys(config.shots)
    if benchmark.task.kind == "minimal_pairs":
        if any(wanted):
            notes.append(f"{benchmark.name}: sentences are scored without examples, --shots does not apply")
        wanted = {0: None}
    groups = {each.group for each in benchmark.questions} if benchmark.task.kind == "choice" else set[str]()
    for many in wanted:
        if many and not benchmark.pool:
            raise BenchmarkError(
                f"{benchmark.name} has no split to draw examples from beside {benchmark.split}", hint="Give --shots 0."
            )
        for number in range(config.orders if many else 1):
            yield many, number, shots.draw(
                benchmark.pool, name=benchmark.name, seed=config.seed, number=number, shots=many,
                groups=sorted(groups),
            )  # fmt: skip


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    """What happened to texts, by number of examples."""
    for many in dict.fromkeys(run.shots for run in runs):
        counts = [run.counts for run in runs if run.shots == many]
        total = {name: sum(each[name] for each in counts) for name in counts[0]}
        where = f"{many} shots: " if len({run.shots for run in runs}) > 1 else ""
        for name, what in _REMARKS.items():
            if total[name]:
                yield f"{where}{total[name]:,} of {total['scored']:,} texts {what}"


def _check_finite(config: BenchmarkConfig, benchmark: Benchmark, scored: Sequence[scores.Scored]) -> None:
    if not all(math.isfinite(value) for each in scored for value in each.logs_k):
        raise ModelError(
            f"{config.model}: a log-likelihood on {benchmark.name} is no number",
            hint="Try --precision fp32; else its weights may be damaged.",
        )


def _measure_hub_task(
    config: BenchmarkConfig, name: str, opened: Opened, folder: Path, about: dict[str, Any], progress: Progress
) -> BenchmarkResult:
    """A task of the harness's own, by its own prompts and figures."""
    watch = Stopwatch()
    runs, items = [], 0
    with devices.memory_errors(out_of_memory()):
        lm = harness.lm(opened, progress)
        for many in dict.fromkeys(config.shots):
            for number in range(config.orders if many else 1):
                with progress.bar(f"{name}, {many} shots", None, "texts"):
                    figures, groups, items = harness.evaluate_hub_task(
                        lm, name, shots=many, seed=config.seed + number, limit=config.limit
                    )
                runs.append(
                    Run(shots=many, draw=number, figures=figures, groups=groups, counts=asdict(lm.pairs.take()))
                )
    plain = Path(name.removeprefix(HUB)).stem
    result = BenchmarkResult(
        benchmark=plain, items=items, chance=None, majority=None, runs=tuple(runs), seconds=watch.seconds,
        folder=folder / plain, notes=tuple(_notes(runs)),
    )  # fmt: skip
    results.write(result, config, None, about, [], "")
    return result
