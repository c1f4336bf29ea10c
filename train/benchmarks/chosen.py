"""A benchmark: a task, the questions that are measured, and those that examples are drawn from.

In: the name of a built-in task or the path of a task file, and its data. Out: a `Benchmark`.
Invariant: examples come from another split than the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline import tasks
from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.manifest.schema import Split
from corpus.pipeline.tasks.schema import Task
from corpus.train.benchmarks.prompts import Question, ask
from corpus.train.evaluation.metrics import spread


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
