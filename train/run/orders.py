"""The order in which a run reads its items, from its configuration and plan."""

from __future__ import annotations

from typing import Any

from corpus.train.config import SHUFFLE_BLOCK, TrainConfig
from corpus.train.data.block_order import BlockOrder
from corpus.train.data.mixture import parts
from corpus.train.data.sampler import Order
from corpus.train.run.plan import RunPlan


def make(config: TrainConfig, plan: RunPlan, *, micro_batch_size: int, rank: int = 0, world: int = 1) -> Order:
    """The order for one process of a run."""
    objective = plan.objective
    settings: dict[str, Any] = {
        "parts": parts(plan.shares, weighted=config.is_weighted), "steps": plan.steps, "seed": config.seed,
        "micro_batch_size": micro_batch_size, "rank": rank, "world": world, "lengths": objective.lengths,
    }  # fmt: skip
    if config.shuffle == "block" and objective.shards is not None:
        return BlockOrder(shards=objective.shards, block_shards=config.shuffle_block or SHUFFLE_BLOCK, **settings)
    return Order(**settings)
