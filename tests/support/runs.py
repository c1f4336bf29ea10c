"""Settings of a run that takes a second, and the lines it writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.progress import Progress
from corpus.train.presets import PRESETS

SETTINGS: dict[str, Any] = {
    "model": "tiny", "epochs": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "log_steps": 2,
    "save_steps": 4, "threads": 1,
}  # fmt: skip


@contextlib.contextmanager
def narrowed() -> Iterator[None]:
    """Two narrow layers under the name of `tiny`: the stage is the same, a run takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], layers=2, width=64, heads=2))
        yield


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

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.total = total
        self.done += done

    def advance(self, amount: int) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append((self.done, text))

    def end(self) -> None:
        self.ended += 1

    def say(self, message: str) -> None:
        self.said.append(message)
