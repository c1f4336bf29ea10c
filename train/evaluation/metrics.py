"""Loss, perplexity, bits per character and bits per byte of a model on packed rows.

In: a model, packed rows of one split, the tokenizer. Out: sums over all predicted tokens, and the four figures computed
from them. `corpus.train.evaluation.stage` gives the same sums for documents and any model.
Invariants: figures come from sums, not from means of means, so the rows of a pass and the number of processes change
only rounding; a character counts in the token of its first byte; the separator has nats but no bytes, so predicting the
end of a document counts.
Cost: one forward pass a row; the logits of one pass are converted to single precision a row at a time.
"""

# Shape suffixes: r rows of a pass, t tokens of a row, v entries of the vocabulary.
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from corpus.pipeline.errors import TokenizerError
from corpus.pipeline.tokenizer.special_tokens import BYTE_NAMES
from corpus.train.data.collate import IGNORED, Collator, Rows
from corpus.train.evaluation.config import Score


def evaluate(
    model: Any, rows: Rows, numbers: Sequence[int] | np.ndarray, *, collator: Collator, sizes: np.ndarray,
    rows_per_pass: int, precision: str = "fp32",
) -> Score:  # fmt: skip
    """Score the rows with these numbers under a causal model, whose training or evaluation mode is restored.

    The collator's document mask decides which tokens a token attends to. `sizes` [v, 2] is what `token_sizes` gives;
    `precision` is "fp32" or "bf16".
    """
    device = next(model.parameters()).device
    nats = 0.0
    totals = np.zeros(3, dtype=np.int64)
    training = model.training
    model.eval()
    try:
        for first in range(0, len(numbers), rows_per_pass):
            batch = collator(rows.__getitems__(numbers[first : first + rows_per_pass]))
            targets = batch["shift_labels"].numpy()
            predicted = targets[targets != IGNORED]
            totals += (len(predicted), *sizes[predicted].sum(axis=0))
            nats += batch_nats(model, batch, device, precision)
    finally:
        model.train(training)
    return Score(nats=nats, tokens=int(totals[0]), characters=int(totals[1]), bytes=int(totals[2]))


@torch.no_grad()
def batch_nats(model: Any, batch: dict[str, Any], device: torch.device, precision: str) -> float:
    """Negative log-likelihood of all targets of a batch."""
    batch = {name: value for name, value in batch.items() if name != "labels"}
    targets_rt = batch.pop("shift_labels").to(device)
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits_rtv = model(**inputs).logits
    return sum(
        torch.nn.functional.cross_entropy(logits_tv.float(), targets_t, ignore_index=IGNORED, reduction="sum").item()
        for logits_tv, targets_t in zip(logits_rtv, targets_rt, strict=True)
    )


def spread(rows: int, limit: int) -> np.ndarray:
    """At most `limit` row numbers (all when 0), spread evenly because packing puts long documents first.

    >>> spread(10, 4).tolist()
    [0, 2, 5, 7]
    """
    wanted = min(rows, limit) if limit else rows
    return np.arange(wanted) * rows // max(wanted, 1)


def token_sizes(path: Path) -> np.ndarray:
    """[v, 2] characters that begin in each token, and its bytes; 0 for special tokens and for ids without a token.

    Raises:
        TokenizerError: the `tokenizer.json` is not that of a byte-level tokenizer.

    """
    return vocabulary_sizes(Tokenizer.from_file(str(path)), str(path))


def vocabulary_sizes(tokenizer: Tokenizer, name: str) -> np.ndarray:
    """`token_sizes` of a tokenizer in memory; `name` is its name in an error."""
    byte_of = {character: byte for byte, character in BYTE_NAMES.items()}
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = tokenizer.get_vocab()
    sizes = np.zeros((max(vocabulary.values(), default=-1) + 1, 2), dtype=np.int64)
    for token, number in vocabulary.items():
        if number in added:  # literal text, or special
            sizes[number] = (0, 0) if added[number].special else (len(token), len(token.encode()))
            continue
        try:
            begins = sum(byte_of[character] & 0xC0 != 0x80 for character in token)
        except KeyError as error:
            raise TokenizerError(f"{name} is not a byte-level tokenizer: it has the token {token!r}") from error
        sizes[number] = begins, len(token)
    return sizes
