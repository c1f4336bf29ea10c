"""How a stage tells how far it is, without knowing who listens: the base class is silent, the console shows it."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """One bar at a time. Amounts are in `unit` ("B" for bytes, else a plural noun such as "documents")."""

    def begin(self, label: str, total: int | None, unit: str) -> None:
        """Start a bar; `total` is None when the end is not known."""

    def advance(self, amount: int) -> None:
        """Move the bar by `amount` units."""

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Count what this work has dropped or left out since the last call, by reason."""

    def end(self) -> None:
        """Take the bar away."""

    def say(self, message: str) -> None:
        """One line a user should read: what is about to be done, what was skipped and why."""


SILENT = Progress()
