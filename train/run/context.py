"""What one process of a run works with, gathered once and handed to the parts that train, measure and speak."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corpus.pipeline.progress import SILENT, Progress
from corpus.train.config import TrainConfig
from corpus.train.data.sampler import Order
from corpus.train.model.device import Device
from corpus.train.run.board import Board
from corpus.train.run.folder import RunFolder
from corpus.train.run.plan import Plan
from corpus.train.run.samples import Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A run as one process sees it."""

    config: TrainConfig
    plan: Plan
    device: Device
    folder: RunFolder
    order: Order
    tokenizer: Path
    """Folder of the workspace's tokenizer."""
    sizes: np.ndarray
    """[vocabulary, 2] what `evaluate.token_sizes` gives."""
    rows_per_pass: int
    """Most rows of a forward pass."""
    progress: Progress = SILENT
    board: Board | None = None
    """TensorBoard, in the process that writes."""
    samples: Samples | None = None
    """What is continued at each evaluation."""
    means: list[float] = field(default_factory=list)
    """Mean bits per character of each evaluation so far, those before a resumed run's checkpoint included."""

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes."""
        return self.device.rank == 0

    @property
    def evaluated_rows(self) -> int:
        """Rows of one evaluation over all datasets."""
        limit = self.config.eval_rows
        return sum(min(len(rows), limit) if limit else len(rows) for rows in self.plan.validation.values())
