"""What a run will take: its memory by a formula, its time by a guess from real passes.

In: a run, and a model in place. Out: numbers for what is said before it starts.
Invariant: timing a pass leaves the random state and the gradients as they were.
Cost: one or two passes.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from corpus.train.presets import fixed_memory, token_memory

FORWARD_SHARE = 1 / 3
"""Of a training pass: what evaluating the same row takes."""
_SLOW_S = 5.0


def step_memory(model: Any, *, seq_length: int, precision: str, checkpointing: bool) -> tuple[int, int]:
    """Estimated bytes of a training step: whatever its rows, and for each row of a pass."""
    token = token_memory(
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        vocab_size=model.config.vocab_size,
        context=seq_length,
        precision=precision,
        checkpointing=checkpointing,
    )
    return fixed_memory(model.num_parameters(), precision), seq_length * token


def pass_seconds(model: Any, batch: dict[str, Any], *, precision: str) -> float:
    """Seconds of a forward and a backward pass: of a second one, when the first shows that this is not long."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    apart = [device] if device.type in {"cuda", "xpu"} else []  # the others draw from the CPU's state, or keep no own
    with torch.random.fork_rng(apart, device_type=device.type if apart else "cuda"):
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
