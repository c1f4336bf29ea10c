"""Rewards and advantages by tables worked out by hand; estimates of the divergence by enumerating a toy policy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from corpus.train.preferences.advantages import advantages, divergence, rewards, whitened

WRITTEN = np.array([[False, False, True, True, True], [False, True, False, False, False], [False] * 5])
"""An answer of three tokens after two of the prompt, one of a single token, and a row that is no episode."""


def placed(*rows: list[float]) -> np.ndarray:
    """[n, t] these numbers where something is written, and 9 elsewhere, which must not count."""
    found = np.full(WRITTEN.shape, 9.0)
    for row, numbers in enumerate(rows):
        found[row, WRITTEN[row]] = numbers
    return found


def test_a_token_costs_its_log_ratio_and_the_last_one_earns_the_score() -> None:
    logs, reference = placed([-1.0, -2.0, -0.5], [-3.0]), placed([-1.5, -1.0, -0.5], [-2.0])
    found = rewards(logs, reference, WRITTEN, np.array([2.0, -1.0, 7.0]), kl_coef=0.1)
    expected = np.zeros(WRITTEN.shape)
    expected[0, 2:], expected[1, 1] = [-0.05, 0.1, 2.0], 0.1 - 1.0
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_advantages_are_those_of_the_table() -> None:
    """Errors of the values 1.1, -0.3 and -0.4 from the end; each advantage is an error and 0.95 of the later one."""
    values = placed([0.5, 0.2, -0.1], [0.3])
    given = np.where(WRITTEN, placed([-0.1, 0.0, 1.0], [-1.0]), 0.0)
    found = advantages(given, values, WRITTEN)
    expected = np.zeros(WRITTEN.shape)
    expected[0, 2:], expected[1, 1] = [0.30775, 0.745, 1.1], -1.3
    np.testing.assert_allclose(found, expected, atol=1e-12)
    undiscounted = advantages(given, values, WRITTEN, smoothing=1.0)
    np.testing.assert_allclose((undiscounted + values)[0, 2:], [0.9, 1.0, 1.0], atol=1e-12)
    halved = advantages(given, values, WRITTEN, gamma=0.5, smoothing=0.5)
    np.testing.assert_allclose(halved[0, 2:], [-0.5 + 0.25 * 0.025, -0.25 + 0.25 * 1.1, 1.1], atol=1e-12)


def test_whitening_is_over_the_tokens_of_all_processes() -> None:
    random = np.random.default_rng(3)
    values = random.normal(2.0, 5.0, (6, 5))
    written = random.random((6, 5)) < 0.6
    whole = whitened(values, written)
    assert whole[written].mean() == pytest.approx(0, abs=1e-12)
    assert whole[written].std() == pytest.approx(1)
    assert not whole[~written].any()
    sums = iter([[written.sum(), values[written].sum()], [((values[written] - values[written].mean()) ** 2).sum()]])
    part = whitened(values[:2], written[:2], lambda _: np.array(next(sums)))
    np.testing.assert_allclose(part, whole[:2])
    assert not whitened(np.full((2, 2), 3.0), np.full((2, 2), fill_value=True)).any()


def test_both_estimates_of_the_divergence_are_unbiased() -> None:
    """By the mean over all answers of two tokens, weighted by the chance that the policy writes them."""
    random = np.random.default_rng(5)
    policy, reference = (random.dirichlet(np.full(4, 0.7), size=5) for _ in range(2))  # first token, then after each
    pairs = list(itertools.product(range(4), repeat=2))
    logs, held = (np.log([[each[0, a], each[1 + a, b]] for a, b in pairs]) for each in (policy, reference))
    chances = np.exp(logs.sum(axis=1))
    true = float((chances * (logs - held).sum(axis=1)).sum())
    log_ratio, k3 = divergence(logs, held, np.full(logs.shape, fill_value=True))
    assert true > 0.1
    assert chances @ log_ratio == pytest.approx(true)
    assert chances @ k3 == pytest.approx(true)
    assert k3.min() >= 0 > log_ratio.min()
