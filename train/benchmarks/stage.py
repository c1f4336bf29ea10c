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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline import tasks
from corpus.pipeline.errors import BenchmarkError, DeviceError, ModelError
from corpus.pipeline.manifest.schema import Split
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tasks.schema import Task
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.benchmarks import harness, results, scores, shots
from corpus.train.benchmarks.config import HUB, BenchmarkConfig, BenchmarkResult, Run, folder_of
from corpus.train.benchmarks.prompts import Question, ask
from corpus.train.evaluation.metrics import spread
from corpus.train.evaluation.tokens import DocumentTokenizer
from corpus.train.model import device as devices
from corpus.train.model import load
from corpus.train.model.device import Device

_LOGIT_BYTES = 12
"""Of a token's scores: three copies in single precision."""
_CPU_ROWS, _GPU_ROWS = 16, 64
_REMARKS = {
    "cut_contexts": "were longer than the context and lost their beginning",
    "cut_answers": "had an answer longer than the context, cut at its end",
    "seams": "were encoded apart, because a token would span prompt and answer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A task with its questions."""

    name: str
    task: Task
    split: Split
    questions: Sequence[Question]
    """Those that are measured."""
    pool: Sequence[Question]
    """Those that examples are drawn from."""
    pool_split: Split | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A model on its device with its tokenizer."""

    model: Any
    tokenizer: DocumentTokenizer
    device: Device
    context: int
    batch_size: int


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
    opened = _open(config)
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


def find(name: str, data: Path | None, *, split: str = "", limit: int = 0, with_pool: bool = False) -> Benchmark:
    """The questions of a built-in task or a task file.

    Raises:
        TaskError: there is no such task, or its items cannot be read.
        BenchmarkError: it has no prompt, or no items of the split.

    """
    task = tasks.load(name)
    measured = _split_of(task, split)
    questions = [ask(task, item) for item in tasks.read(task, data, measured)]
    questions = [questions[number] for number in spread(len(questions), limit)]
    source = _pool_split(task, measured) if with_pool and task.kind != "minimal_pairs" else None
    pool = [ask(task, item) for item in tasks.read(task, data, source)] if source else []
    return Benchmark(name=task.name, task=task, split=measured, questions=questions, pool=pool, pool_split=source)


def _find(config: BenchmarkConfig, number: int) -> Benchmark | str:
    """A task with its questions, or the name of a task of the harness's own."""
    name = config.benchmarks[number]
    if harness.is_hub_task(name):
        return name
    return find(name, config.data_of(number), split=config.split, limit=config.limit, with_pool=any(config.shots))


def _split_of(task: Task, asked: str) -> Split:
    there = task.source.splits
    wanted: tuple[Split, ...] = tuple(each for each in there if each == asked) if asked else ("test", "validation")
    for split in wanted:
        if split in there:
            return split
    raise BenchmarkError(
        f"the task {task.name} has no {asked or 'test'} split", hint=f"Give --split {' or '.join(there)}."
    )


def _pool_split(task: Task, measured: Split) -> Split | None:
    order: tuple[Split, ...] = ("train", "validation")
    return next((split for split in order if split in task.source.splits and split != measured), None)


def _open(config: BenchmarkConfig) -> Opened:
    device = devices.choose(config.device, config.precision)
    with devices.memory_errors(_out_of_memory()):
        model = load.load_any(config.model, precision=device.precision)
        tokenizer = DocumentTokenizer(config.model, rows=model.get_input_embeddings().num_embeddings)
        most = load.context_of(model)
        context = min(config.context or most or 0, most or config.context or 0)
        if context < 2:
            raise ModelError(
                f"{config.model} does not say how many tokens it takes at once", hint="Say it with --context."
            )
        model.config.use_cache = False  # each text is read once
        model = model.to(device.kind)
    return Opened(
        model=model, tokenizer=tokenizer, device=device, context=context,
        batch_size=config.batch_size or _rows(model, device, context),
    )  # fmt: skip


def _rows(model: Any, device: Device, context: int) -> int:
    """Texts of a pass whose scores fit the memory."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    fitting = (device.memory - weights) // (context * model.config.get_text_config().vocab_size * _LOGIT_BYTES)
    return int(max(1, min(fitting, _CPU_ROWS if device.kind == "cpu" else _GPU_ROWS)))


def _out_of_memory() -> DeviceError:
    return DeviceError(
        "the device has not enough memory for this model and its texts", hint="Give --batch-size 1, or --device cpu."
    )


def _measure(
    config: BenchmarkConfig, benchmark: Benchmark, opened: Opened, folder: Path, about: dict[str, Any],
    progress: Progress,
) -> BenchmarkResult:  # fmt: skip
    watch = Stopwatch()
    probes = harness.probes(config)
    runs, samples, notes = [], [], list[str]()
    labels = 0 if benchmark.task.kind in {"choice", "minimal_pairs"} else len(benchmark.task.labels)
    plans = list(_plans(config, benchmark, notes))
    with devices.memory_errors(_out_of_memory()):
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
                    groups=scores.by_group(answers.scored, labels=labels), counts=asdict(lm.take()),
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
    with devices.memory_errors(_out_of_memory()):
        lm = harness.lm(opened, progress)
        for many in dict.fromkeys(config.shots):
            for number in range(config.orders if many else 1):
                with progress.bar(f"{name}, {many} shots", None, "texts"):
                    figures, groups, items = harness.evaluate_hub_task(
                        lm, name, shots=many, seed=config.seed + number, limit=config.limit
                    )
                runs.append(Run(shots=many, draw=number, figures=figures, groups=groups, counts=asdict(lm.take())))
    plain = Path(name.removeprefix(HUB)).stem
    result = BenchmarkResult(
        benchmark=plain, items=items, chance=None, majority=None, runs=tuple(runs), seconds=watch.seconds,
        folder=folder / plain, notes=tuple(_notes(runs)),
    )  # fmt: skip
    results.write(result, config, None, about, [], "")
    return result
