"""Figures of predictions: accuracy, macro-F1, MCC, a bootstrap interval, the confusion matrix. Pure functions.

In: true and predicted labels. Out: numbers, the same as scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 1000
INTERVAL = 0.95


def confusion(true: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    """[labels, labels] items by true label (rows) and predicted label."""
    counts: np.ndarray = np.bincount(true * labels + predicted, minlength=labels * labels)
    return counts.reshape(labels, labels)


def accuracy(matrix: np.ndarray) -> float:
    """Share of items on the diagonal."""
    return float(np.trace(matrix) / max(1, matrix.sum()))


def macro_f1(matrix: np.ndarray) -> float:
    """Mean F1 of the labels that occur or are predicted; a label that is never right has 0.

    >>> round(macro_f1(np.array([[3, 1], [0, 4]])), 4)
    0.873
    """
    hits, sums = np.diagonal(matrix), matrix.sum(0) + matrix.sum(1)
    there = sums > 0
    return float(np.mean(2 * hits[there] / sums[there])) if there.any() else 0.0


def mcc(matrix: np.ndarray) -> float:
    """Matthews correlation coefficient for any number of labels (Gorodkin, 2004); 0 where one label takes all.

    >>> round(mcc(np.array([[3, 1], [0, 4]])), 4)
    0.7746
    """
    total, true, predicted = float(matrix.sum()), matrix.sum(1).astype(float), matrix.sum(0).astype(float)
    above = float(np.trace(matrix)) * total - float(true @ predicted)
    below = (total**2 - float(predicted @ predicted)) * (total**2 - float(true @ true))
    return above / math.sqrt(below) if below > 0 else 0.0


FIGURES = {"accuracy": accuracy, "macro_f1": macro_f1, "mcc": mcc}
"""Figures by name, computed from the confusion matrix."""


def of_labels(true: np.ndarray, predicted: np.ndarray, labels: int, *, is_choice: bool) -> dict[str, float]:
    """The figures of predictions; of choices the accuracy alone, for their labels are places of options."""
    matrix = confusion(true, predicted, labels)
    return {name: figure(matrix) for name, figure in FIGURES.items() if name == "accuracy" or not is_choice}


def interval(
    true: np.ndarray, predicted: np.ndarray, labels: int, figure: str, *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of a figure over resampled items (Efron, 1979)."""
    random, count = np.random.default_rng(seed), len(true)
    cells = true * labels + predicted
    values = [
        FIGURES[figure](
            np.bincount(cells[random.integers(0, count, count)], minlength=labels * labels).reshape(labels, labels)
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(values, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]).tolist()
    return float(low), float(high)


def by_group(
    groups: Sequence[str], true: np.ndarray, predicted: np.ndarray, labels: int, *, is_choice: bool
) -> Mapping[str, Mapping[str, float]]:
    """Items and figures of each group, in the order of their names; empty where no item has one."""
    names = np.array(groups)
    found = {}
    for name in sorted(set(groups) - {""}):
        inside = names == name
        figures = of_labels(true[inside], predicted[inside], labels, is_choice=is_choice)
        found[name] = {"items": int(inside.sum()), **figures}
    return found
