"""Rankings as batches: the answers to each question as sequences, and which is better than which.

In: rankings as `corpus pack --form ranking` writes them. Out: `RankingItems`, and the tensors of a pass.
Invariants: an answer is read as the separator, the question, the answer and the separator that ends it; sequences are
padded on the right, so positions begin at 0 and the last token before the padding ends the answer; each answer of a
question stands in the pass once, in however many pairs it is.
Cost: rankings are memory-mapped and read when a pass needs them; 8 bytes an answer stay in memory.
"""

# Shape suffixes: n questions of a batch, s sequences (answers), p pairs, t tokens of a sequence.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from corpus.train.data.collate import IGNORED, PADDING_TOKENS

_SLICE = 4096


@dataclass(frozen=True, slots=True)
class RankingItem:
    """One question with its answers."""

    question: np.ndarray
    """[tokens]"""
    answers: Sequence[np.ndarray]
    """[tokens] of each, best first, with the separator at the end."""
    pairs: np.ndarray
    """[p, 2] numbers of the better and of the worse answer."""
    reference: np.ndarray
    """[answers] log-probabilities under the model that DPO starts from; zeros for a reward model."""


class RankingItems(Dataset[RankingItem]):
    """The rankings of the splits that `datasets` opened, concatenated, by number."""

    def __init__(self, parts: Sequence[Any]) -> None:
        import datasets  # noqa: PLC0415  # 1 s

        self.table = datasets.concatenate_datasets(list(parts)).with_format("arrow")
        self.counts, self.tokens, self.lengths = _sizes(self.table)
        self.starts = np.cumsum(self.counts) - self.counts
        """[items] place of each question's first answer among all answers."""
        self.reference = np.zeros(0)
        """[all answers] log-probabilities under the reference; empty without a reference."""

    def __len__(self) -> int:
        """Questions."""
        return len(self.table)

    def __getitem__(self, number: int) -> RankingItem:
        """One question."""
        return self.__getitems__([number])[0]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> list[RankingItem]:
        """Those with these numbers."""
        numbers = [int(row) for row in rows]
        if not numbers:
            return []
        found: pa.Table = self.table[numbers]
        items = []
        for number, row in zip(numbers, _rows(found), strict=True):
            first = self.starts[number]
            reference = self.reference[first : first + self.counts[number]]
            items.append(RankingItem(*row, reference if len(reference) else np.zeros(self.counts[number])))
        return items

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max(initial=0))

    @property
    def most_sequences(self) -> int:
        """Most answers of a question."""
        return int(self.counts.max(initial=0))


def _sizes(table: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[items] answers, [items] tokens of all sequences and [items] of the longest one."""
    none = np.zeros(0, np.int64)
    counts, tokens, longest = [none], [none], [none]
    for first in range(0, len(table), _SLICE):
        for question, answers, _ in _rows(table[first : first + _SLICE]):
            sizes = np.array([1 + len(question) + len(ids) for ids in answers])
            counts.append(np.array([len(sizes)]))
            tokens.append(np.array([sizes.sum()]))
            longest.append(np.array([sizes.max()]))
    return np.concatenate(counts), np.concatenate(tokens), np.concatenate(longest)


def _rows(table: pa.Table) -> list[tuple[np.ndarray, list[np.ndarray], np.ndarray]]:
    """Question, answers and pairs of each row."""
    found = []
    for question, answers, pairs in zip(table["question"], table["answers"], table["pairs"], strict=True):
        ids = [each.values.to_numpy() for each in answers.values]
        flat = pairs.values
        places = np.stack([flat.field("better").to_numpy(), flat.field("worse").to_numpy()], axis=1)
        found.append((question.values.to_numpy(), ids, places.astype(np.int64)))
    return found


@dataclass(frozen=True, slots=True)
class RankingCollator:
    """Makes a batch of questions."""

    separator: int
    """Id of the token from which a model reads."""
    pad: int
    """Id of the padding."""

    def __call__(self, items: Sequence[RankingItem]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `in_answer` [s, t], `reference` [s], `better`, `worse`, `owners` [p], `labels`
        [n].

        `in_answer` marks the tokens of the answer, `owners` names the question of a pair. `labels` is 1 for each
        question, so that the loss of a step is divided by their number; no questions become one without a label.
        `shift_labels` is the same: without it the Trainer leaves the first label of a causal model's pass uncounted.
        """
        if not items:
            pad = np.full(PADDING_TOKENS - 1, self.pad)
            items = [RankingItem(pad[:0], [pad], np.zeros((1, 2), np.int64), np.zeros(1))]
            labels = [IGNORED]
        else:
            labels = [1] * len(items)
        counts = [len(item.answers) for item in items]
        firsts = np.cumsum(counts) - counts
        sequences = [(item.question, ids) for item in items for ids in item.answers]
        width = max(1 + len(question) + len(ids) for question, ids in sequences)
        ids_st = np.full((len(sequences), width), self.pad, dtype=np.int64)
        mask_st, answer_st = np.zeros_like(ids_st), np.zeros(ids_st.shape, dtype=np.bool_)
        for row, (question, ids) in enumerate(sequences):
            begin, end = 1 + len(question), 1 + len(question) + len(ids)
            ids_st[row, 0] = self.separator
            ids_st[row, 1:begin], ids_st[row, begin:end] = question, ids
            mask_st[row, :end], answer_st[row, begin:end] = 1, True
        pairs_p2 = np.concatenate([item.pairs + first for item, first in zip(items, firsts, strict=True)])
        arrays = {
            "input_ids": ids_st,
            "attention_mask": mask_st,
            "in_answer": answer_st,
            "reference": np.concatenate([item.reference for item in items]).astype(np.float32),
            "better": pairs_p2[:, 0],
            "worse": pairs_p2[:, 1],
            "owners": np.repeat(np.arange(len(items)), [len(item.pairs) for item in items]),
            "labels": np.array(labels),
            "shift_labels": np.array(labels),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
