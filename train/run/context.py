"""The objects that one process of a run shares between training, evaluation and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import TrainerCallback

from corpus.pipeline.progress import Progress
from corpus.train.config import TrainConfig
from corpus.train.data.sampler import Order
from corpus.train.model.device import Device
from corpus.train.run.folder import RunFolder
from corpus.train.run.plan import RunPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """A run as one process sees it."""

    config: TrainConfig
    plan: RunPlan
    device: Device
    folder: RunFolder
    order: Order
    progress: Progress
    rows_per_pass: int
    """Most rows of a forward pass."""
    fixed_bytes: int
    """Estimated memory of a training step whatever its rows."""
    row_bytes: int
    """Estimated memory that each row of a pass adds."""
    trackers: Sequence[TrainerCallback] = ()
    """Callbacks of `transformers` that report to experiment trackers."""
    decided: list[float] = field(default_factory=list)
    """The deciding figure of each evaluation so far, those before a resumed run's checkpoint included."""

    @property
    def passes(self) -> int:
        """Passes of this process in a step, each over other rows."""
        return -(-self.plan.steps.batch_size // (self.rows_per_pass * self.device.world))

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.device.rank == 0
