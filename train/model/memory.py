"""Memory and FLOPs of a training step by formula, and its time from a real pass.

In: a model on its device. Out: the estimates that a run prints before it starts.
Invariant: timing a pass leaves the random state and the gradients unchanged.
Cost: one or two passes.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from corpus.train.presets import block_memory, fixed_memory, token_memory

FORWARD_SHARE = 1 / 3
"""Time of evaluating a row, as a share of a training pass."""
_SLOW_S = 5.0


def step_memory(
    model: Any, *, seq_length: int, precision: str, checkpointing: bool, one_moment: int = 0
) -> tuple[int, int]:
    """Estimated bytes of a training step: the fixed part, and what each row of a pass adds.

    `one_moment` is the number of weights for which the optimizer keeps one moment, not Adam's two.
    """
    config = model.config
    names = [name for name, _ in model.named_parameters()]
    token = token_memory(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab_size=config.vocab_size,
        context=seq_length,
        precision=precision,
        checkpointing=checkpointing,
        block=block_memory(
            width=config.hidden_size,
            feed_forward=_feed_forward(config),
            precision=precision,
            has_gate=any("gate" in name for name in names),
            has_qk_norm=any("q_norm" in name for name in names),
        ),
    )
    return fixed_memory(model.num_parameters(), precision, one_moment=one_moment), seq_length * token


def token_flops(model: Any, seq_length: int) -> float:
    """FLOPs of a training step for each token: 6 N + 12 L d s (Chowdhery et al., 2022, appendix B).

    N counts a tied embedding once, as the output head, an untied one not at all, and of a mixture of experts the share
    that a token goes through; d is the width of all heads; s is the row length, also where attention stays in
    documents.
    """
    config = model.config
    heads = getattr(config, "num_attention_heads", None) or 0
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads) if heads else 0
    used = model.num_parameters()
    if not getattr(config, "tie_word_embeddings", True):
        used -= model.get_input_embeddings().weight.numel()
    if experts := _experts(config):
        held = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
        used -= held - held * (getattr(config, "num_experts_per_tok", None) or experts) // experts
    return float(6 * used + 12 * config.num_hidden_layers * width * seq_length)


def _feed_forward(config: Any) -> int:
    """Units of the feed-forward layers that a token goes through, in one block."""
    units = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    if _experts(config):
        units = getattr(config, "moe_intermediate_size", None) or units
        return int(units * (getattr(config, "num_experts_per_tok", None) or 1))
    return int(units)


def _experts(config: Any) -> int:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((int(number) for name in names if (number := getattr(config, name, None))), 0)


def checkpoint_bytes(parameters: int, *, one_moment: int = 0) -> int:
    """Bytes of a checkpoint on disk: weights and Adam's two moments in single precision; Muon's weights have one."""
    return 3 * weight_bytes(parameters) - weight_bytes(one_moment)


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
