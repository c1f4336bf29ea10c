"""Documents cut to windows of a model's context, and batches of windows.

In: the tokens of documents. Out: windows, each with the tokens it predicts, and the tensors of one pass.
Invariants: without overlap each token is predicted exactly once, except the first of each window; with overlap each
token except the document's first; where a prefix stands before the document, its first token is predicted too, and the
first window predicts a whole context, as in a packed row; the grouping of windows into passes and its order change no
sum.
Cost: a view of the document's arrays for each window; a pass is padded to its longest window, so windows are sorted by
length before.
"""

# Shape suffixes: w windows of a pass, t tokens of a window or a document.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from corpus.train.data.collate import IGNORED, as_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class TextWindow:
    """A run of a document's tokens."""

    ids_t: np.ndarray
    """[t] tokens; the model reads all but the last one, which is predicted alone."""
    first: int
    """The first token that is predicted; the tokens before it are only read."""
    sizes: tuple[int, int]
    """Characters and bytes of the predicted tokens."""
    last: bool
    """Whether it is the last one of its document, to count documents by."""


def cut(length: int, context: int, stride: int, *, prefixed: bool = False) -> Iterator[tuple[int, int, int]]:
    """Begin, end and first predicted token of each window of a document; with `prefixed` its first one is a prefix.

    Without overlap the first token of a window is not predicted; with overlap a window predicts the tokens that no
    earlier window predicted. A window that would predict no token is left out.

    >>> list(cut(9, 4, 4)), list(cut(9, 4, 2))
    ([(0, 4, 1), (4, 8, 5)], [(0, 4, 1), (2, 6, 4), (4, 8, 6), (6, 9, 8)])
    >>> list(cut(10, 4, 4, prefixed=True))
    [(0, 5, 1), (5, 9, 6)]
    """
    done = 0
    for number in range(-(-length // stride)):
        begin = number * stride + (prefixed and number > 0)
        end = min(number * stride + context + prefixed, length)
        first = max(begin + 1, done)
        if first < end:
            yield begin, end, first
        done = end
        if end == length:
            return


def windows_of(
    ids_t: np.ndarray, sizes: np.ndarray, context: int, stride: int, *, prefixed: bool = False
) -> list[TextWindow]:
    """The windows of a document's tokens `ids_t` [t]; `sizes` [t, 2] are the characters and bytes of each token."""
    places = list(cut(len(ids_t), context, stride, prefixed=prefixed))
    totals = np.concatenate((np.zeros((1, 2), np.int64), np.cumsum(sizes, axis=0)))
    return [
        TextWindow(
            ids_t=ids_t[begin:end],
            first=first - begin,
            sizes=tuple((totals[end] - totals[first]).tolist()),
            last=number == len(places),
        )
        for number, (begin, end, first) in enumerate(places, 1)
    ]


def make_batch(windows: Sequence[TextWindow], filler: int) -> dict[str, Any]:
    """`input_ids`, `attention_mask`, `labels`, `shift_labels`: [w, t] int64, padded on the right; no cache."""
    longest = max(len(window.ids_t) for window in windows) - 1
    ids_wt = np.full((len(windows), longest), filler, dtype=np.int64)
    targets_wt = np.full_like(ids_wt, IGNORED)
    mask_wt = np.zeros_like(ids_wt)
    for row, window in enumerate(windows):
        length = len(window.ids_t) - 1
        ids_wt[row, :length] = window.ids_t[:-1]
        targets_wt[row, window.first - 1 : length] = window.ids_t[window.first :]
        mask_wt[row, :length] = 1
    return as_batch(ids_wt, targets_wt) | {"attention_mask": torch.from_numpy(mask_wt)}
