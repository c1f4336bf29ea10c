"""Figures of a run for TensorBoard, beside `metrics.jsonl`.

In: the lines of `metrics.jsonl` as they are noted. Out: event files in `models/<run>/tensorboard/`. They hold clock
times and a host's name, so they are no part of the ledger.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import TrainError

_PLACES = ("step", "rows", "epoch")


class Board:
    """Writes event files; `first` is the step that a resumed run goes on from: later points of an attempt go."""

    def __init__(self, folder: Path, *, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def note(self, line: Mapping[str, Any]) -> None:
        """Add the figures of a line at its step; those of training under `train/`."""
        for name, value in line.items():
            if name not in _PLACES:
                self._writer.add_scalar(name if "/" in name else f"train/{name}", value, line["step"])

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


def check() -> None:
    """Refuse before a run begins.

    Raises:
        TrainError: TensorBoard is not installed.

    """
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise TrainError(
            "--tensorboard needs the package tensorboard", hint="pip install 'corpus-zh[tensorboard]', or leave it out."
        ) from error
