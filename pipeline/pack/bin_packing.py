"""Bin packing: assigns documents to rows. Pure arithmetic on numpy arrays.

In: the length of every document in tokens, separator included. Out: the segments of every row, as flat arrays.
Invariants: every token of every document is in exactly one segment; best-fit cuts only documents longer than a row; a
row has at most `seq_length` tokens; equal input gives an equal plan.
Cost: best-fit works on counts of equal lengths and equal free space, not on single documents, so its steps grow with
`seq_length`, not with the number of documents.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The segments of rows as flat arrays; row r has those from row_starts[r] to row_starts[r + 1]."""

    row_starts: np.ndarray
    """[rows + 1] int64."""
    documents: np.ndarray
    """[segments] int64, index of the document."""
    starts: np.ndarray
    """[segments] int64, first token of the document in the segment."""
    lengths: np.ndarray
    """[segments] int64, tokens of the segment."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_starts) - 1

    def offsets(self) -> np.ndarray:
        """[segments] int64, position of each segment in its row."""
        ends = np.cumsum(self.lengths)
        firsts = np.concatenate(([0], ends))[self.row_starts[:-1]]
        return np.asarray(ends - self.lengths - np.repeat(firsts, np.diff(self.row_starts)))


def concat(lengths: np.ndarray, seq_length: int) -> RowPlan:
    """Concatenate documents and cut them where a row ends."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    cuts = np.unique(np.concatenate((ends, np.arange(0, total, seq_length), [total])))
    firsts, lasts = cuts[:-1], cuts[1:]
    documents = np.searchsorted(ends, firsts, side="right")
    row_starts = np.searchsorted(firsts, np.arange(0, total + seq_length, seq_length)[: -(-total // seq_length) + 1])
    row_starts[-1] = len(firsts)
    return RowPlan(row_starts, documents, firsts - (ends - lengths)[documents], lasts - firsts)


def best_fit(lengths: np.ndarray, seq_length: int) -> RowPlan:
    """Best-fit decreasing (Ding et al., 2024, "Fewer Truncations Improve Language Modeling").

    Documents longer than a row are first cut into full rows and a rest. Then every piece, longest first, goes to the
    row with the least free space that fits it, or to a new row.
    """
    pieces = -(-lengths // seq_length)
    documents = np.repeat(np.arange(len(lengths)), pieces)
    ranks = np.arange(len(documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = ranks * seq_length
    sizes = np.minimum(lengths[documents] - starts, seq_length)
    order = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), dtype=np.int64)
    rows_by_space: list[deque[tuple[int, int]]] = [deque() for _ in range(seq_length + 1)]  # runs of (first row, count)
    has_rows = np.zeros(seq_length + 1, dtype=bool)
    rows = 0
    position = 0
    distinct, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = position + count
        while position < end:
            space = int(np.argmax(has_rows[size:])) + size
            if has_rows[space]:
                first, run = rows_by_space[space].popleft()
            else:
                first, run, space = rows, end - position, seq_length
            # A row that fits a piece best fits the next equal piece best, too: it then has even less space.
            each = min(space // size, end - position)
            taken = min(run, (end - position) // each)
            row_of[order[position : position + taken * each]] = first + np.repeat(np.arange(taken), each)
            position += taken * each
            if first == rows:
                rows += taken
            elif taken < run:
                rows_by_space[space].appendleft((first + taken, run - taken))
            has_rows[space] = bool(rows_by_space[space])
            if space > each * size:
                rows_by_space[space - each * size].append((first, taken))
                has_rows[space - each * size] = True
    by_row = order[np.argsort(row_of[order], kind="stable")]
    row_starts = np.searchsorted(row_of[by_row], np.arange(rows + 1))
    return RowPlan(row_starts, documents[by_row], starts[by_row], sizes[by_row])


def fill(plan: RowPlan, ids: np.ndarray, document_starts: np.ndarray, seq_length: int, pad: int) -> np.ndarray:
    """[rows, seq_length] token ids of a plan; document d begins at document_starts[d] of `ids`."""
    begins = document_starts[plan.documents] + plan.starts
    ends = begins + plan.lengths
    space = seq_length - np.add.reduceat(plan.lengths, plan.row_starts[:-1]) if plan.rows else np.empty(0, np.int64)
    padded = np.flatnonzero(space)
    after = plan.row_starts[1:][padded]  # padding is one more segment, from a row of padding
    begins = np.insert(begins, after, len(ids))
    ends = np.insert(ends, after, len(ids) + space[padded])
    source = np.append(ids, np.full(seq_length, pad, dtype=ids.dtype))
    slices = [source[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    return np.concatenate([source[:0], *slices]).reshape(plan.rows, seq_length)
