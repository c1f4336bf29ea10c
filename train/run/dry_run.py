"""`corpus train --dry-run`: what a run would take, without a weight in memory.

In: a configuration and packed rows. Out: parameters, tokens, steps, memory, FLOPs, and the time at a stated rate, as
values and as lines of a table.
Invariant: the network is built on torch's meta device, so 175 billion parameters take no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from corpus.pipeline.humanize import duration, size_text
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.train import networks
from corpus.train.benchmarks import during
from corpus.train.config import TrainConfig
from corpus.train.data.mixture import delivered
from corpus.train.model import device as devices
from corpus.train.model.memory import checkpoint_bytes, token_flops
from corpus.train.run import defaults, objectives, optimizer, orders
from corpus.train.run import plan as plans


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run would take."""

    run: str
    parameters: int
    mixture: Mapping[str, Mapping[str, float]]
    """Rows, tokens, share of the tokens and epochs of each dataset."""
    steps: int
    batch_size: int
    seq_length: int
    warmup_steps: int
    learning_rate: float
    precision: str
    optimizer: str
    fixed_bytes: int
    """Memory of a step whatever its rows: weights, gradients and the optimizer."""
    fixed_parts: Mapping[str, int]
    """The same of each network, where there are several."""
    row_bytes: int
    """Memory that each row of a pass adds."""
    checkpoint_bytes: int
    flops: float
    seconds: float | None
    """At the rate asked for; None without one."""

    @property
    def tokens(self) -> int:
        """Training tokens of the run."""
        return sum(int(each["tokens"]) for each in self.mixture.values())

    def lines(self) -> list[tuple[str, str]]:
        """The figures as lines of (what, how much)."""
        held = "gradients, Muon and AdamW" if self.optimizer == "muon" else "gradients and AdamW"
        lines = [
            ("run", self.run),
            ("parameters", f"{self.parameters:,}"),
            *((f"tokens of {name}", f"{each['tokens']:,} ({each['share']:.1%}, {each['epochs']:.3g} epochs)")
              for name, each in self.mixture.items()),
            ("tokens a parameter", f"{self.tokens / self.parameters:.3g}"),
            ("steps", f"{self.steps:,} of {self.batch_size:,} rows of {self.seq_length:,} tokens"),
            ("warm-up", f"{self.warmup_steps:,} steps, to a learning rate of {self.learning_rate:.3g}"),
            ("memory, whatever the rows", f"{size_text(self.fixed_bytes)} ({self.precision}, {held})"),
            *((f"memory of the {name}", size_text(size)) for name, size in self.fixed_parts.items()),
            ("memory, each row of a pass", size_text(self.row_bytes)),
            ("checkpoint on disk", size_text(self.checkpoint_bytes)),
            ("FLOPs", f"{self.flops:.3g}"),
        ]  # fmt: skip
        if self.seconds is not None:
            lines.append(("time", f"{duration(self.seconds)} at {self.flops / self.seconds:.3g} FLOP/s"))
        return lines


def run(
    config: TrainConfig, workspace: Workspace, *, rate: float | None = None, progress: Progress = SILENT
) -> Forecast:
    """What a run would take, with the time if `rate`, the FLOP/s that all devices reach together, is given.

    Rows at a URL are fetched for it; `progress` shows that.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError, ModelError, DeviceError: as `run.stage.run`.

    """
    model_files = networks.files(config)
    config, _ = defaults.resolve(config)
    objective = objectives.make(config, workspace, progress)
    plan = plans.make(config, workspace, objective, model_files=model_files, benchmark=during.of(config))
    device = devices.choose(config.device, config.precision, threads=config.threads)
    with torch.device("meta"):
        model = objective.sketch()
    order = orders.make(config, plan, micro_batch_size=1)
    one_moment = optimizer.one_moment(model, config.optimizer or "adamw")
    fixed, row = objective.memory(
        model, precision=device.precision, checkpointing=config.gradient_checkpointing, one_moment=one_moment
    )
    flops = token_flops(model, objective.seq_length) * plan.steps.total * objective.row_tokens * objective.work
    return Forecast(
        run=plan.name, parameters=model.num_parameters(),
        mixture=delivered(order, plan.shares, objective.tokens, plan.steps.count), steps=plan.steps.count,
        batch_size=plan.steps.batch_size, seq_length=objective.seq_length, warmup_steps=plan.warmup_steps,
        learning_rate=plan.settings["learning_rate"], precision=device.precision, optimizer=config.optimizer or "adamw",
        fixed_bytes=fixed, fixed_parts=objective.fixed_parts(model, precision=device.precision), row_bytes=row,
        checkpoint_bytes=checkpoint_bytes(model.num_parameters(), one_moment=one_moment), flops=flops,
        seconds=flops / rate if rate else None,
    )  # fmt: skip
