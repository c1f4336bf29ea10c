"""Logits of a task's items.

In: a task network and encoded items. Out: [items, labels or options] float64.
Invariants: an item's logits do not depend on those beside it in a pass; the mode of the network is restored.
Cost: one pass over each sequence; sequences of like length are in one pass, longest first.
"""

# Shape suffixes: n items, k labels or options.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from corpus.train.data.passes import passes
from corpus.train.tasks.batches import TaskCollator, TaskItems


def logits(
    network: Any, items: TaskItems, numbers: Sequence[int] | np.ndarray, *, collator: TaskCollator, labels: int,
    tokens: int, precision: str = "fp32",
) -> np.ndarray:  # fmt: skip
    """[n, labels] the logits of the items with these numbers; an option that an item does not have has -inf.

    A pass has at most `tokens` tokens, padding included, and at least one item.
    """
    device = next(network.parameters()).device
    found_nk = np.full((len(numbers), labels), -np.inf)
    lengths = [max(map(len, items.encoded[number].sequences)) * items.most_sequences for number in numbers]
    training = network.training
    network.eval()
    try:
        for places in passes(lengths, tokens=tokens):
            batch = collator(items.__getitems__([numbers[place] for place in places]))
            inputs = {name: value.to(device) for name, value in batch.items()}
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                given_nk = network(**inputs).logits.cpu().double().numpy()
            found_nk[places, : given_nk.shape[1]] = given_nk
    finally:
        network.train(training)
    return found_nk


def log_probabilities(logits_nk: np.ndarray) -> np.ndarray:
    """[n, k] their logarithmic softmax."""
    top_nk = logits_nk - logits_nk.max(axis=1, keepdims=True)
    values: np.ndarray = top_nk - np.log(np.exp(top_nk).sum(axis=1, keepdims=True))
    return values
