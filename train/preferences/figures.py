"""Figures of comparisons: accuracy, loss, calibration. Pure.

In: for each pair the score of the better answer less that of the worse one. Out: figures.
Invariant: a tie counts as half right, so scores that are all equal have an accuracy of a half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 10


def of_margins(margins: np.ndarray, not_longer: np.ndarray) -> dict[str, Any]:
    """Figures of [pairs] margins; `not_longer` [pairs] says where the better answer is not the longer one.

    >>> found = of_margins(np.array([2.0, -1.0, 0.0]), np.array([True, False, False]))
    >>> found["accuracy"], found["accuracy_not_longer"], found["pairs_not_longer"]
    (0.5, 1.0, 1)
    """
    found: dict[str, Any] = {"accuracy": accuracy(margins), "pairs": len(margins)}
    if not_longer.any():
        found["accuracy_not_longer"] = accuracy(margins[not_longer])
    found["pairs_not_longer"] = int(not_longer.sum())
    return found | {"loss": float(np.logaddexp(0, -margins).mean())}


def accuracy(margins: np.ndarray) -> float:
    """Share of the pairs whose better answer has the higher score."""
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def calibration(margins: np.ndarray) -> list[list[float]]:
    """For `BINS` equal spans of the predicted probability of the preferred answer, from 0.5 on: pairs, mean predicted
    probability, and the share in which the preferred answer is the better one. Spans without pairs are left out.

    >>> calibration(np.array([3.0, 3.0, -3.0, 0.1]))
    [[1, 0.525, 1.0], [3, 0.9526, 0.6667]]
    """
    predicted = 1 / (1 + np.exp(-np.abs(margins)))
    right = (margins > 0) + 0.5 * (margins == 0)
    bins = np.minimum(((predicted - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        [int(own.sum()), round(float(predicted[own].mean()), 4), round(float(right[own].mean()), 4)]
        for at in range(BINS)
        if (own := bins == at).any()
    ]


def calibration_error(bins: list[list[float]]) -> float:
    """Expected calibration error: the mean distance of predicted and observed share, weighted by pairs."""
    pairs = sum(each[0] for each in bins)
    return sum(each[0] * abs(each[1] - each[2]) for each in bins) / max(1, pairs)


def interval(share: float, pairs: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927), as if the pairs were independent.

    >>> [round(edge, 3) for edge in interval(0.5, 100)]
    [0.404, 0.596]
    """
    z = 1.96
    centre = (share + z * z / (2 * pairs)) / (1 + z * z / pairs)
    half = z * np.sqrt(share * (1 - share) / pairs + z * z / (4 * pairs * pairs)) / (1 + z * z / pairs)
    return float(centre - half), float(centre + half)
