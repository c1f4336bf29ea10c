"""Settings and result of `corpus evaluate`. Imports no torch and no transformers."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.train.model import choices

SPLITS = ("validation", "test", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which model is measured on which documents, and how they are cut to windows."""

    model: Path
    """Folder that `AutoModelForCausalLM` and `AutoTokenizer` open."""
    datasets: tuple[str, ...] = ()
    """Datasets to measure on; all that have documents of the split when empty."""
    split: str = "validation"
    """`validation`, `test` or `train`."""
    documents: int = 0
    """Most documents of a dataset, spread evenly over the split; 0 for all."""
    context: int | None = None
    """Tokens of a window; the model's context when None."""
    stride: int | None = None
    """Tokens from the beginning of one window to that of the next; the window, so that none overlap, when None."""
    batch_size: int | None = None
    """Windows of a pass; what fits the memory when None. It changes only rounding."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if self.split not in SPLITS:
            raise ValueError(f"--split must be one of {', '.join(SPLITS)}, is {self.split}")
        choices.check(device=self.device, precision=self.precision)
        for name, least in (("documents", 0), ("context", 2), ("stride", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, is {value}")
        if self.context and self.stride and self.stride > self.context:
            raise ValueError(f"--stride must be at most --context, {self.context:,}, is {self.stride:,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Sums over predicted tokens. A figure is infinite where its divisor is 0."""

    nats: float = 0.0
    """Negative log-likelihood of all predicted tokens."""
    tokens: int = 0
    characters: int = 0
    bytes: int = 0

    def __add__(self, other: Score) -> Score:
        """The sums of both."""
        names = ("nats", "tokens", "characters", "bytes")
        return Score(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def loss(self) -> float:
        """Nats per token."""
        return _over(self.nats, self.tokens)

    @property
    def perplexity(self) -> float:
        """Exponential of the loss."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_character(self) -> float:
        """Bits per Unicode character: comparable across tokenizers."""
        return _over(self.nats / math.log(2), self.characters)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8."""
        return _over(self.nats / math.log(2), self.bytes)

    def figures(self) -> dict[str, float]:
        """The four figures by name, as in `metrics.jsonl` and the ledger."""
        names = ("loss", "perplexity", "bits_per_character", "bits_per_byte")
        return {name: getattr(self, name) for name in names}


@dataclass(kw_only=True, slots=True)
class DatasetScore:
    """A model on one dataset; the sums grow while its documents are read."""

    dataset: str
    documents: int
    windows: int = 0
    score: Score = Score()
    """Sums over all predicted tokens, and the four figures."""
    unknown: int = 0
    """Unknown tokens in the documents: cheap to predict, whatever text they stand for."""
    unseen: int = 0
    """Characters of the documents in no token; no figure counts them."""

    def __add__(self, other: DatasetScore) -> DatasetScore:
        """Both together, under the first one's name."""
        names = ("documents", "windows", "score", "unknown", "unseen")
        return dataclasses.replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an infinite figure is None."""
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
    """As `Device.describe` puts it."""
    results: Sequence[DatasetScore]
    """One for each dataset, in the order of all datasets."""
    seconds: float
    predicts_first: bool = True
    """Whether the first token of a document is predicted: where the tokenizer puts a token before it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the figures for the user."""
        first = "the tokenizer puts nothing before a document, so its first token is not predicted"
        return (() if self.predicts_first else (first,)) + tuple(
            f"{result.dataset}: the tokenizer does not keep the whole text: {result.unknown:,} unknown tokens, "
            f"{result.unseen:,} characters in no token"
            for result in self.results
            if result.unknown or result.unseen
        )

    def total(self) -> DatasetScore:
        """All datasets together, from sums."""
        return dataclasses.replace(functools.reduce(operator.add, self.results), dataset="all")

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


def _over(amount: float, count: int) -> float:
    return amount / count if count else math.inf
