"""Memory that a pass of a network keeps for the backward pass."""

from __future__ import annotations

from typing import Any

import torch


def kept_bytes(model: Any, ids: torch.Tensor, positions: torch.Tensor, precision: str) -> int:
    """Bytes that a pass over packed rows keeps for the backward pass, without weights and their half copies."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        model(input_ids=ids, labels=ids, position_ids=positions, use_cache=False)
    half_weights = sum(p.numel() * 2 for p in model.parameters() if p.ndim == 2) if precision == "bf16" else 0
    return sum(sizes.values()) - half_weights
