"""The bar of long work on a terminal of any width. Loads rich, so it is imported when a bar is drawn.

In: how much is done of how much, and what was dropped. Out: one line with a bar where there is room, else the same
figures on as many lines as they need; none is ever cut. Redrawn at every width that the terminal takes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich import progress as rich_progress
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from corpus.pipeline.humanize import duration
from corpus.pipeline.terminal import progress_log
from corpus.pipeline.terminal.table import flow

_LEAST_BAR = 10
"""Columns below which a bar says less than its percentage."""


class Bar(rich_progress.Progress):
    """One piece of work; `dropped` tells how much of it was dropped so far."""

    def __init__(self, label: str, total: int | None, unit: str, dropped: Callable[[], int]) -> None:
        screen = Console(stderr=True)
        super().__init__(console=screen, transient=True, redirect_stdout=False)  # results must not end beside the bar
        self._unit, self._dropped = unit, dropped
        self.task = self.add_task(label, total=total)

    def say(self, message: str) -> None:
        """Lines above the bar, as they are."""
        self.console.print(Text(message), soft_wrap=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, several times a second."""
        for task in self.tasks:
            yield _Drawn(task, self._unit, self._dropped())


class _Drawn:
    """A task at this moment."""

    def __init__(self, task: rich_progress.Task, unit: str, dropped: int) -> None:
        self._task, self._unit, self._dropped = task, unit, dropped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line with a bar, or the figures line by line; the last column stays free, terminals wrap there."""
        width, label, figures = options.max_width - 1, self._task.description, self._figures()
        room = width - cell_len(label) - cell_len("  ".join(figures)) - 4
        if room < _LEAST_BAR:
            for line in flow([label, *figures], width):
                yield Text(line, no_wrap=True, overflow="ignore")
            return
        task = self._task
        bar = ProgressBar(
            total=task.total, completed=task.completed, width=room, pulse=task.total is None,
            animation_time=task.get_time(),
        )  # fmt: skip
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(Text(label, no_wrap=True), bar, Text("  ".join(figures), no_wrap=True))
        yield grid

    def _figures(self) -> list[str]:
        task = self._task
        share = f"{task.percentage:.0f}%" if task.total else ""
        rate = progress_log.speed(task.speed, self._unit) if task.speed else ""
        left = "" if task.time_remaining is None else f"{duration(task.time_remaining)} left"
        if task.total is None:
            left = duration(task.elapsed or 0)
        amount = progress_log.amount(task.completed, task.total, self._unit) if task.completed or task.total else ""
        dropped = f"{self._dropped:,} dropped" if self._dropped else ""
        return [part for part in (amount, share, rate, left, dropped) if part]
