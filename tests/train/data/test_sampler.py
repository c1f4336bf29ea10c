"""The order of rows: each once an epoch, the same however the work is shared, and any step found at once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import Collator, Rows
from corpus.train.data.sampler import Order, ShuffleGroup
from corpus.train.data.schedule import Steps
from tests.support.packed import SEQ_LENGTH, lay_all, pad_id, separator_id


def make(**changes: Any) -> Order:
    """An order of 50 rows, two epochs of them, in steps of 8."""
    rows, total, batch_size = changes.pop("rows", 50), changes.pop("total", 100), changes.pop("batch_size", 8)
    steps = Steps(batch_size=batch_size, total=total)
    settings: dict[str, Any] = {"parts": [ShuffleGroup(rows, total)], "steps": steps, "micro_batch_size": 3, "seed": 7}
    return Order(**settings | changes)


def test_each_row_once_an_epoch_and_none_lost() -> None:
    order = make()
    seen = np.concatenate([order.step(number) for number in range(order.steps.count)])
    assert len(seen) == 100
    assert order.steps.count == 13  # 12 full steps and one of 4 rows
    assert sorted(seen[:50]) == sorted(seen[50:]) == list(range(50))
    assert seen[:50].tolist() != seen[50:].tolist()


def test_a_literal_order_that_no_version_of_numpy_may_change() -> None:
    assert make(rows=10).epoch(0, 0).tolist() == [8, 4, 1, 6, 3, 2, 7, 5, 9, 0]


def test_seed_and_epoch_decide() -> None:
    assert make().epoch(0, 0).tolist() == make().epoch(0, 0).tolist()
    assert make().epoch(0, 0).tolist() != make().epoch(0, 1).tolist()
    assert make().epoch(0, 0).tolist() != make(seed=8).epoch(0, 0).tolist()


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 3), (2, 4), (2, 1), (3, 2), (5, 1), (16, 1)])
def test_a_step_has_the_same_rows_however_it_is_shared(world: int, micro: int) -> None:
    orders = [make(world=world, rank=rank, micro_batch_size=micro) for rank in range(world)]
    for number in range(orders[0].steps.count):
        shares = [order.passes(number) for order in orders]
        assert {len(passes) for passes in shares} == {orders[0].accumulation}
        rows = [row for passes in shares for one in passes for row in one]
        assert sorted(rows) == sorted(make().step(number).tolist())
        assert all(len(one) <= micro for passes in shares for one in passes)


@pytest.mark.parametrize(("world", "micro"), [(1, 3), (2, 2), (3, 1)])
def test_rows_of_like_length_stand_in_one_pass_and_each_step_keeps_its_rows(world: int, micro: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 500, 50)
    orders = [make(world=world, rank=rank, micro_batch_size=micro, lengths=lengths) for rank in range(world)]
    for number in range(orders[0].steps.count):
        shares = [order.passes(number) for order in orders]
        in_turn = [row for one in zip(*shares, strict=True) for rows in one for row in rows]
        assert sorted(in_turn) == sorted(make().step(number).tolist())
        assert lengths[in_turn].tolist() == sorted(lengths[in_turn].tolist(), reverse=True)


def test_an_iteration_begins_where_the_run_is() -> None:
    whole = list(make())
    assert len(whole) == len(make()) == 13 * 3
    order = make()
    order.first_step = lambda: 9
    assert list(order) == whole[9 * 3 :]
    assert len(order) == 13 * 3


def test_a_step_far_away_is_found_at_once() -> None:
    far = 10**12
    order = make(total=far * 8 + 8)
    order.first_step = lambda: far
    passes = list(itertools.islice(order, order.accumulation))
    assert passes == order.passes(far)
    assert sum(1 for _ in order) == order.accumulation


def test_fewer_rows_than_a_step() -> None:
    order = make(rows=3, total=9)
    assert [len(order.step(number)) for number in range(order.steps.count)] == [8, 1]
    assert sorted(order.step(0)[:3]) == sorted(order.step(0)[3:6]) == [0, 1, 2]


def test_worker_processes_change_nothing(workspace: Workspace) -> None:
    lay_all(workspace)
    rows = Rows([open_rows(workspace.packed("demo"))["train"]])
    collator = Collator(seq_length=SEQ_LENGTH, pad_id=pad_id(), separator=separator_id())
    batches = [
        list(
            DataLoader(
                rows,
                batch_sampler=make(rows=len(rows), total=len(rows)),
                collate_fn=collator,
                num_workers=workers,
                generator=torch.Generator(),
            )
        )
        for workers in (0, 2)
    ]
    for alone, shared in zip(*batches, strict=True):
        assert all(torch.equal(alone[key], shared[key]) for key in ("input_ids", "labels", "position_ids"))
