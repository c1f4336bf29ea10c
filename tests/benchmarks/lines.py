"""What a row of the table is made of: figures of ours and of a peer, their ratio, the target, and whether it is met.

Pure values: a line knows how it came to be (all runs), the table and the JSON file are drawn from it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks.measure import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Ours or a peer."""

    name: str
    values: Sequence[float] = ()
    """One figure a run, in the line's unit."""
    runs: Sequence[Run] = ()

    @property
    def error(self) -> str:
        """Why there is no figure."""
        return next((run.error for run in self.runs if run.error), "")

    @property
    def median(self) -> float:
        """The figure that ratios are made of."""
        return statistics.median(self.values)

    @property
    def peak(self) -> int:
        """Largest memory of one process over all runs."""
        return max((run.peak for run in self.runs), default=0)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        short = [{key: value for key, value in run.to_dict().items() if key != "curve"} for run in self.runs]
        return {
            "name": self.name,
            "median": self.median if self.values else None,
            "least": min(self.values, default=None),
            "most": max(self.values, default=None),
            "values": list(self.values),
            "peak_bytes": self.peak,
            "error": self.error,
            "runs": short,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a figure must reach."""

    least: float | None = None
    most: float | None = None
    text: str = ""
    """How the table writes it."""

    def meets(self, value: float) -> bool:
        """Whether the figure is good enough, as measured and not as rounded."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the table."""

    row: str
    """The row of the harness it belongs to: what `--rows` takes."""
    what: str
    unit: str
    ours: Side
    peer: Side | None = None
    ratio: float | None = None
    """Ours against the peer, or the figure itself where there is none; the target is about it."""
    target: Target | None = None
    note: str = ""
    bar: str = ""
    """Stage under which the picture shows it."""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        met = None if self.target is None or self.ratio is None else self.target.meets(self.ratio)
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours.to_dict(),
            "peer": self.peer.to_dict() if self.peer else None,
            "ratio": self.ratio,
            "target": asdict(self.target) if self.target else None,
            "met": met,
            "note": self.note,
            "bar": self.bar,
            "extra": self.extra,
        }


def side(name: str, runs: Sequence[Run], figure: Callable[[Run], float]) -> Side:
    """The figures of the runs that came to their end."""
    return Side(name=name, values=[figure(run) for run in runs if not run.error], runs=runs)


def compare(
    row: str,
    what: str,
    unit: str,
    ours: Side,
    peer: Side,
    *,
    target: Target | None = None,
    less_is_better: bool = False,
    note: str = "",
    bar: str = "",
) -> Line:
    """A line of two sides. The ratio is above 1 where ours is faster or smaller."""
    ratio = None
    if ours.values and peer.values:
        ratio = peer.median / ours.median if less_is_better else ours.median / peer.median
    return Line(row=row, what=what, unit=unit, ours=ours, peer=peer, ratio=ratio, target=target, note=note, bar=bar)


def alone(row: str, what: str, unit: str, ours: Side, *, target: Target | None = None, note: str = "") -> Line:
    """A line without a peer: the target is about the figure itself."""
    value = ours.median if ours.values else None
    return Line(row=row, what=what, unit=unit, ours=ours, ratio=value, target=target, note=note)
