"""Train the score: a logistic regression on hashed n-grams of good texts against others.

In: excerpts of the texts of a seeded sample, and which are positive. Out: `Weights`.
Invariants: the order of the sample is fixed, so the same texts give the same weights with the same scikit-learn. Both
classes weigh the same, however many texts they have.
Cost: the sample's n-grams in memory, at most 2,000 a text; some seconds for 2 x 8,000 texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.quality.scoring import BUCKETS, ORDERS, UNIT, Weights, buckets_of
from corpus.pipeline.text.codepoints import codes_of

EXCERPT = 1_000
"""Characters of a text that training reads, from a seeded place on."""
STRENGTH = 30_000.0
"""Inverse strength of regularization: features are shares of a text's n-grams, so weights are large."""
SETTINGS = {"orders": list(ORDERS), "buckets": BUCKETS, "excerpt": EXCERPT, "strength": STRENGTH}
"""All settings that decide the weights, apart from the sample."""
_MOST_WEIGHT = 2**31 - 1


class Counted(NamedTuple):
    """The n-grams of a text."""

    buckets: np.ndarray
    """[distinct] int32, ascending."""
    counts: np.ndarray
    """[distinct] int32."""


def count(text: str, key: int) -> Counted:
    """The n-grams of an excerpt of a text; `key`, a random number, decides where it begins."""
    start = key % (len(text) - EXCERPT + 1) if len(text) > EXCERPT else 0
    codes = codes_of(text[start : start + EXCERPT])
    found, counts = np.unique(np.concatenate([*buckets_of(codes)]), return_counts=True)
    return Counted(found.astype(np.int32), counts.astype(np.int32))


def check_installed() -> str:
    """The version of scikit-learn.

    Raises:
        WorkspaceError: it is not installed.

    """
    try:
        import sklearn  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise WorkspaceError(
            "training the score needs scikit-learn, which is not installed",
            hint="Install it with `pip install 'corpus-zh[quality]'`, or score with a trained --model FILE.",
        ) from error
    return str(sklearn.__version__)


def fit(texts: Sequence[Counted], positive: np.ndarray) -> Weights:
    """Fit the weights; `positive` is [texts] bool and has both values."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415  # comes with scikit-learn
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # an extra

    values = [text.counts / max(1, text.counts.sum()) for text in texts]
    ends = np.cumsum([0, *(len(text.buckets) for text in texts)])
    columns = np.concatenate([text.buckets for text in texts])
    matrix = csr_matrix((np.concatenate(values), columns, ends), shape=(len(texts), BUCKETS))
    used = np.unique(columns)  # buckets without n-grams keep the weight 0
    model = LogisticRegression(C=STRENGTH, solver="liblinear", class_weight="balanced", max_iter=200)
    model.fit(matrix[:, used], positive)
    weights = np.zeros(BUCKETS, dtype=np.int32)
    scaled = np.clip(np.round(model.coef_[0] * UNIT), -_MOST_WEIGHT, _MOST_WEIGHT)
    weights[used] = scaled.astype(np.int32)
    return Weights(weights, round(float(model.intercept_[0]) * UNIT))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive text has the higher score; equal ones count half.

    >>> auc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not len(positive) or not len(negative):
        return math.nan
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))
