"""Experiment trackers: the figures of a run in TensorBoard, Weights & Biases, SwanLab or MLflow.

In: names from `--report-to`. Out: the callbacks of `transformers`, which read their settings from each tracker's own
environment variables. TensorBoard's event files lie in `models/<run>/tensorboard/`; they hold clock times and a host's
name, so they are not in the ledger.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from corpus.pipeline.errors import TrainError


def check(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        TrainError: it names the package.

    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise TrainError(
                f"--report-to {name} needs the package {name}",
                hint=f"pip install 'corpus-zh[{name}]', or leave it out.",
            ) from error


def start(found: Sequence[TrainerCallback], trainer: Trainer) -> None:
    """Connect to the trackers before the first step.

    Raises:
        TrainError: a tracker fails, for example because nobody is logged in.

    """
    for callback in found:
        try:
            if hasattr(callback, "setup"):
                callback.setup(trainer.args, trainer.state, trainer.model)
        except Exception as error:  # whatever the tracker's library raises
            name = type(callback).__name__.removesuffix("Callback").lower()
            raise TrainError(
                f"--report-to {name}: {error}", hint="Log in with the tracker's own command, or leave it out."
            ) from error


def callbacks(names: Sequence[str], folder: Path, *, first: int) -> list[TrainerCallback]:
    """The callbacks; TensorBoard hides points after step `first`, where a run resumes."""
    found = [kind() for kind in get_reporting_integration_callbacks([name for name in names if name != "tensorboard"])]
    if "tensorboard" in names:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra

        found.append(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)))
    return found
