"""The objective that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.objective import Objective
from corpus.train.run.dpo import DPOObjective
from corpus.train.run.packed_rows import PackedRows
from corpus.train.run.ppo import PPOObjective
from corpus.train.run.reward import RewardObjective
from corpus.train.tasks.objective import TaskObjective


def make(config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> Objective:
    """What a run trains on and for; `config` has every default resolved.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError, TaskError, ModelError: as the objectives say.

    """
    kinds: Mapping[str, Callable[[TrainConfig, Workspace, Progress], Objective]] = {
        "task": TaskObjective,
        "reward": RewardObjective,
        "dpo": DPOObjective,
        "ppo": PPOObjective,
    }
    return kinds.get(config.objective, PackedRows)(config, workspace, progress)
