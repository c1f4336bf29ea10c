"""Packed rows to a batch: inputs, targets, positions and the document mask are computed from the segments.

In: a table of packed rows as `corpus.pipeline.pack` writes them. Out: the tensors of a causal model.
Invariants: with the document mask a document is read from the separator on: its first token is predicted from it, and
the separator that ends the document is a target alone, so a document takes as many places as it has tokens. A later
piece of a document longer than a row begins with its own first token, which is no target. Padding is never a target,
and with the objective `sft` neither is the question. Positions restart with each segment, and padding is a separate
segment.
There is no attention mask and `use_cache` is off: otherwise `transformers` lets documents of a row attend to each
other, without a warning.
Cost: a few vectorised passes over the batch in numpy, about 0.2 ms a row.
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
"""The target that the loss ignores."""


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
    counts_r, _, lengths_s = _segments(table)
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
    separator: int
    """Id of the token from which a document is read."""
    document_mask: bool = True
    """Whether attention stays inside a document; without it, positions run through the row as it was packed, and only
    its first token and padding are no targets."""
    answer_after: int | None = None
    """Id of the token before an answer. When given, only tokens after the first such token of a segment are targets,
    the separator included; a segment without it (a later piece of a document longer than a row) has none."""
    question_after: int | None = None
    """Id of the token before a question: from it on there are no targets until the next answer."""

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """`input_ids`, `labels`, `shift_labels`, `position_ids`: [r, t] int64, and `use_cache` off.

        `shift_labels` holds at each place the token to predict there, as the losses of `transformers` take it;
        `labels` is the same array, without which they compute no loss. No rows give one row of padding.
        """
        if table.num_rows == 0:
            ids_rt = np.full((1, PADDING_TOKENS), self.pad_id, dtype=np.int64)
            return as_batch(ids_rt, np.full_like(ids_rt, IGNORED), np.arange(PADDING_TOKENS)[None])
        ids = np.concatenate([chunk.flatten().to_numpy() for chunk in table["input_ids"].chunks])
        ids_rt = ids.reshape(-1, self.seq_length).astype(np.int64)
        counts_r, starts_s, lengths_s = _segments(table)
        row_s = np.repeat(np.arange(len(counts_r)), counts_r)
        used_r = row_tokens(table)
        offset_s = np.cumsum(lengths_s) - lengths_s - (np.cumsum(used_r) - used_r)[row_s]
        column_t = np.arange(self.seq_length)
        tokens_rt = np.where(column_t < used_r[:, None], ids_rt, IGNORED)
        if self.answer_after is not None:
            asked_rt = ids_rt == (-1 if self.question_after is None else self.question_after)
            tokens_rt[~_answers(ids_rt == self.answer_after, asked_rt, row_s, offset_s)] = IGNORED
        targets_rt = np.full_like(ids_rt, IGNORED)
        targets_rt[:, :-1] = tokens_rt[:, 1:]
        if not self.document_mask:
            return as_batch(ids_rt, targets_rt, np.broadcast_to(column_t, ids_rt.shape))
        begins_rt = np.zeros(ids_rt.shape, dtype=np.bool_)
        begins_rt[row_s, offset_s] = True
        padded_r = np.flatnonzero(used_r < self.seq_length)
        begins_rt[padded_r, used_r[padded_r]] = True
        targets_rt[:, :-1][begins_rt[:, 1:]] = IGNORED
        begin_rt = np.maximum.accumulate(np.where(begins_rt, column_t, 0), axis=1)
        whole_rt = np.zeros(ids_rt.shape, dtype=np.bool_)
        whole_rt[row_s, offset_s] = starts_s == 0
        from_separator_rt = np.take_along_axis(whole_rt, begin_rt, axis=1)
        inputs_rt = np.where(from_separator_rt, np.roll(ids_rt, 1, axis=1), ids_rt)
        inputs_rt[whole_rt] = self.separator
        return as_batch(inputs_rt, np.where(from_separator_rt, tokens_rt, targets_rt), column_t - begin_rt)


def as_batch(ids_rt: np.ndarray, targets_rt: np.ndarray, positions_rt: np.ndarray | None = None) -> dict[str, Any]:
    """The batch of a causal model: inputs, the token to predict at each place, positions where given; no cache."""
    targets = torch.from_numpy(targets_rt)
    batch = {"input_ids": torch.from_numpy(ids_rt), "labels": targets, "shift_labels": targets, "use_cache": False}
    return batch if positions_rt is None else batch | {"position_ids": torch.from_numpy(positions_rt.copy())}


def _answers(marks_rt: np.ndarray, asked_rt: np.ndarray, row_s: np.ndarray, offset_s: np.ndarray) -> np.ndarray:
    """[r, t] whether a mark precedes the token in its segment, with no question in between.

    Segments begin in row `row_s` at `offset_s`, questions where `asked_rt`.
    """
    before_rt = np.cumsum(marks_rt, axis=1) - marks_rt
    outside_rt = np.where(asked_rt, before_rt, 0)
    outside_rt[row_s, offset_s] = before_rt[row_s, offset_s]
    answers: np.ndarray = before_rt > np.maximum.accumulate(outside_rt, axis=1)
    return answers


def _segments(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[r] segments of each row, [s] the place of their first token in its document, and [s] their lengths."""
    none = np.empty(0, np.int64)
    counts, starts, lengths = [none], [none], [none]
    for chunk in table["segments"].chunks:
        counts.append(np.diff(chunk.offsets.to_numpy()))
        segments = chunk.flatten()
        starts.append(segments.field("start").to_numpy())
        lengths.append(segments.field("length").to_numpy())
    return np.concatenate(counts), np.concatenate(starts), np.concatenate(lengths).astype(np.int64)
