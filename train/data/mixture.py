"""How much of each dataset a run takes, and how much it has delivered at any step.

In: what the datasets have, and weights or none. Out: rows to take of each, and sums of tokens.
Invariants: weights are shares of tokens, not of rows; no dataset is repeated more often than the cap allows, what it
lacks then goes to the others in proportion to their weights; without weights each row comes equally often.
Cost: a look at the segments of all rows, about a second a million; one number a row is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.train.data.collate import Rows, row_tokens
from corpus.train.data.sampler import Order, Part

MAX_REPEATS = 4.0
"""Epochs of a dataset after which more repeats teach less than new text would (Muennighoff et al., 2023)."""
_SLICE_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One dataset's part in a run."""

    name: str
    rows: int
    """Training rows that it has."""
    tokens: int
    """Training tokens that it has, padding left out."""
    asked: float
    """Share of the run's tokens: by weight, or what it has of all."""
    taken: int
    """Rows that the run takes, repeats counted; without weights a rounded number."""


def sizes(rows: Rows) -> np.ndarray:
    """[rows] int64: tokens of each row without its padding."""
    slices = range(0, len(rows), _SLICE_ROWS)
    return np.concatenate([row_tokens(rows.table[first : first + _SLICE_ROWS]) for first in slices])


def shares(
    names: Sequence[str], rows: Sequence[int], tokens: Sequence[int], weights: Sequence[float] | None, *, total: int,
    max_repeats: float | None,
) -> list[Share]:  # fmt: skip
    """What a run of `total` rows takes of each dataset.

    Args:
        names: the datasets.
        rows: that each has, none of them 0.
        tokens: in those rows.
        weights: shares of tokens, need not sum to 1; None for as much as each has.
        total: rows asked for; fewer are taken when the cap leaves no more.
        max_repeats: most epochs of a dataset; None for no cap.

    """
    by = np.array(tokens if weights is None else weights, dtype=np.float64)
    density = np.array(tokens) / np.array(rows)
    most = np.floor(np.array(rows) * max_repeats) if max_repeats else np.full(len(rows), np.inf)
    taken = _whole(_filled(by / density, most, total), most, total)
    return [
        Share(name=name, rows=has, tokens=count, asked=part, taken=some)
        for name, has, count, part, some in zip(
            names, rows, tokens, (by / by.sum()).tolist(), taken.tolist(), strict=True
        )
    ]


def parts(found: Sequence[Share], *, weighted: bool) -> list[Part]:
    """What the order of a run is made of: a part for each dataset, or one of all when no weights were given."""
    if weighted:
        return [Part(share.rows, share.taken) for share in found]
    return [Part(sum(share.rows for share in found), sum(share.taken for share in found))]


def delivered(order: Order, found: Sequence[Share], tokens: np.ndarray, step: int) -> dict[str, dict[str, float]]:
    """What each dataset has given before a step: `rows`, `tokens`, `share` of the tokens, `epochs`.

    Args:
        order: of the run.
        found: its datasets, in the order of their rows.
        tokens: [rows] what `sizes` gives.
        step: optimizer steps that are done.

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
    """Row numbers before a position, with how often each of the list was seen."""
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
    """Fractions of rows in a ratio, none over its most; what some cannot give, the others do."""
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
    """Whole rows that sum to `total`, or to all there are: the largest remainders are rounded up."""
    whole: np.ndarray = np.floor(taken).astype(np.int64)
    lacking = min(total, round(float(taken.sum()))) - int(whole.sum())
    for index in np.argsort(whole - taken, kind="stable")[:lacking]:
        whole[index] += whole[index] < most[index]
    return whole
