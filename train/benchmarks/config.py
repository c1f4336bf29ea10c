"""Settings and results of `corpus evaluate --benchmark`. Imports no torch, no transformers and no harness."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.train.model import choices

SPLITS = ("test", "validation", "train")
HUB = "hf:"
"""Prefix of a task of the harness's own."""
_MOST_SHOTS = 64
_DEVIATIONS = 1.96
"""Standard deviations on each side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """Which model is asked what, and how."""

    model: Path
    """Folder that `AutoModelForCausalLM` and `AutoTokenizer` open."""
    benchmarks: tuple[str, ...]
    """Built-in tasks, task files, or `hf:NAME`, a task of the harness's own."""
    data: tuple[Path, ...] = ()
    """Where the items are: one file or folder for all benchmarks, or one for each of them."""
    shots: tuple[int, ...] = (0,)
    """Numbers of examples before an item."""
    orders: int = 3
    """Draws of the examples, each in an order of its own, wherever there are examples."""
    limit: int = 0
    """Most items of a benchmark, spread evenly; 0 for all."""
    calibrate: bool = False
    """Divide by the probabilities of inputs without content (Zhao et al., 2021)."""
    pmi: bool = False
    """Divide by the probability of the answer without the item (Holtzman et al., 2021)."""
    seed: int = 1
    """Of the draws."""
    split: str = ""
    """The split that is measured; when empty `test`, or `validation` where a task has no test split."""
    output: Path | None = None
    """Folder of the results; `benchmarks/<model>/` of the workspace when None."""
    batch_size: int | None = None
    """Texts of a pass; what fits the memory when None. It changes only rounding."""
    context: int | None = None
    """Most tokens that the model reads at once; the model's own limit when None."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 where the hardware computes in it."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, `xpu`, or `auto`: the accelerator if there is one."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if self.split and self.split not in SPLITS:
            raise ValueError(f"--split must be one of {', '.join(SPLITS)}, is {self.split}")
        if not all(self.benchmarks):
            raise ValueError("--benchmark must be the name of a task, or the path of a task file")
        choices.check(device=self.device, precision=self.precision)
        for name, least in (("orders", 1), ("limit", 0), ("batch_size", 1), ("context", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, is {value}")
        wrong = [number for number in self.shots if not 0 <= number <= _MOST_SHOTS]
        if wrong or not self.shots:
            raise ValueError(f"--shots must be from 0 to {_MOST_SHOTS}, is {wrong[0] if wrong else 'missing'}")
        if len(self.data) not in {0, 1, len(self.benchmarks)}:
            raise ValueError(
                f"--data was given {len(self.data)} times for {len(self.benchmarks)} benchmarks: give it once, "
                "or once for each --benchmark in the same order"
            )

    @property
    def names_hub_task(self) -> bool:
        """Whether a benchmark is a task of the harness's own, whose data the hub holds."""
        return any(name.startswith(HUB) for name in self.benchmarks)

    def data_of(self, number: int) -> Path | None:
        """The file or folder of a benchmark, by its place among them."""
        return self.data[number if len(self.data) > 1 else 0] if self.data else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One pass over the items with one draw of examples."""

    shots: int
    draw: int
    """Which draw, from 0."""
    figures: Mapping[str, float]
    """Accuracy by the way answers are compared: `accuracy`, `per_character`, `calibrated`, `pmi`, `pmi_domain`,
    `slln_lp`; and `macro_f1` where there are labels."""
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same figures of each group, with its `items`."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What `pairs.Counts` counted."""
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Ids of the examples in their order, by group; "" for all groups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult:
    """A model on one benchmark."""

    benchmark: str
    items: int
    chance: float | None
    """Accuracy of guessing; None where it is not known."""
    majority: float | None
    """Share of the most frequent label; None where items have options of their own."""
    runs: tuple[Run, ...]
    seconds: float
    folder: Path | None = None
    """Where `results.json` and `samples.jsonl` are."""
    notes: tuple[str, ...] = ()
    """Remarks for the user."""

    @property
    def shots(self) -> list[int]:
        """Numbers of examples, in the order asked for."""
        return list(dict.fromkeys(run.shots for run in self.runs))

    @property
    def floor(self) -> float | None:
        """The better one of guessing and always saying the most frequent label."""
        return max((each for each in (self.chance, self.majority) if each is not None), default=None)

    def summary(self, shots: int) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the draws of each figure; the deviation of one draw is 0."""
        runs = [run.figures for run in self.runs if run.shots == shots]
        return {
            name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for name in runs[0]
            if (values := [figures[name] for figures in runs if name in figures])
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            "items": self.items,
            "chance": self.chance,
            "majority": self.majority,
            "seconds": self.seconds,
            "folder": str(self.folder) if self.folder else None,
            "notes": list(self.notes),
            "shots": {str(shots): self.summary_dict(shots) for shots in self.shots},
        }

    def summary_dict(self, shots: int) -> dict[str, Any]:
        """`summary` for JSON, with the interval of the accuracy."""
        summary = self.summary(shots)
        figures = {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in summary.items()}
        if "accuracy" not in summary:
            return figures
        low, high = interval(summary["accuracy"][0], self.items)
        return figures | {"interval": [low, high], "draws": sum(run.shots == shots for run in self.runs)}


def interval(share: float, items: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of independent items.

    >>> [round(end, 3) for end in interval(0.5, 100)], [round(end, 3) for end in interval(1.0, 20)]
    ([0.404, 0.596], [0.839, 1.0])
    """
    if not items:
        return 0.0, 1.0
    square = _DEVIATIONS**2 / items
    middle = (share + square / 2) / (1 + square)
    half = _DEVIATIONS * math.sqrt(share * (1 - share) / items + square / 4 / items) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def folder_of(root: Path, model: Path, output: Path | None) -> Path:
    """Folder of the results: `--output`, or below `benchmarks/` in the workspace at `root` the model's name.

    A run's best model has `best` behind the run's name.
    """
    folder = model.resolve()
    name = f"{folder.parent.name}-{folder.name}" if folder.name == "best" else folder.name
    return output or root / "benchmarks" / name
