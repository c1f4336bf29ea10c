"""What needs no language model: the longer answer, and a Bradley-Terry model on character n-grams.

In: rankings, and a function that decodes ids. Out: figures of the pairs held out.
Invariants: seeded and deterministic; nothing is learnt from the pairs that are measured.
Cost: decodes the texts; the n-gram model of 20,000 pairs takes half a minute of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from corpus.train.evaluation.metrics import spread
from corpus.train.preferences import figures
from corpus.train.preferences.batches import RankingItem, RankingItems

LONGER, NGRAMS = "longer wins", "n-gram Bradley-Terry"
MOST_PAIRS = 20_000
"""Training pairs that the n-gram model learns from."""
_GRAMS, _BUCKETS, _STRENGTH, _STEPS = (1, 3), 1 << 18, 0.03, 300
Decode = Callable[[Sequence[np.ndarray]], list[str]]
Pair = tuple[RankingItem, int, int]


def of_splits(
    train: RankingItems, held_out: Mapping[str, Mapping[str, RankingItems]], decode: Decode
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by split, dataset and floor; without scikit-learn the n-gram model is left out."""
    learned = _ngrams(_pairs(train, MOST_PAIRS), decode)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split, datasets in held_out.items():
        for name, items in datasets.items():
            pairs = _pairs(items)
            sizes = np.array([[len(item.answers[at]) for at in (better, worse)] for item, better, worse in pairs])
            not_longer = sizes[:, 0] <= sizes[:, 1]
            given = {LONGER: np.sign(sizes[:, 0] - sizes[:, 1]).astype(float)}
            given |= {NGRAMS: learned(pairs)} if learned else {}
            found.setdefault(split, {})[name] = {floor: _figures(each, not_longer) for floor, each in given.items()}
    return found


def _figures(margins: np.ndarray, not_longer: np.ndarray) -> dict[str, Any]:
    values = figures.of_margins(margins, not_longer)
    return {name: float(f"{values[name]:.6g}") for name in ("accuracy", "accuracy_not_longer") if name in values}


def _pairs(items: RankingItems, most: int | None = None) -> list[Pair]:
    """The pairs of all questions, or about `most` of questions that are spread evenly."""
    every = items.__getitems__(spread(len(items), most or 0))
    found = [(item, better, worse) for item in every for better, worse in item.pairs.tolist()]
    return found if most is None or len(found) <= most else found[:: -(-len(found) // most)]


def _ngrams(pairs: Sequence[Pair], decode: Decode) -> Callable[[Sequence[Pair]], np.ndarray] | None:
    """A logistic regression on the difference of the n-grams of two answers; None without scikit-learn."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415  # an extra
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    hashed = HashingVectorizer(
        analyzer="char", ngram_range=_GRAMS, n_features=_BUCKETS, alternate_sign=False, binary=True, norm=None
    )

    def differences(asked: Sequence[Pair]) -> Any:
        better = hashed.transform(decode([item.answers[at] for item, at, _ in asked]))
        return better - hashed.transform(decode([item.answers[at] for item, _, at in asked]))

    rows = differences(pairs)
    signs = np.where(np.arange(len(pairs)) % 2, 1.0, -1.0)
    if len(pairs) < 2:
        return None
    model = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, fit_intercept=False)
    model.fit(rows.multiply(signs[:, None]).tocsr(), signs)
    return lambda asked: np.asarray(model.decision_function(differences(asked)), dtype=np.float64)
