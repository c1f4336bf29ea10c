"""Rows that join and leave a running batch: each is written as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from corpus.generate.config import SampleConfig
from corpus.generate.engine.batch import Batch, Row, Written
from corpus.generate.engine.model import Model
from tests.support.sampling import random_model

SETTINGS = (
    SampleConfig(max_new_tokens=12, seed=3),
    SampleConfig(max_new_tokens=40, seed=3, temperature=0, repetition_penalty=1.3),
    SampleConfig(max_new_tokens=25, seed=9, temperature=0.7, top_p=0.8, top_k=0),
    SampleConfig(max_new_tokens=18, seed=4, temperature=1.4, repetition_penalty=1.2),
)
"""The second passes the context of 32 tokens."""
PROMPTS = ("河边的柳树长出了嫩芽", "奶", "昨天夜里下了一场小雨，今天早晨的空气很清新。", "火车")


def begin(model: Model, number: int, **more: Any) -> Batch:
    """Two samples of a prompt."""
    prompt = model.encode(PROMPTS[number])
    return Batch(model, {0: prompt}, [(0, 0), (0, 1)], SETTINGS[number], **more)


def write(batch: Batch, until: Callable[[], bool] = lambda: False) -> Iterable[Written]:
    while batch.rows and not until():
        yield from batch.step()


def alone(model: Model, number: int) -> list[tuple[int, int, str]]:
    written = write(begin(model, number, likeliest=2))
    return [(each.row.sample, each.token, each.text) for each in written]


def test_rows_that_join_a_running_batch_are_written_as_if_alone() -> None:
    model = random_model()
    steps: dict[Row, list[Written]] = {}
    owners: dict[Row, int] = {}
    running = begin(model, 0, likeliest=2)
    owners |= dict.fromkeys(running.rows, 0)
    waiting = {2: 1, 7: 2, 9: 3}
    step = 0
    while running.rows:
        for each in running.step():
            steps.setdefault(each.row, []).append(each)
        step += 1
        if step in waiting:
            other = begin(model, waiting[step], likeliest=2)
            owners |= dict.fromkeys(other.rows, waiting[step])
            running.join(other)
    assert len(owners) == 8
    for number in range(4):
        expected = alone(model, number)
        assert len(expected) > 4
        for row in (row for row, owner in owners.items() if owner == number):
            assert [(row.sample, each.token, each.text) for each in steps[row]] == [
                each for each in expected if each[0] == row.sample
            ]


def test_rows_that_leave_change_nothing_for_the_others() -> None:
    model = random_model()
    expected = [each for each in alone(model, 2) if each[0] == 1]
    running = begin(model, 1)
    running.step()
    other = begin(model, 2)
    gone = other.rows[0]
    running.join(other)
    written = [each for _ in range(3) for each in running.step()]
    running.leave([*(row for row in running.rows if row not in other.rows), gone])
    assert [row.sample for row in running.rows] == [1]
    written += write(running)
    assert [(1, each.token, each.text) for each in written if each.row is other.rows[1]] == expected


def test_scores_are_the_models_own_and_add_up_to_the_finish() -> None:
    model = random_model()
    prompt = model.encode(PROMPTS[0])
    batch = Batch(model, [prompt], [(0, 0)], SETTINGS[2], likeliest=3)
    batch.join(begin(model, 3))
    written = list(write(batch))
    mine = [each for each in written if each.scores is not None]
    others = [each for each in written if each.scores is None]
    assert {each.row.sample for each in others} == {0, 1}
    with torch.no_grad():
        logits_v = model.network(torch.tensor([prompt])).logits[0, -1]
    logprobs_v = logits_v.log_softmax(-1)
    assert mine[0].scores is not None
    assert mine[0].scores.logprob == pytest.approx(logprobs_v[mine[0].token].item(), abs=1e-4)
    best = logprobs_v.topk(3)
    assert [token for token, _ in mine[0].scores.likeliest] == best.indices.tolist()
    assert [value for _, value in mine[0].scores.likeliest] == pytest.approx(best.values.tolist(), abs=1e-4)
    finish = mine[-1].finish
    assert finish is not None
    assert finish.logprob == pytest.approx(sum(each.scores.logprob for each in mine if each.scores), abs=1e-3)
