"""Memory of a training step by a formula, and its time from a real pass.

In: a model on its device. Out: the estimates that a run prints before it starts.
Invariant: timing a pass leaves the random state and the gradients unchanged.
Cost: one or two passes.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from corpus.train.presets import fixed_memory, token_memory

FORWARD_SHARE = 1 / 3
"""Time of evaluating a row, as a share of a training pass."""
_SLOW_S = 5.0


def step_memory(model: Any, *, seq_length: int, precision: str, checkpointing: bool) -> tuple[int, int]:
    """Estimated bytes of a training step: the fixed part, and what each row of a pass adds."""
    token = token_memory(
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        vocab_size=model.config.vocab_size,
        context=seq_length,
        precision=precision,
        checkpointing=checkpointing,
    )
    return fixed_memory(model.num_parameters(), precision), seq_length * token


def checkpoint_bytes(parameters: int) -> int:
    """Bytes of a checkpoint on disk: weights and Adam's two moments in single precision."""
    return 3 * weight_bytes(parameters)


def weight_bytes(parameters: int) -> int:
    """Bytes of a model on disk, in single precision."""
    return 4 * parameters


def pass_seconds(model: Any, batch: dict[str, Any], *, precision: str) -> float:
    """Seconds of a forward and a backward pass; the second one is timed where the first took less than five seconds."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    own_state = [device] if device.type in {"cuda", "xpu"} else []  # the others draw from the CPU's random state
    with torch.random.fork_rng(own_state, device_type=device.type if own_state else "cuda"):
        seconds = _pass(model, inputs, device, precision)
        if seconds < _SLOW_S:
            seconds = _pass(model, inputs, device, precision)
    model.zero_grad(set_to_none=True)
    return seconds


def _pass(model: Any, inputs: dict[str, Any], device: torch.device, precision: str) -> float:
    model.train()
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = model(**inputs).loss
    loss.backward()
    loss.item()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start
