"""The progress of long work as lines of a log: amount, rate, time left, and what was dropped.

In: amounts as they are done. Out: lines for a log, or wherever no bar can be drawn.
Invariants: work that takes less than ten seconds gets no line. The time between two lines doubles up to five minutes,
so a day of work gets some three hundred. Pure but for the clock.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from corpus.pipeline.humanize import duration, size_text

FIRST_S = 10.0
"""Time before the first line."""
LONGEST_S = 300.0
"""Most time between two lines."""
_WINDOW_LINES = 8
"""The rate is that of the last so many lines: what a rerun skips at its start is soon out of it."""
_REASONS = 3
"""Most reasons that a line names."""


class ProgressLog:
    """One piece of work, from its start, or from what an interrupted one had done."""

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
        done: int = 0,
    ) -> None:
        self._label, self._total, self._unit, self._clock = label, total, unit, clock
        self._began, self._before = clock(), done
        self._seen = deque([(self._began, done)], maxlen=_WINDOW_LINES)
        self._wait = FIRST_S
        self._due = self._began + FIRST_S
        self._done = done
        self.dropped: Counter[str] = Counter()
        """What was dropped so far, by reason."""
        self.note = ""
        """What the next line says at its end."""

    def advance(self, amount: int) -> str | None:
        """Add to what is done; returns the line that is due now, if one is."""
        self._done += amount
        now = self._clock()
        if now < self._due:
            return None
        then, done = self._seen[0]
        rate = (self._done - done) / max(now - then, 1e-9)
        self._seen.append((now, self._done))
        self._wait = min(2 * self._wait, LONGEST_S)
        self._due = now + self._wait
        left = None if self._total is None or not rate else max(0, self._total - self._done) / rate
        parts = [self._amount(), speed(rate, self._unit), "" if left is None else f"about {duration(left)} left"]
        return self._line([*parts, self._drops()])

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Add to what was dropped."""
        self.dropped.update(reasons)

    def ended(self) -> str | None:
        """The last line, for work that was long enough to get one."""
        seconds = self._clock() - self._began
        if seconds < FIRST_S:
            return None
        if not self._done:
            return self._line([f"ended after {duration(seconds)}", self._drops()])
        rate = speed((self._done - self._before) / seconds, self._unit)
        return self._line([f"{self._amount()} in {duration(seconds)}", rate, self._drops()])

    def _amount(self) -> str:
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        return amount(self._done, self._total, self._unit) + share

    def _drops(self) -> str:
        """What was dropped, and the most frequent reasons."""
        dropped = +self.dropped
        if not dropped:
            return ""
        most = sorted(dropped.items(), key=lambda each: (-each[1], each[0]))
        named = [f"{reason} {count:,}" for reason, count in most[:_REASONS]]
        return f"{dropped.total():,} dropped ({', '.join(named + ['...'] * (len(most) > _REASONS))})"

    def _line(self, parts: list[str]) -> str:
        return f"{self._label}: {', '.join(part for part in [*parts, self.note] if part)}"


def amount(done: float, total: float | None, unit: str) -> str:
    """How much of how much.

    >>> amount(12_000_000, 1_600_000_000, "B"), amount(1200, None, "documents"), amount(0, 40, "steps")
    ('12.0 MB of 1.6 GB', '1,200 documents', '0 of 40 steps')
    """
    if unit == "B":
        return size_text(done) + (f" of {size_text(total)}" if total is not None else "")
    return f"{done:,.0f}{'' if total is None else f' of {total:,.0f}'} {unit}"


def speed(rate: float, unit: str) -> str:
    """A rate in words; `rate` is units a second.

    >>> speed(21_300_000, "B"), speed(1234.5, "documents"), speed(2.34, "steps"), speed(0.05, "steps")
    ('21.3 MB/s', '1,234/s', '2.3/s', '3.0/min')
    """
    if unit == "B":
        return f"{size_text(rate)}/s"
    for count, name in ((rate, "s"), (rate * 60, "min")):
        if count >= 1 or (name == "min" and count >= 0.1):
            return f"{count:,.0f}/{name}" if count >= 10 else f"{count:.1f}/{name}"
    return f"{rate * 3600:.1f}/h"
