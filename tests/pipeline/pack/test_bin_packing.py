"""The packing core: small literal tables, and the properties that hold for every input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline.pack import bin_packing

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def rows(plan: bin_packing.RowPlan) -> list[list[tuple[int, int, int]]]:
    segments = list(zip(plan.documents.tolist(), plan.starts.tolist(), plan.lengths.tolist(), strict=True))
    return [segments[first:last] for first, last in zip(plan.row_starts[:-1], plan.row_starts[1:], strict=True)]


def test_best_fit_table() -> None:
    plan = bin_packing.best_fit(np.array([3, 8, 5, 2, 11]), 8)
    assert rows(plan) == [[(1, 0, 8)], [(4, 0, 8)], [(2, 0, 5), (0, 0, 3)], [(4, 8, 3), (3, 0, 2)]]


def test_concat_table() -> None:
    plan = bin_packing.concat(np.array([3, 8, 5, 2, 11]), 8)
    assert rows(plan) == [
        [(0, 0, 3), (1, 0, 5)],
        [(1, 5, 3), (2, 0, 5)],
        [(3, 0, 2), (4, 0, 6)],
        [(4, 6, 5)],
    ]


def test_fill_table() -> None:
    plan = bin_packing.best_fit(np.array([2, 3, 1]), 4)
    filled = bin_packing.fill(plan, np.array([10, 11, 20, 21, 22, 30]), np.array([0, 2, 5]), 4, pad=0)
    assert filled.tolist() == [[20, 21, 22, 30], [10, 11, 0, 0]]


@pytest.mark.parametrize("pack", [bin_packing.best_fit, bin_packing.concat])
@pytest.mark.parametrize("lengths", [[1], [8], [9], [8, 8], [1] * 8, [17]])
def test_edges(pack: object, lengths: list[int]) -> None:
    plan = pack(np.array(lengths), 8)  # type: ignore[operator]
    assert plan.lengths.sum() == sum(lengths)
    assert plan.rows == -(-sum(lengths) // 8)


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 24), st.sampled_from([bin_packing.best_fit, bin_packing.concat]))
def test_every_token_is_kept_once_and_in_order(lengths: list[int], seq_length: int, pack: object) -> None:
    sizes = np.array(lengths)
    plan = pack(sizes, seq_length)  # type: ignore[operator]
    tokens = np.arange(sizes.sum()) + 1
    filled = bin_packing.fill(plan, tokens, np.cumsum(sizes) - sizes, seq_length, pad=0)
    assert sorted(filled[filled != 0].tolist()) == tokens.tolist()
    back: dict[int, list[int]] = {}
    for row, segments in enumerate(rows(plan)):
        position = 0
        for document, start, length in segments:
            assert length >= 1
            back.setdefault(document, [0] * lengths[document])[start : start + length] = filled[
                row, position : position + length
            ].tolist()
            position += length
        assert position <= seq_length
        assert not filled[row, position:].any()
    expected = np.split(tokens, np.cumsum(sizes)[:-1])
    assert all(back[document] == part.tolist() for document, part in enumerate(expected))


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_best_fit_is_best_fit_decreasing(lengths: list[int], seq_length: int) -> None:
    """The counting form leaves the very rooms that placing pieces one by one leaves."""
    pieces = sorted((min(seq_length, n - k) for n in lengths for k in range(0, n, seq_length)), reverse=True)
    rooms: list[int] = []
    for piece in pieces:
        best = min((row for row in range(len(rooms)) if rooms[row] >= piece), key=lambda row: rooms[row], default=None)
        if best is None:
            rooms.append(seq_length)
            best = len(rooms) - 1
        rooms[best] -= piece
    plan = bin_packing.best_fit(np.array(lengths), seq_length)
    used = np.add.reduceat(plan.lengths, plan.row_starts[:-1])
    assert sorted((seq_length - used).tolist()) == sorted(rooms)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 24))
def test_only_documents_longer_than_a_row_are_cut(lengths: list[int], seq_length: int) -> None:
    plan = bin_packing.best_fit(np.array(lengths), seq_length)
    segments = np.bincount(plan.documents, minlength=len(lengths))
    assert all((count > 1) == (length > seq_length) for count, length in zip(segments, lengths, strict=True))


def test_slots_are_used() -> None:
    generator = np.random.default_rng(7)
    lengths = np.maximum(1, generator.lognormal(5, 1, 20_000).astype(int))
    plan = bin_packing.best_fit(lengths, 1024)
    assert lengths.sum() / (plan.rows * 1024) > 0.999
