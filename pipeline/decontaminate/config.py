"""What is kept out, and of which datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.decontaminate import ngram_index


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminateConfig:
    """What is kept out, and of which datasets."""

    against: tuple[Path, ...] = ()
    """Evaluation files, which join those that the workspace has."""
    fields: tuple[str, ...] = ()
    """Dotted names of the fields of items that count; all when empty."""
    datasets: tuple[str, ...] = ()
    """Datasets to look through; all that have documents when empty."""
    cut: bool = False
    """Whether prose loses only what it shares; questions and translations go whole all the same."""
    min_share: float = ngram_index.MIN_SHARE
    """Least share of an item's text that a document must hold; a long span counts below it."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not 0 < self.min_share <= 1:
            raise ValueError(f"--min-share must be above 0 and at most 1, is {self.min_share}")
        if not all(self.fields):
            raise ValueError("--field must not be empty")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")
