"""Settings and result of `corpus evaluate --task`. Imports no torch and no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.manifest.schema import SPLITS, Split
from corpus.train.model import choices


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvaluateConfig:
    """Which task model is measured on which items."""

    model: Path
    """Folder that `corpus train --objective task` wrote."""
    task: str
    """Name of a built-in task, or path of a task file."""
    data: Path | None = None
    """File or folder of the items, where the task does not bring them."""
    split: Split = "test"
    """`test`, `validation` or `train`."""
    predictions: Path | None = None
    """File for a line of JSON for each item."""
    batch_size: int | None = None
    """Items of a pass; what keeps the device busy when None. It changes only rounding."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if not self.task:
            raise ValueError("--task must be the name of a task, or the path of a task file")
        if self.split not in SPLITS:
            raise ValueError(f"--split must be one of {', '.join(SPLITS)}, is {self.split}")
        choices.check(device=self.device, precision=self.precision)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, is {self.batch_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Figures of some items."""

    items: int
    figures: Mapping[str, float]
    """Accuracy, macro-F1 and MCC; of choices the accuracy alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """Items that stand elsewhere, and the figures with and without them."""

    where: str
    """`train`, or the datasets of the pre-training documents."""
    items: Sequence[str]
    """Their ids."""
    inside: Measured
    outside: Measured


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvaluation:
    """What `corpus.train.tasks.evaluation.run` returns."""

    model: Path
    task: str
    split: str
    metric: str
    """The task's main figure."""
    loss: float
    """Nats an item."""
    all: Measured
    interval: tuple[float, float]
    """Of the main figure, 95 %, by resampling the items."""
    groups: Mapping[str, Measured]
    """By group of the items, where they have one."""
    floors: Mapping[str, Measured]
    """Answers without a model, by what they do."""
    lacking: str
    """Why the linear floor is not there; empty where it is."""
    leaks: Sequence[Leak]
    unchecked: str
    """Why the pre-training documents were not searched; empty where they were."""
    cut: int
    """Items longer than the context."""
    confusion: Sequence[Sequence[int]]
    """Items by true label (rows) and predicted label."""
    labels: Sequence[str]
    precision: str
    device: str
    seconds: float

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the figures for the user."""
        found = [
            f"{len(leak.items):,} of {self.all.items:,} items stand in {leak.where}: without them {self.metric} is "
            f"{leak.outside.figures.get(self.metric, 0.0):.4f} ({leak.outside.items:,} items)"
            for leak in self.leaks
            if leak.items
        ]
        if self.unchecked:
            found.append(f"items were not searched in pre-training documents: {self.unchecked}")
        if self.lacking:
            found.append(self.lacking)
        if self.cut:
            found.append(f"{self.cut:,} of {self.all.items:,} items are longer than the context and were cut")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"model": str(self.model), "notes": list(self.notes)}
