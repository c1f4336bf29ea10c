"""Log-likelihoods by plain passes of a model, without the harness: for a run that measures itself, and as a check.

In: a model, and pairs of token lists: what is read and what is scored. Out: the log-likelihood of each second list.
Invariants: mode and random state of the model stay as they are; padding on the right and its mask change only rounding.
Cost: one pass for each batch of texts, sorted by length.
"""

# Shape suffixes: r rows of a pass, t tokens of a row.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from corpus.train.data.collate import IGNORED
from corpus.train.data.passes import passes
from corpus.train.evaluation.windows import TextWindow, make_batch

_NO_SIZES = (0, 0)


@torch.no_grad()
def log_likelihoods(
    model: Any,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    context: int,
    rows: int,
    precision: str = "fp32",
) -> np.ndarray:
    """[pairs] sum of the log-probabilities of each answer's tokens; what does not fit `context` is cut on the left."""
    device = next(model.parameters()).device
    sums = np.zeros(len(pairs))
    training = model.training
    model.eval()
    try:
        for numbers in passes([sum(map(len, pair)) for pair in pairs], rows=rows):
            batch = make_batch([_window(*pairs[number], context) for number in numbers], 0)
            sums[numbers] = _sums(model, batch, device, precision)
    finally:
        model.train(training)
    return sums


def _window(read: Sequence[int], scored: Sequence[int], context: int) -> TextWindow:
    ids = [*read, *scored][-(context + 1) :]
    return TextWindow(ids_t=np.array(ids), first=len(ids) - len(scored), sizes=_NO_SIZES, last=True)


def _sums(model: Any, batch: dict[str, Any], device: torch.device, precision: str) -> list[float]:
    """Log-likelihood of the targets of each row."""
    targets_rt = batch["shift_labels"].to(device)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits_rtv = model(**inputs, use_cache=False).logits
    return [
        -torch.nn.functional.cross_entropy(logits_tv.double(), targets_t, ignore_index=IGNORED, reduction="sum").item()
        for logits_tv, targets_t in zip(logits_rtv, targets_rt, strict=True)
    ]
