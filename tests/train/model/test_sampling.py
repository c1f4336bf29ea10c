"""Drawing the next token, by exact counts."""

from __future__ import annotations

import pytest
import torch

from corpus.train.model.sampling import Noise, banned, choose, log_probabilities, row_seed

NONE = -torch.inf


def test_numbers_spread_evenly_draw_each_token_by_its_share() -> None:
    shares = torch.tensor([0.5, 0.0, 0.125, 0.25, 0.0, 0.125])
    numbers = torch.arange(800) / 800
    chosen = choose(shares.log().expand(800, -1), numbers)
    assert torch.bincount(chosen, minlength=6).tolist() == [400, 0, 100, 200, 0, 100]


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_a_token_without_probability_is_never_drawn(number: float) -> None:
    """Not even past the end of the sums, where the rounding of a device may lead."""
    scores = torch.full((1, 50_000), NONE)
    scores[0, 7_000:7_003] = torch.tensor([0.0, -90.0, -200.0])
    assert 7_000 <= choose(scores, torch.tensor([number])).item() <= 7_001


def test_each_row_has_its_own_numbers() -> None:
    device = torch.device("cpu")
    both = Noise([1, 2], device)
    alone = Noise([2], device)
    for step in range(600):
        if step == 300:
            both.keep([1])
        number = both.draw()
        assert 0 <= number.min() <= number.max() < 1
        assert number[-1] == alone.draw()[0]
        assert step >= 300 or number[0] != number[1]


def test_seeds_are_all_different() -> None:
    seeds = {row_seed(seed, prompt, sample) for seed in range(10) for prompt in range(10) for sample in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_log_probabilities() -> None:
    shares = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    logarithms = log_probabilities(shares.log() + 3, torch.tensor([1, 2]))
    assert torch.allclose(logarithms, torch.tensor([0.25, 0.8]).log())


def test_special_tokens_and_rows_without_a_token_are_banned() -> None:
    assert banned([0, 1, 2, 3, 4], [0, 3], separator=0, rows=7) == [3, 5, 6]
