"""The next token: the filters by literal numbers, and with the drawing by chi-square."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corpus.generate.config import SampleConfig
from corpus.generate.engine.sampler import processors
from tests.support.sampling import following_model, random_model, tokens

NONE = -torch.inf


def processed(scores: list[float], history: list[int], **settings: float) -> list[float]:
    chain = processors(SampleConfig(**{"top_k": 0} | settings))  # type: ignore[arg-type]
    return [round(score, 4) for score in chain(torch.tensor([history]), torch.tensor([scores]))[0].tolist()]


def test_without_settings_nothing_changes() -> None:
    assert processed([1.0, -2.0, 0.5], [0, 1]) == [1.0, -2.0, 0.5]


def test_temperature_divides() -> None:
    assert processed([1.0, -2.0, 0.5], [0], temperature=0.5) == [2.0, -4.0, 1.0]


def test_top_k_keeps_the_k_highest() -> None:
    assert processed([1.0, 3.0, 2.0, -1.0], [0], top_k=2) == [NONE, 3.0, 2.0, NONE]
    assert processed([1.0, 3.0], [0], top_k=30) == [1.0, 3.0]


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    kept = [round(score, 4) for score in scores]
    assert processed(scores, [0], top_p=0.4) == [kept[0], NONE, NONE, NONE]
    assert processed(scores, [0], top_p=0.7) == [kept[0], kept[1], NONE, NONE]
    assert processed(scores, [0], top_p=0.9) == [kept[0], kept[1], kept[2], NONE]
    assert processed(scores, [0], top_p=1e-6) == [kept[0], NONE, NONE, NONE]


def test_repetition_penalty_divides_positive_scores_and_multiplies_negative_ones() -> None:
    assert processed([3.0, -2.0, 3.0, -2.0], [0, 1, 1], repetition_penalty=2.0) == [1.5, -4.0, 3.0, -2.0]
    assert processed([3.0, -2.0], [0, 1], repetition_penalty=0.5) == [6.0, -1.0]


def test_the_penalty_comes_first_and_top_p_last() -> None:
    scores = [4.0, 3.0, 2.9, -9.0]
    assert processed(scores, [0], repetition_penalty=2.0, temperature=0.5, top_k=2) == [NONE, 6.0, 5.8, NONE]


def test_greedy_needs_no_filter() -> None:
    assert processed([1.0, 2.0], [0], temperature=0, top_k=1, top_p=0.5) == [1.0, 2.0]


DRAWS = 6000
SCORES = {20: 2.0, 21: 1.5, 22: 1.0, 23: 0.5, 24: 0.0, 25: -0.5, 26: -1.0, 27: -1.5}
"""Scores of the only tokens that have a chance; the others are far below."""
BOUND = 24.3
"""Chi-square that a true distribution exceeds once in a thousand at 7 degrees of freedom, and more rarely at fewer."""


def shares(*, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The distribution by the definitions, worked out apart from the code under test."""
    weights = np.exp(np.array(list(SCORES.values())) / temperature)
    order = np.argsort(-weights)
    if top_k:
        weights[order[top_k:]] = 0
    reached = np.cumsum(weights[order]) / weights.sum()
    weights[order[1 + np.searchsorted(reached, top_p) :]] = 0
    result: np.ndarray = weights / weights.sum()
    return result


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    possible = expected > 0
    if counts[~possible].any():
        return float("inf")
    wanted = expected[possible] * counts.sum()
    return float(((counts[possible] - wanted) ** 2 / wanted).sum())


def draw(*, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    size = random_model().network.config.vocab_size
    scores_vv = torch.full((size, size), -60.0)
    scores_vv[10, list(SCORES)] = torch.tensor(list(SCORES.values()))
    config = SampleConfig(
        num_samples=DRAWS,
        batch_size=DRAWS,
        max_new_tokens=1,
        seed=17,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    drawn = [ids[0] for ids in tokens(following_model(scores_vv), [[10]], config).values()]
    assert set(drawn) <= set(SCORES)
    return np.array([drawn.count(token) for token in SCORES])


SETTINGS = (
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
    {"temperature": 0.7, "top_k": 0, "top_p": 1.0},
    {"temperature": 1.6, "top_k": 5, "top_p": 1.0},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.85},
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_tokens_come_as_often_as_the_settings_say(settings: dict[str, float]) -> None:
    counts = draw(**settings)  # type: ignore[arg-type]
    assert chi_square(counts, shares(**settings)) < BOUND  # type: ignore[arg-type]
    for other in SETTINGS:
        if other != settings:
            assert chi_square(counts, shares(**other)) > BOUND  # type: ignore[arg-type]
