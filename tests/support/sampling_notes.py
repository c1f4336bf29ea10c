"""A listener that keeps what is said."""

from __future__ import annotations

from corpus.pipeline.progress import Progress


class Notes(Progress):
    """Remembers what a user would have read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)
