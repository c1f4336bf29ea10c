"""Figures of predictions: accuracy, macro-F1, Matthews correlation, confusion, intervals; of all items and by group.

In: right labels and predictions, [items] whole numbers. Out: figures between 0 and 1, MCC between -1 and 1.
Invariants: every figure follows from the confusion matrix. An interval depends on it and the seed alone: resampling
items with replacement is drawing the matrix's cells from a multinomial distribution (Efron, 1979).
Cost: milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpus.pipeline.tasks.schema import METRICS

ROUNDS = 2000
"""Samples of a bootstrap interval."""
LEVEL = 0.95
"""Share of the samples inside the interval."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How good predictions are."""

    items: int
    accuracy: float
    macro_f1: float
    """Mean F1 of the classes that are right or predicted at least once."""
    mcc: float
    """Matthews correlation, 0 at chance (Gorodkin, 2004, for many classes)."""

    def of(self, metric: str) -> float:
        """The figure of one of METRICS."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "mcc": self.mcc}[metric]


def confusion(labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
    """[classes, classes] int64: items by right label (row) and prediction (column)."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def figures(labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: int) -> Figures:
    """The figures of predictions.

    >>> figures([0, 0, 1, 1], [0, 1, 1, 1], 2).accuracy
    0.75
    """
    return figures_of(confusion(labels, predictions, classes))


def figures_of(matrix: np.ndarray) -> Figures:
    """The figures of a confusion matrix; its cells may be expected counts."""
    values = {metric: float(_measure(matrix[None], metric)[0]) for metric in METRICS}
    return Figures(round(float(matrix.sum())), values["accuracy"], values["macro_f1"], values["mcc"])


def interval(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: int,
    metric: str = "accuracy", *, seed: int = 0, rounds: int = ROUNDS, level: float = LEVEL,
) -> tuple[float, float]:  # fmt: skip
    """The bootstrap interval of a figure, by percentiles."""
    matrix = confusion(labels, predictions, classes)
    total = int(matrix.sum())
    if total == 0:
        return 0.0, 0.0
    drawn = np.random.default_rng(seed).multinomial(total, matrix.ravel() / total, size=rounds)
    values = _measure(drawn.reshape(rounds, classes, classes), metric)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def by_group(
    groups: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    classes: int,
) -> dict[str, Figures]:
    """The figures of the items of each group, by the groups' names."""
    names, which = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    right, said = np.asarray(labels), np.asarray(predictions)
    return {
        str(name): figures(right[which == number], said[which == number], classes) for number, name in enumerate(names)
    }


def _measure(matrices: np.ndarray, metric: str) -> np.ndarray:
    """[matrices] a figure of each confusion matrix; 0 where it has no value."""
    m = matrices.astype(np.float64)
    total, hits = m.sum(axis=(1, 2)), np.einsum("kii->k", m)
    right, said = m.sum(axis=2), m.sum(axis=1)
    if metric == "accuracy":
        return _ratio(hits, total)
    if metric == "macro_f1":
        f1 = _ratio(2 * np.einsum("kii->ki", m), right + said)
        return _ratio(f1.sum(axis=1), ((right + said) > 0).sum(axis=1))
    covariance = hits * total - (right * said).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (right**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0))
