"""The plan of a run, made before anything is written: its items, steps, identity and folder.

In: the configuration and the objective. Out: a `RunPlan`, the same for equal configuration and equal items on any
machine.
Invariant: settings that change the weights or the measurements are part of a run's identity; device, workers, rows of a
pass and the steps of checkpoints are not.
Cost: sums over the tokens of all items.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.errors import TrainError
from corpus.pipeline.workspace.layout import OUTSIDE, Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Ledger, fingerprint
from corpus.train import networks
from corpus.train.benchmarks import during
from corpus.train.benchmarks.chosen import Benchmark
from corpus.train.config import DECAY_SHARE, SHUFFLE_BLOCK, TrainConfig
from corpus.train.data.mixture import MAX_REPEATS, Share, shares
from corpus.train.data.schedule import Steps, warmup_steps
from corpus.train.model.memory import FORWARD_SHARE
from corpus.train.objective import Objective

STAGE = "train"
VERSION = 3
_EVALUATIONS = 10
_EVALUATION_SHARE = 1 / 20
_SAVE_STEPS = 500
_AS_GIVEN = (
    "objective", "warmup", "warmup_tokens", "ramp_from", "ramp_tokens", "early_stop", "weight_decay", "beta1", "beta2",
    "clip", "seed", "precision", "log_steps", "eval_rows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """Everything about a run that does not depend on the machine."""

    folder: Path
    """The run's folder."""
    settings: Mapping[str, Any]
    """The ledger's `config`."""
    inputs: Sequence[FileDigest]
    identity: str
    """Fingerprint of version, settings and inputs."""
    objective: Objective
    """What is trained and measured, and how."""
    shares: Sequence[Share]
    """Items taken from each dataset, in their order."""
    steps: Steps
    warmup_steps: int
    evaluated_rows: int
    """Items of one evaluation over all datasets."""
    eval_steps: int
    save_steps: int
    benchmark: Benchmark | None = None
    """What the model is asked while it trains."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    def ledger(self, *, outputs: Sequence[FileDigest] = (), counts: Mapping[str, Any] | None = None) -> Ledger:
        """The run's ledger; without outputs and counts it describes a run that begins."""
        return Ledger(
            stage=STAGE, dataset=None, version=VERSION, config=self.settings, inputs=self.inputs, outputs=outputs,
            counts=counts or {}, fingerprint=self.identity,
        )  # fmt: skip


def make(
    config: TrainConfig, workspace: Workspace, objective: Objective, *, model_files: Sequence[Path] = (),
    benchmark: Benchmark | None = None,
) -> RunPlan:  # fmt: skip
    """Plan a run, which measures `benchmark` while it trains.

    `model_files` are the configuration and weights of `init`, or the configuration of `architecture`.

    Raises:
        TrainError: a dataset with a weight has no training items, or there are no validation items to stop by.

    """
    if config.early_stop and not objective.validation:
        raise TrainError(
            f"--early-stop needs validation {objective.noun}, and no dataset has any", hint="Leave --early-stop out."
        )
    shares, steps = _mixture(config, objective)
    evaluated_rows = sum(min(len(rows), config.eval_rows or len(rows)) for rows in objective.validation.values())
    own = objective.eval_steps(steps.count, steps.batch_size)
    eval_steps = config.eval_steps or own or _eval_steps(steps, evaluated_rows)
    inputs = [*objective.inputs, *_outside(workspace, model_files)]
    settings = _settings(config) | dict(objective.settings) | {"eval_steps": eval_steps}
    settings |= during.settings(config, benchmark)
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    return RunPlan(
        folder=workspace.models / (config.run or f"{objective.name}-{identity[:6]}"),
        settings=settings,
        inputs=inputs,
        identity=identity,
        objective=objective,
        shares=shares,
        steps=steps,
        warmup_steps=warmup_steps(config, steps, objective.seq_length),
        evaluated_rows=evaluated_rows,
        eval_steps=eval_steps,
        save_steps=config.save_steps or min(_SAVE_STEPS, math.ceil(steps.count / 10)),
        benchmark=benchmark,
    )


def _mixture(config: TrainConfig, objective: Objective) -> tuple[list[Share], Steps]:
    """The items taken from each dataset, and the steps."""
    rows, tokens = objective.rows, objective.tokens
    edges = np.cumsum([0, *rows.values()])
    sums = [int(tokens[begin:end].sum()) for begin, end in itertools.pairwise(edges.tolist())]
    ramp_rows = -(-(config.ramp_tokens or 0) // objective.seq_length)
    ramp = {"ramp_from": config.ramp_from or 1, "ramp_rows": ramp_rows}
    batch_size = config.batch_size or config.preset.batch_size
    wanted = max(1, round((config.epochs or 1.0) * len(tokens)))
    if config.max_steps:
        wanted = Steps(batch_size=batch_size, count=config.max_steps, **ramp).total
    if config.is_weighted and (lacking := sorted(config.mixture.keys() - rows.keys())):
        raise TrainError(
            f"{lacking[0]} has a weight and no training rows",
            hint=f"Leave --dataset {lacking[0]} out, or run `corpus pack` for it again.",
        )
    weights = [weight for name in rows if (weight := config.mixture.get(name)) is not None] or None
    found = shares(list(rows), list(rows.values()), sums, weights, total=wanted, max_repeats=_max_repeats(config))
    return found, Steps(batch_size=batch_size, total=sum(share.taken for share in found), **ramp)


def _max_repeats(config: TrainConfig) -> float | None:
    return config.max_repeats or (MAX_REPEATS if config.is_weighted else None)


def _eval_steps(steps: Steps, rows: int) -> int:
    """About ten evaluations of so many rows in a run, and at most a twentieth of its time."""
    affordable = rows * FORWARD_SHARE / _EVALUATION_SHARE / steps.batch_size
    return max(1, math.ceil(steps.count / _EVALUATIONS), math.ceil(affordable))


def _outside(workspace: Workspace, model_files: Sequence[Path]) -> list[FileDigest]:
    return [FileDigest(f"{OUTSIDE}{path.name}", path.stat().st_size, workspace.digest(path)) for path in model_files]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of the ledger, defaults resolved, without those of the objective."""
    preset = config.preset
    dropout = config.dropout if config.dropout is not None or not config.is_preset else preset.dropout
    length = {"max_steps": config.max_steps} if config.max_steps else {"epochs": config.epochs}
    return {
        **networks.described(config),
        **length,
        **{name: getattr(config, name) for name in _AS_GIVEN},
        "max_repeats": _max_repeats(config),
        "decay_to": config.decay_to if config.decay_to is not None else preset.decay_to,
        "batch_size": config.batch_size or preset.batch_size,
        "learning_rate": config.learning_rate or preset.learning_rate,
        "dropout": dropout,
        **_chosen(config),
    }


def _chosen(config: TrainConfig) -> dict[str, Any]:
    """Settings that are recorded only where they are not the default, so that older runs stay current."""
    chosen: dict[str, Any] = {}
    if config.optimizer != "adamw":
        rate = config.learning_rate or config.preset.learning_rate
        chosen |= {"optimizer": config.optimizer, "adam_learning_rate": config.adam_learning_rate or rate}
    if config.schedule not in {None, "cosine"}:
        chosen["schedule"] = config.schedule
    if config.shuffle != "full":
        chosen |= {"shuffle": config.shuffle, "shuffle_block": config.shuffle_block or SHUFFLE_BLOCK}
    if config.schedule == "wsd":
        chosen["decay_share"] = config.decay_share or DECAY_SHARE
    return chosen
