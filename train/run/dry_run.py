"""`corpus train --dry-run`: what a run would take, without a weight in memory.

In: a configuration and packed rows. Out: lines of a table: parameters, tokens, steps, memory, FLOPs, and the time at a
stated rate.
Invariant: the network is built on torch's meta device, so 175 billion parameters take no memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from corpus.pipeline.errors import ModelError
from corpus.pipeline.humanize import duration
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.data.mixture import delivered, parts
from corpus.train.data.sampler import Order
from corpus.train.model import build, load
from corpus.train.model import device as devices
from corpus.train.model.memory import step_memory
from corpus.train.run import defaults
from corpus.train.run import plan as plans
from corpus.train.run.plan import RunPlan


def run(config: TrainConfig, workspace: Workspace, *, rate: float | None = None) -> list[tuple[str, str]]:
    """Lines of (what, how much), with the time if `rate`, the FLOP/s that all devices reach together, is given.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError, ModelError, DeviceError: as `run.stage.run`.

    """
    model_files = load.files(config.init, "--init") if config.init else ()
    config, _ = defaults.resolve(config)
    plan = plans.make(config, workspace, model_files=model_files)
    device = devices.choose(config.device, config.precision, threads=config.threads)
    model = _network(config, plan)
    order = Order(
        parts=parts(plan.shares, weighted=config.is_weighted), steps=plan.steps, micro_batch_size=1, seed=config.seed
    )
    given = delivered(order, plan.shares, plan.tokens, plan.steps.count)
    tokens = sum(int(each["tokens"]) for each in given.values())
    fixed, row = step_memory(
        model, seq_length=plan.seq_length, precision=device.precision, checkpointing=config.gradient_checkpointing
    )
    flops = token_flops(model, plan.seq_length) * plan.steps.total * plan.seq_length
    lines = [
        ("run", plan.name),
        ("parameters", f"{model.num_parameters():,}"),
        *((f"tokens of {name}", f"{each['tokens']:,} ({each['share']:.1%}, {each['epochs']:.3g} epochs)")
          for name, each in given.items()),
        ("tokens a parameter", f"{tokens / model.num_parameters():.3g}"),
        ("steps", f"{plan.steps.count:,} of {plan.steps.batch_size:,} rows of {plan.seq_length:,} tokens"),
        ("warm-up", f"{plan.warmup_steps:,} steps, to a learning rate of {plan.settings['learning_rate']:.3g}"),
        ("memory, whatever the rows", f"{fixed / 1e9:.2f} GB ({device.precision}: weights, gradients, AdamW)"),
        ("memory, each row of a pass", f"{row / 1e9:.3f} GB"),
        ("checkpoint on disk", f"{model.num_parameters() * 12 / 1e9:.2f} GB"),
        ("FLOPs", f"{flops:.3g}"),
    ]  # fmt: skip
    return lines + ([("time", f"{duration(flops / rate)} at {rate:.3g} FLOP/s")] if rate else [])


def token_flops(model: Any, seq_length: int) -> float:
    """FLOPs of a training step for each token: 6 N + 12 L d s (Chowdhery et al., 2022, appendix B).

    N counts the tied embedding once, as the output head; s is the row length, also where attention stays in documents.
    """
    config = model.config
    return float(6 * model.num_parameters() + 12 * config.num_hidden_layers * config.hidden_size * seq_length)


def _network(config: TrainConfig, plan: RunPlan) -> Any:
    with torch.device("meta"):
        if config.init:
            return AutoModelForCausalLM.from_config(_config(config.init))
        return build.make(
            config.preset, vocab_size=plan.vocab_size, seq_length=plan.seq_length, separator=plan.separator,
            pad=plan.pad, dropout=0.0, seed=config.seed,
        )  # fmt: skip


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} cannot be read: {error}", hint="Give --init the folder of a model.") from error
