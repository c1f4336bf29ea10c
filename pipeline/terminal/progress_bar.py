"""The bar of long work on a terminal of any width. Loads rich, so it is imported when a bar is drawn.

In: how much is done of how much, and how much of it was dropped.
Out: one line with a bar where there is room, else the same figures in columns; no figure is cut. Each drawing asks for
the width of the terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, Task
from rich.table import Table
from rich.text import Text

from corpus.pipeline.humanize import duration
from corpus.pipeline.terminal import progress_log

_LEAST_BAR = 10
"""Columns below which a bar says less than its percentage."""
_WINDOW_DRAWINGS = 300
"""The rate is that of the last so many drawings, about 30 s."""
_LEAST_WINDOW_S = 1.0
"""A rate over less time is noise."""


class Bar(Progress):
    """One piece of work; `dropped` tells how much of it was dropped so far, `note` what else there is to say.

    `done` was done before the bar began.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        dropped: Callable[[], int],
        screen: Console | None = None,
        clock: Callable[[], float] | None = None,
        note: Callable[[], str] = str,
        done: int = 0,
    ) -> None:
        self._unit, self._dropped, self._note = unit, dropped, note
        self._seen: deque[tuple[float, float]] = deque(maxlen=_WINDOW_DRAWINGS)
        screen = screen or Console(stderr=True)
        # Not redirected: results must not end beside the bar.
        super().__init__(console=screen, get_time=clock, transient=True, redirect_stdout=False)
        self.task = self.add_task(label, total=total, completed=done)

    def say(self, message: str) -> None:
        """Lines above the bar, as they are."""
        self.console.print(Text(message), soft_wrap=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, several times a second. The last column stays free: terminals wrap there."""
        for task in self.tasks:
            parts, width = [task.description, *self._figures(task)], self.console.width - 1
            room = width - cell_len("  ".join(["", *parts]))
            if room < _LEAST_BAR:
                yield Constrain(Columns(map(Text, parts), padding=(0, 2)), width)
                continue
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_row(Text(parts[0]), BarColumn(room).render(task), *map(Text, parts[1:]))
            yield grid

    def _figures(self, task: Task) -> list[str]:
        """Amount, rate, time left, drops and note, as far as they are known."""
        rate, dropped, left = self._rate(task.get_time(), task.completed), self._dropped(), ""
        if task.total is None:
            left = duration(task.elapsed or 0)
        elif rate:
            left = f"{duration(max(0, task.total - task.completed) / rate)} left"
        share = f" ({task.percentage:.0f}%)" if task.total else ""
        amount = progress_log.amount(task.completed, task.total, self._unit) if task.completed or task.total else ""
        speed = progress_log.speed(rate, self._unit) if rate else ""
        drops = f"{dropped:,} dropped" if dropped else ""
        return [part for part in (amount + share, speed, left, drops, self._note()) if part]

    def _rate(self, now: float, done: float) -> float:
        """Units a second; 0 while that is unknown."""
        self._seen.append((now, done))
        then, before = self._seen[0]
        return (done - before) / (now - then) if now - then >= _LEAST_WINDOW_S else 0.0
