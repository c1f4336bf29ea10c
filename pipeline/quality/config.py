"""Configuration of the quality stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityConfig:
    """What good text is, which datasets are scored by it, and how many documents stay."""

    positive: tuple[str, ...] = ()
    """Datasets and files of good text; those of the last run when empty and there is no `model`."""
    fields: tuple[str, ...] = ()
    """Dotted names of the fields that are the text of an item in a file; all when empty."""
    model: Path | None = None
    """A trained model to score with: `model.safetensors` of another workspace."""
    datasets: tuple[str, ...] = ()
    """Datasets that are scored; all that have documents when empty. Of positive ones nothing is left out."""
    alpha: float | None = None
    """Shape of the Pareto distribution: the larger, the fewer documents of a low score stay. None stands for 9.

    Without `positive` and `model` what is not given, the datasets too, is as in the last run.
    """
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        if self.positive and self.model:
            raise ValueError("--positive trains a model and --model takes a trained one: give one of the two")
        if not all(self.positive):
            raise ValueError("--positive must not be empty")
        if self.fields and not self.positive:
            raise ValueError("--field goes with --positive FILE")
        if not all(self.fields):
            raise ValueError("--field must not be empty")
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"--alpha must be above 0, is {self.alpha}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")
