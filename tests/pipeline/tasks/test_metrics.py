"""Figures of predictions: against scikit-learn, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from corpus.pipeline.tasks.metrics import Figures, by_group, confusion, figures, figures_of, interval


def drawn(seed: int, classes: int, items: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, items)
    return labels, np.where(generator.random(items) < 0.6, labels, generator.integers(0, classes, items))


@pytest.mark.parametrize(("seed", "classes"), [(0, 2), (1, 3), (2, 15)])
def test_figures_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an extra")
    labels, predictions = drawn(seed, classes)
    found = figures(labels, predictions, classes)
    assert found.items == 60
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predictions))
    assert found.macro_f1 == pytest.approx(reference.f1_score(labels, predictions, average="macro"))
    assert found.mcc == pytest.approx(reference.matthews_corrcoef(labels, predictions))
    assert (confusion(labels, predictions, classes) == reference.confusion_matrix(
        labels, predictions, labels=range(classes)
    )).all()  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([0, 1, 1], [0, 1, 1], Figures(3, 1.0, 1.0, 1.0)),
        ([0, 0, 1, 1], [1, 1, 0, 0], Figures(4, 0.0, 0.0, -1.0)),
        ([0, 0, 0, 1], [0, 0, 0, 0], Figures(4, 0.75, 3 / 7, 0.0)),
        ([], [], Figures(0, 0.0, 0.0, 0.0)),
    ],
)
def test_limits(labels: list[int], predictions: list[int], expected: Figures) -> None:
    found = figures(labels, predictions, 2)
    assert [found.items, found.accuracy, found.macro_f1, found.mcc] == pytest.approx(
        [expected.items, expected.accuracy, expected.macro_f1, expected.mcc]
    )
    assert found.of("mcc") == found.mcc


def test_expected_counts_give_expected_figures() -> None:
    assert figures_of(np.full((4, 4), 0.25)).accuracy == pytest.approx(0.25)


def test_an_interval_is_that_of_resampled_items() -> None:
    labels, predictions = drawn(3, 3, items=200)
    low, high = interval(labels, predictions, 3, "macro_f1", seed=1)
    generator = np.random.default_rng(7)
    resampled = [
        figures(labels[chosen], predictions[chosen], 3).macro_f1
        for chosen in generator.integers(0, 200, size=(1000, 200))
    ]
    assert (low, high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.01)
    assert (low, high) == interval(labels, predictions, 3, "macro_f1", seed=1)
    assert (low, high) != interval(labels, predictions, 3, "macro_f1", seed=2)
    assert low < figures(labels, predictions, 3).macro_f1 < high
    assert interval([], [], 3) == (0.0, 0.0)


def test_groups_have_figures_of_their_own() -> None:
    found = by_group(["b", "a", "b"], [0, 1, 1], [0, 0, 1], 2)
    assert {name: (each.items, each.accuracy) for name, each in found.items()} == {"a": (1, 0.0), "b": (2, 1.0)}
