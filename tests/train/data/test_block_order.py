"""The order by blocks of shards: each row once an epoch, whoever reads, from any step on; and what is needed when."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.train.data.block_order import BlockOrder, most_at_once
from corpus.train.data.sampler import ShuffleGroup
from corpus.train.data.schedule import Steps

SHARDS = st.lists(st.integers(1, 9), min_size=1, max_size=9)
GROUPS = st.lists(st.tuples(SHARDS, st.floats(0.3, 2.5)), min_size=1, max_size=3)
FEW = settings(max_examples=25, deadline=None)


def order_of(groups: list[tuple[list[int], float]], *, batch: int, block: int, **changes: Any) -> BlockOrder:
    parts = [ShuffleGroup(sum(shards), max(1, round(sum(shards) * epochs))) for shards, epochs in groups]
    steps = Steps(batch_size=batch, total=sum(part.taken for part in parts))
    made: dict[str, Any] = {"micro_batch_size": 3, "seed": 5} | changes
    shards = [rows for group, _ in groups for rows in group]
    return BlockOrder(parts=parts, shards=shards, block_shards=block, steps=steps, **made)


def all_rows(order: BlockOrder) -> np.ndarray:
    return np.concatenate([order.step(step) for step in range(order.steps.count)])


@FEW
@given(GROUPS, st.integers(1, 12), st.integers(1, 4))
def test_each_row_comes_once_an_epoch_and_blocks_one_after_another(
    groups: list[tuple[list[int], float]], batch: int, block: int
) -> None:
    order = order_of(groups, batch=batch, block=block)
    rows, edges = all_rows(order), np.cumsum([0, *(part.rows for part in order.parts)])
    for part, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
        own = rows[(rows >= first) & (rows < last)] - first
        assert len(own) == order.parts[part].taken
        ends = np.cumsum(groups[part][0])
        for epoch in range(-(-len(own) // (last - first))):
            seen = own[epoch * (last - first) : (epoch + 1) * (last - first)]
            assert len(set(seen.tolist())) == len(seen)
            place = np.argsort(order.shards_of(part, epoch))[np.searchsorted(ends, seen, side="right")] // block
            assert (np.diff(place) >= 0).all()


@FEW
@given(GROUPS, st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 40))
def test_processes_and_resumption_change_no_step(
    groups: list[tuple[list[int], float]], batch: int, block: int, world: int, first: int
) -> None:
    whole = order_of(groups, batch=batch, block=block)
    first %= whole.steps.count
    ranks = [
        iter(order_of(groups, batch=batch, block=block, rank=rank, world=world, first_step=lambda: first))
        for rank in range(world)
    ]
    for step in range(first, whole.steps.count):
        passes = [next(rank) for rank in ranks for _ in range(-(-batch // (3 * world)))]
        assert sorted(row for rows in passes for row in rows) == sorted(whole.step(step).tolist())


@FEW
@given(GROUPS, st.integers(1, 12), st.integers(1, 4), st.integers(0, 200))
def test_the_needs_cover_each_row_when_it_is_read_and_nothing_else(
    groups: list[tuple[list[int], float]], batch: int, block: int, position: int
) -> None:
    order = order_of(groups, batch=batch, block=block)
    rows = all_rows(order)
    position %= len(rows)
    shards = np.searchsorted(np.cumsum([rows for group, _ in groups for rows in group]), rows, side="right")
    needs = list(order.needs(position))
    assert [need.begin for need in needs] == sorted(need.begin for need in needs)
    for place in range(position, len(rows)):
        assert any(need.begin <= place < need.end and shards[place] in need.shards for need in needs)
    for need in needs:
        assert len(need.shards) <= block
        assert need.end > position
        assert set(shards[need.begin : need.end].tolist()) & set(need.shards)


def test_seed_and_epoch_change_the_blocks() -> None:
    groups = [([8] * 12, 2.0)]
    order, other = order_of(groups, batch=8, block=2), order_of(groups, batch=8, block=2, seed=6)
    assert sorted(order.epoch(0, 0)) == sorted(order.epoch(0, 1))
    for one, two in ((order.epoch(0, 0), order.epoch(0, 1)), (order.epoch(0, 0), other.epoch(0, 0))):
        assert {row // 8 for row in one[:16].tolist()} != {row // 8 for row in two[:16].tolist()}
    assert order.epoch(0, 0)[:16].tolist() != sorted(order.epoch(0, 0)[:16].tolist())


def test_two_blocks_are_the_most_that_one_dataset_needs() -> None:
    order = order_of([([10] * 9, 1.0)], batch=4, block=3)
    assert most_at_once(order.needs(0), [100] * 9, 4) == 600
    assert most_at_once(order.needs(0), [100] * 9, 40) == 900  # passes made ahead reach over a whole block
    mixed = order_of([([10] * 4, 1.0), ([10] * 4, 1.0)], batch=4, block=1)
    assert 300 <= most_at_once(mixed.needs(0), [100] * 8, 4) <= 400
