"""What `corpus evaluate` can be asked for, and what it answers. Imports neither torch nor transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.train.config import DEVICES, PRECISIONS

if TYPE_CHECKING:
    from corpus.train.evaluation.metrics import Score

SPLITS = ("validation", "test", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which model is measured on which documents, and how they are laid before it."""

    model: Path
    """Folder that `AutoModelForCausalLM` and `AutoTokenizer` open."""
    datasets: tuple[str, ...] = ()
    """Datasets to measure on; all that have documents of the split when empty."""
    split: str = "validation"
    """`validation`, `test` or `train`."""
    documents: int = 0
    """Most documents of a dataset, spread evenly over the split; 0 for all."""
    context: int | None = None
    """Tokens of a window; the most that the model takes when None."""
    stride: int | None = None
    """Tokens from the beginning of one window to that of the next; the window, so that none overlap, when None."""
    batch_size: int | None = None
    """Windows of a pass; what fits the memory when None. It changes nothing but rounding."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        for name, known in (("split", SPLITS), ("precision", PRECISIONS), ("device", DEVICES)):
            if getattr(self, name) not in known:
                raise ValueError(f"--{name} must be one of {', '.join(known)}, is {getattr(self, name)}")
        for name, least in (("documents", 0), ("context", 2), ("stride", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, is {value}")
        if self.context and self.stride and self.stride > self.context:
            raise ValueError(f"--stride must be at most --context, {self.context:,}, is {self.stride:,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A model on one dataset."""

    dataset: str
    documents: int
    windows: int
    score: Score
    """Sums over all predicted tokens, and the four figures."""
    unknown: int
    """Tokens of the documents that stand for what the tokenizer does not know: cheap to predict, whatever they hide."""
    unseen: int
    """Characters of the documents that are in no token; they are not counted anywhere."""

    def __add__(self, other: Measured) -> Measured:
        """Both together, under the first one's name."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("documents", "windows", "score")}
        return Measured(
            dataset=self.dataset, unknown=self.unknown + other.unknown, unseen=self.unseen + other.unseen, **sums
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a figure without anything to divide by is None."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.score.figures().items()}
        return {
            "dataset": self.dataset,
            "documents": self.documents,
            "windows": self.windows,
            "tokens": self.score.tokens,
            "characters": self.score.characters,
            "bytes": self.score.bytes,
            "nats": self.score.nats,
            "unknown_tokens": self.unknown,
            "unseen_characters": self.unseen,
            **figures,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `corpus.train.evaluation.stage.run` returns."""

    model: Path
    split: str
    context: int
    stride: int
    precision: str
    device: str
    """In words."""
    results: Sequence[Measured]
    """One for each dataset, in the order of all datasets."""
    seconds: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the figures."""
        return tuple(
            f"{result.dataset}: the tokenizer does not keep the whole text: {result.unknown:,} unknown tokens, "
            f"{result.unseen:,} characters in no token"
            for result in self.results
            if result.unknown or result.unseen
        )

    def total(self) -> Measured:
        """All datasets together: sums, not a mean of means."""
        first, *others = self.results
        whole = Measured(
            dataset="all", documents=first.documents, windows=first.windows, score=first.score,
            unknown=first.unknown, unseen=first.unseen,
        )  # fmt: skip
        for other in others:
            whole += other
        return whole

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        same = {name: getattr(self, name) for name in ("split", "context", "stride", "precision", "device", "seconds")}
        return {
            "model": str(self.model),
            **same,
            "datasets": [result.to_dict() for result in self.results],
            "all": self.total().to_dict(),
            "notes": list(self.notes),
        }
