"""The mixture of datasets: rows that a run takes of each, and tokens delivered at any step.

In: rows and tokens of the datasets, and their weights, if any. Out: rows to take of each, and sums of tokens.
Invariants: weights are shares of tokens, not of rows; no dataset is repeated more often than the cap allows, and the
others take its place in proportion to their weights; without weights each row is seen equally often.
Cost: reads the segments of all rows, about a second per million; keeps one number per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.train.data.collate import Rows, row_tokens
from corpus.train.data.sampler import Order, ShuffleGroup

MAX_REPEATS = 4.0
"""Epochs of a dataset after which repeats are worth less than new text (Muennighoff et al., 2023)."""
_SLICE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Share:
    """One dataset's share of a run."""

    name: str
    rows: int
    """Its training rows."""
    tokens: int
    """Its training tokens, padding left out."""
    asked: float
    """Share of the run's tokens: by weight, or by size without weights."""
    taken: int
    """Rows that the run takes, repeats included; rounded without weights."""


def sizes(rows: Rows) -> np.ndarray:
    """[rows] int64: tokens of each row, padding left out."""
    slices = range(0, len(rows), _SLICE_ROWS)
    return np.concatenate([row_tokens(rows.table[first : first + _SLICE_ROWS]) for first in slices])


def shares(
    names: Sequence[str], rows: Sequence[int], tokens: Sequence[int], weights: Sequence[float] | None, *, total: int,
    max_repeats: float | None,
) -> list[Share]:  # fmt: skip
    """The shares of a run of `total` rows; a cap of `max_repeats` epochs of a dataset can leave fewer.

    `rows` and `tokens` are those of each dataset, above 0. `weights` are shares of the tokens, by size when None, and
    need not sum to 1.
    """
    by = np.array(tokens if weights is None else weights, dtype=np.float64)
    density = np.array(tokens) / np.array(rows)
    most = np.floor(np.array(rows) * max_repeats) if max_repeats else np.full(len(rows), np.inf)
    taken = _whole(_filled(by / density, most, total), most, total)
    asked: list[float] = (by / by.sum()).tolist()
    return [Share(*values) for values in zip(names, rows, tokens, asked, taken.tolist(), strict=True)]


def parts(found: Sequence[Share], *, weighted: bool) -> list[ShuffleGroup]:
    """The groups that are shuffled together: one for each dataset with weights, one for all without."""
    if weighted:
        return [ShuffleGroup(share.rows, share.taken) for share in found]
    return [ShuffleGroup(sum(share.rows for share in found), sum(share.taken for share in found))]


def delivered(order: Order, found: Sequence[Share], tokens: np.ndarray, step: int) -> dict[str, dict[str, float]]:
    """What a run has read of each dataset before a step: `rows`, `tokens`, `share` of the tokens, `epochs`.

    `found` are the run's datasets in the order of their rows, `tokens` [rows] what `sizes` gives.
    """
    edges = np.cumsum([0, *(share.rows for share in found)])
    rows_d, tokens_d = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    for numbers, times in _seen(order, order.steps.begin(step)):
        places = np.searchsorted(edges, numbers, side="right") - 1
        rows_d += times * np.bincount(places, minlength=len(found))
        tokens_d += times * np.bincount(places, tokens[numbers], minlength=len(found)).astype(np.int64)
    return {
        share.name: {
            "rows": int(rows),
            "tokens": int(count),
            "share": round(int(count) / max(1, int(tokens_d.sum())), 6),
            "epochs": round(int(rows) / share.rows, 6),
        }
        for share, rows, count in zip(found, rows_d, tokens_d, strict=True)
    }


def _seen(order: Order, position: int) -> list[tuple[np.ndarray, int]]:
    """Lists of row numbers before a position, and how often each list was seen."""
    block = order.block_at(position) if position < order.steps.total else order.block_at(position - 1) + 1
    seen = []
    offset = 0
    for index, part in enumerate(order.parts):
        epochs, rest = divmod(order.taken_before(index, block), part.rows)
        seen.append((np.arange(offset, offset + part.rows), epochs))
        seen.append((order.epoch(index, epochs)[:rest] + offset, 1))
        offset += part.rows
    begun = position - order.block_begin(block)
    return [*seen, (order.block(block)[:begun], 1)] if begun > 0 else seen


def _filled(ratio: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """Fractional rows in a ratio, each at most its cap; the others take the place of a capped one."""
    taken = np.zeros(len(ratio))
    free = np.ones(len(ratio), dtype=np.bool_)
    while free.any():
        left = total - taken[~free].sum()
        taken[free] = left * ratio[free] / ratio[free].sum()
        over = free & (taken > most)
        if not over.any():
            break
        taken[over] = most[over]
        free &= ~over
    return taken


def _whole(taken: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """Whole rows that sum to `total` or to all rows: the largest remainders are rounded up."""
    whole: np.ndarray = np.floor(taken).astype(np.int64)
    lacking = min(total, round(float(taken.sum()))) - int(whole.sum())
    for index in np.argsort(whole - taken, kind="stable")[:lacking]:
        whole[index] += whole[index] < most[index]
    return whole
