"""Episodes of PPO: a policy writes an answer to each prompt, at temperature 1 and without filters.

In: a network, prompts as ids, and a seed for each. Out: the tokens of each answer with their log-probabilities.
Invariants: an answer depends on weights, prompt and seed, not on the answers beside it; prompts of different length are
read with the positions that training gives them; banned tokens are never written, and log-probabilities are over the
others.
Cost: one token a step for all rows of a batch, from a cache of keys and values; finished rows leave the batch.
"""

# Shape suffixes: b rows of the batch, v vocabulary.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from corpus.train.model.kv_cache import SlidingCache
from corpus.train.model.sampling import Noise, choose, log_probabilities

ROWS = 64
"""Most answers that grow together: the cache of each takes memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may hold."""

    separator: int
    """Id of the token that ends it."""
    banned: tuple[int, ...]
    """Ids that are never written."""
    tokens: int
    """Most tokens of an answer, its end included."""
    context: int
    """Most tokens of prompt and answer; no prompt is longer than what `tokens` leave of it."""


class Answer(NamedTuple):
    """An answer."""

    ids: np.ndarray
    """[tokens] with the separator where it ends."""
    logs: np.ndarray
    """[tokens] their log-probabilities as they were drawn."""


@dataclass(frozen=True, slots=True)
class _Reader:
    network: Any
    context: int


def write(
    network: Any, prompts: Sequence[np.ndarray], seeds: Sequence[int], limits: Limits, *, precision: str = "fp32"
) -> list[Answer]:
    """An answer to each prompt. Training or evaluation mode of the network is restored."""
    training, device = network.training, next(network.parameters()).device
    found: list[Answer] = []
    network.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"), torch.inference_mode():
            for first in range(0, len(prompts), ROWS):
                part = slice(first, first + ROWS)
                found += _batch(_Reader(network, limits.context), prompts[part], seeds[part], limits, device)
    finally:
        network.train(training)
    return found


def _batch(
    reader: _Reader, prompts: Sequence[np.ndarray], seeds: Sequence[int], limits: Limits, device: torch.device
) -> list[Answer]:
    banned = torch.tensor(limits.banned, dtype=torch.long, device=device)
    cache = SlidingCache(reader, [prompt.tolist() for prompt in prompts], range(len(prompts)))
    noise = Noise(seeds, device)
    ids: list[list[int]] = [[] for _ in prompts]
    logs: list[list[float]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    while True:
        scores_bv = cache.logits_bv.index_fill(1, banned, -torch.inf)
        tokens_b = choose(scores_bv, noise.draw())
        drawn = zip(alive, tokens_b.tolist(), log_probabilities(scores_bv, tokens_b).tolist(), strict=True)
        for row, token, log in drawn:
            ids[row].append(token)
            logs[row].append(log)
        going = [place for place, row in enumerate(alive) if ids[row][-1] != limits.separator]
        if not going or len(ids[alive[going[0]]]) == limits.tokens:
            return [Answer(np.array(own), np.array(each)) for own, each in zip(ids, logs, strict=True)]
        if len(going) < len(alive):
            alive = [alive[place] for place in going]
            cache.keep(going)
            noise.keep(going)
            tokens_b = tokens_b[going]
        cache.step(tokens_b)
