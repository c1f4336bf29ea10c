"""Items of a task as tokens, and batches of them.

In: items and a tokenizer. Out: `TaskItems`, and the tensors of a pass.
Invariants: sequences are padded on the right, so positions begin at 0; the token that the head reads is the last one
before the padding.
Cost: all items as ids in memory, 4 bytes a token.
"""

# Shape suffixes: n items of a batch, s sequences of a batch, t tokens of a sequence.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from corpus.pipeline.tasks.schema import Item
from corpus.train.data.collate import IGNORED, PADDING_TOKENS
from corpus.train.tasks.forms import Form, texts_of
from corpus.train.tasks.tokens import TaskTokenizer

_ENCODED = 256
"""Items that are encoded together."""


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """An item as sequences of ids."""

    sequences: Sequence[np.ndarray]
    label: int


class TaskItems:
    """Encoded items by number; `context` is the longest sequence."""

    def __init__(self, items: Sequence[Item], tokenizer: TaskTokenizer, form: Form, context: int) -> None:
        self.items = items
        self.encoded: list[EncodedItem] = []
        self.cut = self.cut_tokens = 0
        for first in range(0, len(items), _ENCODED):
            for item, texts in _tokens(items[first : first + _ENCODED], tokenizer):
                fields, options = texts[: len(item.texts)], texts[len(item.texts) :]
                sequences, dropped = form.sequences(fields, options, tokenizer.marks, context)
                self.encoded.append(EncodedItem(sequences, item.label))
                self.cut += dropped > 0
                self.cut_tokens += dropped

    def __len__(self) -> int:
        """How many."""
        return len(self.encoded)

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> list[EncodedItem]:
        """Those with these numbers."""
        return [self.encoded[row] for row in rows]

    @property
    def tokens(self) -> np.ndarray:
        """[items] tokens of all sequences of each item."""
        return np.array([sum(map(len, item.sequences)) for item in self.encoded], dtype=np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """[items] tokens of the longest sequence of each item."""
        return np.array([max(map(len, item.sequences)) for item in self.encoded], dtype=np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max(initial=0))

    @property
    def most_sequences(self) -> int:
        """Most sequences of an item."""
        return max((len(item.sequences) for item in self.encoded), default=0)


@dataclass(frozen=True, slots=True)
class TaskCollator:
    """Makes a batch of items."""

    pad: int
    """Id of the padding."""

    def __call__(self, items: Sequence[EncodedItem]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` [s, t], `owners`, `places` [s], `labels` [n].

        `owners` names the item of a sequence, `places` its place in the item. No items become one without a label.
        """
        if not items:
            items = [EncodedItem([np.full(PADDING_TOKENS, self.pad, dtype=np.int32)], IGNORED)]
        sequences = [ids for item in items for ids in item.sequences]
        counts = [len(item.sequences) for item in items]
        ids_st = np.full((len(sequences), max(map(len, sequences))), self.pad, dtype=np.int64)
        mask_st = np.zeros_like(ids_st)
        for row, ids in enumerate(sequences):
            ids_st[row, : len(ids)] = ids
            mask_st[row, : len(ids)] = 1
        arrays = {
            "input_ids": ids_st,
            "attention_mask": mask_st,
            "owners": np.repeat(np.arange(len(items)), counts),
            "places": np.concatenate([np.arange(count) for count in counts]),
            "labels": np.array([item.label for item in items], dtype=np.int64),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _tokens(items: Sequence[Item], tokenizer: TaskTokenizer) -> Any:
    """Each item with the tokens of its texts; they are encoded together."""
    texts = [texts_of(item) for item in items]
    encoded = iter(tokenizer.encode([text for each in texts for text in each]))
    return [(item, [next(encoded) for _ in each]) for item, each in zip(items, texts, strict=True)]
