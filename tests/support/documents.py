"""Names of official files, what a folder holds, and a listener."""

from __future__ import annotations

from pathlib import Path

from corpus.pipeline.progress import Progress

TRAIN, VALID = "baike_qa_train.json", "baike_qa_valid.json"


class Listener(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def tree(folder: Path) -> dict[str, bytes]:
    """Every output byte of a stage, timings aside."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }
