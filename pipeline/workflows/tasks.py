"""`corpus demo --tasks`: a pre-trained model is fine-tuned on four small tasks, and asked about them by prompts.

In: a workspace and a model in it. Out: for each task what `corpus evaluate` gives; the runs are in `models/`.
Cost: some ten seconds of a CPU for each task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tasks import DEMOS, load
from corpus.pipeline.workspace.layout import Workspace

if TYPE_CHECKING:
    from corpus.train.benchmarks.config import BenchmarkResult
    from corpus.train.tasks.config import TaskEvaluation

STEPS = 40
"""Most steps on a task: each of its items is read about eight times."""
_BATCH_SIZE, _LEARNING_RATE = 8, 3e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class TasksResult:
    """What `demo_tasks` did."""

    tuned: tuple[TaskEvaluation, ...]
    """Test items of each task, by the model that was fine-tuned on it."""
    asked: tuple[BenchmarkResult, ...]
    """The same tasks and minimal pairs, by prompts to the model as it was; empty without the harness."""
    unasked: str
    """Why no prompts were asked; empty where they were."""


def demo_tasks(
    workspace: Workspace, model: Path, *, max_steps: int = STEPS, progress: Progress = SILENT
) -> TasksResult:
    """Fine-tune a model on the four small tasks that come with the package, and ask it about them by prompts.

    Raises:
        ModelError, TokenizerError: `model` holds no model, or another workspace's.

    """
    from corpus.train.benchmarks import stage as benchmarks  # torch
    from corpus.train.benchmarks.config import BenchmarkConfig
    from corpus.train.config import TrainConfig
    from corpus.train.run import stage as training
    from corpus.train.tasks import evaluation
    from corpus.train.tasks.config import TaskEvaluateConfig

    tuned = []
    for name in DEMOS:
        if not load(name).is_trainable:
            continue
        config = TrainConfig(
            objective="task", task=name, init=model, run=name.replace("_", "-"), max_steps=min(max_steps, STEPS),
            batch_size=_BATCH_SIZE, learning_rate=_LEARNING_RATE,
        )  # fmt: skip
        with workspace.writing("train"):
            report = training.run(config, workspace, progress=progress)
        tuned.append(evaluation.run(TaskEvaluateConfig(model=report.folder, task=name), workspace, progress=progress))
    try:
        asked = benchmarks.run(BenchmarkConfig(model=model, benchmarks=DEMOS), workspace, progress=progress)
    except BenchmarkError as error:
        return TasksResult(tuned=tuple(tuned), asked=(), unasked=f"{error}. {error.hint}")
    return TasksResult(tuned=tuple(tuned), asked=tuple(asked), unasked="")
