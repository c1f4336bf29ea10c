"""Configuration of the decontaminate stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.decontaminate.matching import MIN_SHARE


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminateConfig:
    """Which evaluation items are searched for, in which datasets, and what is removed."""

    against: tuple[Path, ...] = ()
    """Evaluation files to add to those in the workspace."""
    forget: tuple[str, ...] = ()
    """Names of evaluation files to take out of the workspace first."""
    fields: tuple[str, ...] = ()
    """Dotted names of the fields of items to search for; all when empty, and in a file that has none of them."""
    datasets: tuple[str, ...] = ()
    """Datasets to search; all that have documents when empty."""
    cut: bool = False
    """Whether only the shared spans of prose are removed; questions and translations are removed whole."""
    min_share: float = MIN_SHARE
    """Minimum share of an item's text in a document; a long span counts also below it."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        if not 0 < self.min_share <= 1:
            raise ValueError(f"--min-share must be above 0 and at most 1, is {self.min_share}")
        if not all(self.fields):
            raise ValueError("--field must not be empty")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")
