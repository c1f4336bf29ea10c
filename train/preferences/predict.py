"""What a network says of each answer: a reward model's logit, a policy's log-probability.

In: a network and rankings. Out: one number for each answer.
Invariants: an answer's number does not depend on those beside it in a pass; mode and random state are unchanged.
Cost: one pass over each answer; questions of like length are in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from corpus.train.data.passes import passes
from corpus.train.preferences.batches import RankingCollator, RankingItem, RankingItems


def answers(
    network: Any, items: RankingItems, numbers: Sequence[int] | np.ndarray, *, collator: RankingCollator, tokens: int,
    precision: str = "fp32", done: Callable[[Sequence[int], np.ndarray], None] = lambda *_: None,
) -> list[np.ndarray]:  # fmt: skip
    """[answers] float64 for each of the questions with these numbers, in their order.

    A pass has at most `tokens` tokens, padding included, and at least one question. `done` is called after each pass
    with the places of its questions in `numbers`, and the numbers of all their answers.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(numbers)
    lengths = [int(items.lengths[number]) * items.most_sequences for number in numbers]
    training = network.training
    network.eval()
    try:
        for places in passes(lengths, tokens=tokens):
            values = of_items(network, items.__getitems__([numbers[place] for place in places]), collator, precision)
            ends = np.cumsum([items.counts[numbers[place]] for place in places])
            for place, own in zip(places, np.split(values, ends[:-1]), strict=True):
                found[place] = own
            done(places, values)
    finally:
        network.train(training)
    return found


@torch.no_grad()
def of_items(network: Any, items: Sequence[RankingItem], collator: RankingCollator, precision: str) -> np.ndarray:
    """[all answers] float64 for the answers of some questions, in one pass of a network in evaluation mode."""
    device = next(network.parameters()).device
    inputs = {name: value.to(device) for name, value in collator(items).items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        given = network(**inputs).logits
    values: np.ndarray = given.double().reshape(-1).cpu().numpy()
    return values
