"""Ways to compare answers, on log-likelihoods made up for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from corpus.train.benchmarks.config import BenchmarkConfig, BenchmarkResult, Run
from corpus.train.benchmarks.picture import picture
from corpus.train.benchmarks.scores import Scored, by_group, chance, figures, macro_f1, majority


def scored(logs: Any, label: int = 0, *, characters: Sequence[float] = (), group: str = "", **more: Any) -> Scored:
    arrays: dict[str, Any] = {name: np.array(each) for name, each in more.items()}
    weights = np.array(characters or [1.0] * len(logs))
    return Scored(group=group, label=label, logs_k=np.array(logs), characters_k=weights, **arrays)


def test_likelier_answer_is_chosen_and_long_ones_may_win_by_character() -> None:
    question = scored([-6.0, -5.0], characters=[4.0, 1.0])
    assert question.preferred() == {"accuracy": 1, "per_character": 0}


def test_calibration_divides_by_the_shares_after_inputs_without_content() -> None:
    # Zhao et al. (2021), section 5: W = diag(p_cf)^-1, the answer is argmax W p; p_cf is a mean of shares
    shares, free = [0.7, 0.3], [[0.9, 0.1], [0.6, 0.4]]
    question = scored(np.log(shares), free_k=np.log(free))
    corrected = [share / mean for share, mean in zip(shares, np.mean(free, axis=0), strict=True)]
    assert question.preferred()["accuracy"] == 0
    assert question.preferred()["calibrated"] == int(np.argmax(corrected)) == 1
    # likelihoods need not sum to 1: only the shares among the answers count
    shifted = scored(np.log(shares) - 9, free_k=np.log(free) - np.array([[3.0], [50.0]]))
    assert shifted.preferred()["calibrated"] == 1


def test_pmi_divides_by_the_answer_alone() -> None:
    question = scored([-2.0, -1.0], alone_k=[-5.0, -1.5], without_k=[-2.5, -1.0])
    assert question.preferred() == {"accuracy": 1, "per_character": 1, "pmi": 0, "pmi_domain": 0}


def test_slln_lp_divides_by_the_root_of_the_tokens() -> None:
    # -12 / sqrt(9) = -4 > -9 / sqrt(4) = -4.5, though -12 < -9 and -12 / 9 > -9 / 4
    assert scored([-12.0, -9.0], tokens_k=[9.0, 4.0]).preferred()["slln_lp"] == 0
    assert scored([-12.0, -7.0], tokens_k=[9.0, 4.0]).preferred()["slln_lp"] == 1


def test_figures_are_shares_of_right_answers() -> None:
    questions = [scored([-1.0, -2.0], label) for label in (0, 0, 1, 0)]
    assert figures(questions) == {"accuracy": 0.75, "per_character": 0.75}
    assert figures(questions, labels=2)["macro_f1"] == pytest.approx((6 / 7 + 0) / 2)
    assert chance(questions) == 0.5
    assert majority(questions) == 0.75
    assert chance([scored([-1.0] * 2), scored([-1.0] * 4)]) == 0.375


def test_groups_within_groups() -> None:
    questions = [scored([-1.0, -2.0], group=group) for group in ("ba/a", "ba/b", "bei/c")]
    questions.append(scored([-2.0, -1.0], group="ba/b"))
    found = by_group(questions)
    assert {name: (each["items"], each["accuracy"]) for name, each in found.items()} == {
        "ba": (3, pytest.approx(2 / 3)), "ba/a": (1, 1.0), "ba/b": (2, 0.5), "bei": (1, 1.0), "bei/c": (1, 1.0),
    }  # fmt: skip
    assert by_group([scored([-1.0, -2.0])]) == {}


def test_macro_f1_is_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an extra")
    rng = np.random.default_rng(3)
    right, predicted = rng.integers(0, 3, 50).tolist(), rng.integers(0, 3, 50).tolist()
    assert macro_f1(predicted, right, 3) == pytest.approx(metrics.f1_score(right, predicted, average="macro"))


def result(**changes: Any) -> BenchmarkResult:
    runs = tuple(
        Run(shots=shots, draw=number, figures={"accuracy": 0.5 + 0.1 * number, "calibrated": 0.6})
        for shots, draws in ((0, 1), (4, 3))
        for number in range(draws)
    )
    values: dict[str, Any] = {
        "benchmark": "x",
        "items": 100,
        "chance": 0.25,
        "majority": 0.3,
        "runs": runs,
        "seconds": 1.0,
    }
    return BenchmarkResult(**values | changes)


def test_summary_has_mean_and_deviation_over_the_draws() -> None:
    found = result()
    assert found.shots == [0, 4]
    assert found.summary(0)["accuracy"] == (0.5, 0.0)
    assert found.summary(4)["accuracy"] == pytest.approx((0.6, 0.1))
    assert found.floor == 0.3
    low, high = found.to_dict()["shots"]["4"]["interval"]
    assert low < 0.6 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.6 * 0.4 / 100), rel=0.05)


def test_picture_is_the_same_for_the_same_results() -> None:
    drawn = picture([result()])
    assert drawn.startswith(b"\x89PNG")
    assert drawn == picture([result()])
    assert drawn != picture([result(majority=0.9)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shots": (-1,)}, "--shots must be from 0 to 64, is -1"),
        ({"shots": (65,)}, "--shots must be from 0 to 64, is 65"),
        ({"orders": 0}, "--orders must be at least 1, is 0"),
        ({"limit": -1}, "--limit must be at least 0, is -1"),
        ({"split": "dev"}, "--split must be one of test, validation, train, is dev"),
        ({"data": ("a", "b")}, "--data was given 2 times for 3 benchmarks"),
    ],
)
def test_wrong_settings_name_their_flag(changes: dict[str, Any], said: str) -> None:
    from pathlib import Path

    with pytest.raises(ValueError, match=said):
        BenchmarkConfig(model=Path(), benchmarks=("a", "b", "c"), **changes)
