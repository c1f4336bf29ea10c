"""Settings and result of `corpus score`. Imports no torch and no transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpus.train.model import choices


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Which reward model scores which answers."""

    model: Path
    """Folder that `corpus train --objective reward` wrote."""
    input: Path | None = None
    """JSON Lines of answers; standard input when None."""
    output: Path | None = None
    """File for the scored lines; the caller gets them when None."""
    batch_size: int | None = None
    """Answers of a pass; what keeps the device busy when None. It changes only rounding."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        choices.check(device=self.device, precision=self.precision)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, is {self.batch_size}")
        if self.input is not None and self.output is not None and self.input.resolve() == self.output.resolve():
            raise ValueError(f"--output must not be the file of --input, is {self.output}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What `corpus.train.preferences.scoring.run` did."""

    model: Path
    answers: int
    too_long: int
    """Answers longer than the model's context, which have no score."""
    mean: float | None
    """Mean score; None without any."""
    device: str
    seconds: float

    def to_dict(self) -> Mapping[str, Any]:
        """For JSON."""
        return asdict(self) | {"model": str(self.model)}
