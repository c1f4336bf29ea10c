"""Progress of a stage: the base class ignores every call, the console shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Progress:
    """One bar at a time. Amounts are in `unit` ("B" for bytes, else a plural noun such as "documents")."""

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str, done: int = 0) -> Iterator[None]:
        """A bar for as long as the block runs."""
        self.begin(label, total, unit, done)
        try:
            yield
        finally:
            self.end()

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Start a bar; `total` is None when it is not known. `done` was done before, which no rate counts."""

    def advance(self, amount: int) -> None:
        """Move the bar by `amount` units."""

    def note(self, text: str) -> None:
        """Show `text` beside the amount until the next note: figures, or what is done just now."""

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Add documents dropped or left out since the last call, by reason."""

    def end(self) -> None:
        """Remove the bar."""

    def say(self, message: str) -> None:
        """Show one line to the user: what starts, what is rerun or skipped, and why."""


SILENT = Progress()
