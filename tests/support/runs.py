"""Settings of a run that takes a second, and the lines it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpus.pipeline.progress import Progress

SETTINGS: dict[str, Any] = {
    "model": "tiny", "epochs": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "log_steps": 2,
    "save_steps": 4, "threads": 1,
}  # fmt: skip


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Recorder(Progress):
    """Keeps what a stage says and how far it got."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.notes: list[tuple[int, str]] = []
        self.total: int | None = None
        self.done = 0
        self.ended = 0

    def begin(self, label: str, total: int | None, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append((self.done, text))

    def end(self) -> None:
        self.ended += 1

    def say(self, message: str) -> None:
        self.said.append(message)
