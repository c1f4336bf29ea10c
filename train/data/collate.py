"""Packed rows to a batch: labels, positions and the document mask are computed from the segments.

In: a table of packed rows as `corpus.pipeline.pack` writes them. Out: the tensors of a causal model.
Invariants: the first token of a segment and padding have no label; with the objective `sft` the question has no label
either; positions restart with each segment, and padding is a separate segment. There is no attention mask and
`use_cache` is off: otherwise `transformers` lets documents of a row attend to each other, without a warning.
Cost: a few vectorised passes over the batch in numpy, about 0.1 ms a row.
"""

# Shape suffixes: r rows of the batch, t tokens of a row, s segments of the batch.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

PADDING_TOKENS = 8
"""Length of the row of padding that replaces an empty pass."""
IGNORED = -100
"""The label that the loss ignores."""


class Rows(Dataset[pa.Table]):
    """Packed rows of the splits that `datasets` opened, concatenated, memory-mapped and read as Arrow tables."""

    def __init__(self, parts: Sequence[Any]) -> None:
        import datasets  # noqa: PLC0415  # 1 s

        self.table = datasets.concatenate_datasets(list(parts)).with_format("arrow")

    def __len__(self) -> int:
        """Rows over all parts."""
        return len(self.table)

    def __getitem__(self, row: int) -> pa.Table:
        """One row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> pa.Table:
        """Rows by number, in this order."""
        table: pa.Table = self.table[rows]
        return table


def row_tokens(table: pa.Table) -> np.ndarray:
    """[r] tokens of each row, padding left out."""
    counts_r, lengths_s = _segments(table)
    ends_s = np.concatenate(([0], np.cumsum(lengths_s)))
    last_r = np.cumsum(counts_r)
    tokens: np.ndarray = ends_s[last_r] - ends_s[last_r - counts_r]
    return tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """Makes a batch of a table of rows."""

    seq_length: int
    """Tokens of a row."""
    pad_id: int
    """Fills the one row of an empty batch."""
    document_mask: bool = True
    """Whether attention stays inside a document; without it, positions run through the row and only its first token
    and padding have no label."""
    answer_after: int | None = None
    """Id of the token before an answer. When given, only tokens after the first such token of a segment have a label,
    the separator included; a segment without it (a later piece of a document longer than a row) has no labels."""
    question_after: int | None = None
    """Id of the token before a question: from it on there are no labels until the next answer."""

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """`input_ids`, `labels`, `position_ids`: [r, t] int64, and `use_cache` off; one row of padding for no rows."""
        if table.num_rows == 0:
            ids_rt = np.full((1, PADDING_TOKENS), self.pad_id, dtype=np.int64)
            positions_rt = np.arange(PADDING_TOKENS)[None]
            return as_batch(input_ids=ids_rt, labels=np.full_like(ids_rt, IGNORED), position_ids=positions_rt)
        ids = np.concatenate([chunk.flatten().to_numpy() for chunk in table["input_ids"].chunks])
        ids_rt = ids.reshape(-1, self.seq_length).astype(np.int64)
        counts_r, lengths_s = _segments(table)
        row_s = np.repeat(np.arange(len(counts_r)), counts_r)
        used_r = row_tokens(table)
        offset_s = np.cumsum(lengths_s) - lengths_s - (np.cumsum(used_r) - used_r)[row_s]
        column_t = np.arange(self.seq_length)
        labels_rt = np.where(column_t < used_r[:, None], ids_rt, IGNORED)
        labels_rt[:, 0] = IGNORED
        if self.answer_after is not None:
            asked_rt = ids_rt == (-1 if self.question_after is None else self.question_after)
            labels_rt[~_answers(ids_rt == self.answer_after, asked_rt, row_s, offset_s)] = IGNORED
        starts_rt = np.zeros_like(ids_rt)
        if self.document_mask:
            labels_rt[row_s, offset_s] = IGNORED
            starts_rt[row_s, offset_s] = offset_s
            padded_r = np.flatnonzero(used_r < self.seq_length)
            starts_rt[padded_r, used_r[padded_r]] = used_r[padded_r]
            starts_rt = np.maximum.accumulate(starts_rt, axis=1)
        return as_batch(input_ids=ids_rt, labels=labels_rt, position_ids=column_t - starts_rt)


def as_batch(**arrays: np.ndarray) -> dict[str, Any]:
    """The arrays as tensors, and `use_cache` off."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"use_cache": False}


def _answers(marks_rt: np.ndarray, asked_rt: np.ndarray, row_s: np.ndarray, offset_s: np.ndarray) -> np.ndarray:
    """[r, t] whether a mark precedes the token in its segment, with no question in between.

    Segments begin in row `row_s` at `offset_s`, questions where `asked_rt`.
    """
    before_rt = np.cumsum(marks_rt, axis=1) - marks_rt
    outside_rt = np.where(asked_rt, before_rt, 0)
    outside_rt[row_s, offset_s] = before_rt[row_s, offset_s]
    answers: np.ndarray = before_rt > np.maximum.accumulate(outside_rt, axis=1)
    return answers


def _segments(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """[r] segments of each row and [s] their lengths."""
    counts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for chunk in table["segments"].chunks:
        counts.append(np.diff(chunk.offsets.to_numpy()))
        lengths.append(chunk.flatten().field("length").to_numpy())
    return np.concatenate(counts), np.concatenate(lengths).astype(np.int64)
