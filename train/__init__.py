"""Training and evaluation: packed rows in, a GPT that `transformers` opens out.

`config` holds the settings and `presets` the sizes by name. `data` turns rows into batches; `model` builds or loads a
network on its device; `evaluation` measures loss and bits per character; `run` plans a run and trains it.

Importing this package loads no torch, so worker processes that import a script of the user's start at once.
"""

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace import Workspace
from corpus.pipeline.workspace.ledger import Report
from corpus.train.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def train(config: TrainConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Train a model, as `corpus.train.run.stage.run` says; the caller holds `workspace.writing()`."""
    from corpus.train.run import stage  # noqa: PLC0415  # torch

    return stage.run(config, workspace, progress=progress)
