"""The first row of each optimizer step, and its learning rate.

In: the batch size and its ramp at the start of a run. Out: exact positions in the sequence of rows; shares of the peak
learning rate.
Invariant: steps are contiguous; only the last can be short.
Cost: one number for each step of the ramp; any position is found without the steps before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from corpus.train.config import DECAY_SHARE, TrainConfig

WARMUP_SHARE = 0.05


class Steps:
    """The steps of a run of `total` rows, or of `count` steps when `total` is None.

    In the first `ramp_rows` rows a step grows linearly from `ramp_from` rows to `batch_size` (Brown et al., 2020,
    section 2.3).
    """

    def __init__(
        self, *, batch_size: int, total: int | None = None, count: int | None = None, ramp_from: int = 1,
        ramp_rows: int = 0,
    ) -> None:  # fmt: skip
        self.batch_size = batch_size
        self._edges = np.array(_ramp(batch_size, ramp_from, ramp_rows, total, count), dtype=np.int64)
        self._total: int | None = None
        self.total = total if total is not None else self.begin(count or 1)
        self._total = self.total
        """Rows of the whole run."""
        ramp, end = len(self._edges) - 1, int(self._edges[-1])
        full = max(0, -(-(self.total - end) // batch_size))
        self.count = ramp + full if self.total > end else int(np.searchsorted(self._edges, self.total))
        """Steps of the whole run."""

    def begin(self, step: int) -> int:
        """Rows before a step; those of the whole run from the last step on."""
        last = len(self._edges) - 1
        begin = int(self._edges[step]) if step <= last else int(self._edges[last]) + (step - last) * self.batch_size
        return begin if self._total is None else min(begin, self._total)

    def until(self, rows: int) -> int:
        """Steps that cover at least this many rows."""
        last, end = len(self._edges) - 1, int(self._edges[-1])
        return int(np.searchsorted(self._edges, rows)) if rows <= end else last + -(-(rows - end) // self.batch_size)


def warmup_steps(config: TrainConfig, steps: Steps, seq_length: int) -> int:
    """Steps of the warm-up.

    From `warmup_tokens`, else from `warmup`: from 1 on in steps, below 1 as a share of all steps. By default a
    twentieth of all steps, but no more than the tokens of the preset's paper.
    """
    if config.warmup_tokens is not None:
        return steps.until(-(-config.warmup_tokens // seq_length))
    if config.warmup is not None:
        return int(config.warmup) if config.warmup >= 1 else math.ceil(config.warmup * steps.count)
    share = math.ceil(WARMUP_SHARE * steps.count)
    paper = config.preset.warmup_tokens
    return min(share, steps.until(-(-paper // seq_length))) if paper and config.is_preset else share


def rate(
    step: int, warmup: int, steps: Steps, decay_to: float = 0.0, *, schedule: str = "cosine",
    decay_share: float = DECAY_SHARE,
) -> float:  # fmt: skip
    """Share of the peak learning rate at a step: linear warm-up, then the schedule over the remaining rows.

    `cosine` is half a cosine to `decay_to` (0 in Radford et al., 2018; 0.1 in Brown et al., 2020, who count in tokens
    as well), `linear` a straight line, `constant` the peak. `wsd` is the peak until the last `decay_share` of all rows,
    in which it falls as 1 - sqrt(x) (Hägele et al., 2024, section 3.2). Unlike the Trainer's schedules, they are above
    0 in the first step, so that a run of one step trains.

    >>> [round(rate(step, 2, Steps(batch_size=8, count=6)), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    >>> steps = Steps(batch_size=8, count=10)
    >>> [round(rate(step, 2, steps, schedule="wsd", decay_share=0.5), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.55, 0.37, 0.23, 0.11]
    """
    if step < warmup:
        return (step + 1) / warmup
    begin = steps.begin(warmup)
    if schedule == "wsd":
        begin = max(begin, steps.total - round(decay_share * steps.total))
    done = max(0, steps.begin(step) - begin) / max(1, steps.total - begin)
    return decay_to + (1 - decay_to) * _SHAPES[schedule](done)


_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "wsd": lambda done: 1 - math.sqrt(done),
    "constant": lambda _: 1.0,
}
"""What is left of the learning rate after a share of the decay."""


def _ramp(batch_size: int, first: int, rows: int, total: int | None, count: int | None) -> list[int]:
    """Where the steps of the ramp begin, and where the last of them ends."""
    edges = [0]
    while edges[-1] < rows:
        if (count is not None and len(edges) > count) or (total is not None and edges[-1] >= total):
            break
        edges.append(edges[-1] + first + (batch_size - first) * edges[-1] // rows)
    return edges
