"""Floors: what a task gives without a language model, to be shown beside every figure.

In: the items of train and test. Out: predictions for the test items and their figures.
Invariants: seeded and deterministic. Nothing is learned from test items. A tie between options is broken by the item's
id, so that no position is favoured.
Cost: seconds; the linear model of 9,000 pairs takes ten of one core.
Sources: that an NLI hypothesis alone tells the label, Gururangan et al. (2018); that simple overlap answers reading
questions, Sugawara et al. (2018).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from corpus.pipeline.errors import TaskError
from corpus.pipeline.tasks.metrics import Figures, figures, figures_of
from corpus.pipeline.tasks.schema import Item, Task

GRAMS = (1, 2, 3)
"""Lengths of the character n-grams of the linear model."""
BUCKETS = 1 << 20
"""Values of an n-gram's hash."""
_STRENGTH, _STEPS, _TOLERANCE = 0.1, 300, 1e-3
_LENGTH = 10.0
"""Of each kind of features; at length 1 the same model, of strength 10, takes three times as many steps."""
NAMES = {
    "chance": "guesses at random",
    "majority": "always says the most frequent label of train",
    "longest": "takes the longest option",
    "shared": "takes the option that shares most of its characters with context and question",
    "linear": "logistic regression on character 1-3-grams",
    "second only": "the same, without the first text",
}


@dataclass(frozen=True, slots=True)
class Floor:
    """The figures of a way to answer without a language model."""

    name: str
    """A key of NAMES."""
    figures: Figures
    predictions: tuple[int, ...] = field(default=(), repr=False)
    """For each test item; empty of guesses at random, whose figures are expected values."""

    @property
    def what(self) -> str:
        """What it does, in words."""
        return NAMES[self.name]


def floors(task: Task, train: Sequence[Item], test: Sequence[Item]) -> list[Floor]:
    """All floors that a task has; those that learn need items to train on.

    Raises:
        TaskError: scikit-learn is missing; `plain` does without.

    """
    found = plain(task, train, test)
    if train and task.is_trainable:
        found.append(linear(train, test))
        if task.kind == "entailment":
            found.append(second_only(train, test))
    return found


def plain(task: Task, train: Sequence[Item], test: Sequence[Item]) -> list[Floor]:
    """The floors that need no scikit-learn."""
    found = [chance(test)]
    if task.kind in {"choice", "minimal_pairs"}:
        found.append(longest(test))
    if task.kind == "choice":
        found.append(shared(test))
    elif train and task.is_trainable:
        found.append(majority(train, test))
    return found


def chance(test: Sequence[Item]) -> Floor:
    """Guesses at random, with equal chances: expected figures."""
    classes = _classes(test)
    matrix = np.zeros((classes, classes))
    for item in test:
        count = len(item.options) or classes
        matrix[item.label, :count] += 1 / count
    return Floor("chance", figures_of(matrix))


def majority(train: Sequence[Item], test: Sequence[Item]) -> Floor:
    """Always the most frequent label of train; the first of equals."""
    counts = Counter(item.label for item in train)
    best = max(sorted(counts), key=counts.__getitem__)
    return _floor("majority", test, [best] * len(test), _classes([*train, *test]))


def longest(test: Sequence[Item]) -> Floor:
    """The longest option of each item."""
    return _best("longest", test, lambda _, option: len(option))


def shared(test: Sequence[Item]) -> Floor:
    """The option with the largest share of its characters in context and question."""
    return _best("shared", test, lambda item, option: _share(option, "".join(item.texts)))


def linear(train: Sequence[Item], test: Sequence[Item]) -> Floor:
    """Logistic regression on hashed character n-grams.

    Pairs have the n-grams of each side apart and of both sides together; a choice is answered by the option with the
    highest score, from its n-grams, those it shares with context and question, their share, and its length.

    Raises:
        TaskError: scikit-learn is missing.

    """
    return _linear("linear", train, test)


def second_only(train: Sequence[Item], test: Sequence[Item]) -> Floor:
    """The linear model, given the second text of each pair alone; raises as `linear`."""
    cut = [[_only_second(item) for item in items] for items in (train, test)]
    return _linear("second only", cut[0], cut[1])


def _only_second(item: Item) -> Item:
    return Item(id=item.id, texts=item.texts[1:], label=item.label, place=item.place)


def _linear(name: str, train: Sequence[Item], test: Sequence[Item]) -> Floor:
    classes = _classes([*train, *test])
    if train[0].options:
        learned = learn(
            [_option_grams(item, option) for item in train for option in item.options],
            [int(number == item.label) for item in train for number in range(len(item.options))],
        )
        scores = iter(learned([_option_grams(item, option) for item in test for option in item.options])[:, 1].tolist())
        predictions = [int(np.argmax([next(scores) for _ in item.options])) for item in test]
    else:
        learned = learn([_grams_of(item) for item in train], [item.label for item in train])
        known = sorted({item.label for item in train})
        predictions = [known[best] for best in learned([_grams_of(item) for item in test]).argmax(axis=1).tolist()]
    return _floor(name, test, predictions, classes)


def learn(rows: Sequence[Mapping[str, float]], labels: Sequence[int]) -> Callable[[Sequence[Mapping[str, float]]], Any]:
    """Fit a logistic regression on hashed features; gives [rows, labels in order] probabilities.

    Raises:
        TaskError: scikit-learn is missing.

    """
    try:
        from sklearn.feature_extraction import FeatureHasher  # noqa: PLC0415  # an extra
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise TaskError(
            "the linear floor needs scikit-learn, which is not installed",
            hint="Install it with `pip install 'corpus-zh[tasks]'`.",
        ) from error
    if len(set(labels)) < 2:
        return lambda asked: np.ones((len(asked), 1))
    hasher = FeatureHasher(n_features=BUCKETS, alternate_sign=False)
    matrix = hasher.transform(rows)
    used = np.unique(matrix.indices)
    model = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, tol=_TOLERANCE).fit(matrix[:, used], labels)
    return lambda asked: model.predict_proba(hasher.transform(asked)[:, used])


def _grams(text: str) -> set[str]:
    """The character n-grams of a text."""
    return {text[at : at + size] for size in GRAMS for at in range(len(text) - size + 1)}


def _block(mark: str, grams: set[str]) -> dict[str, float]:
    """Features of one kind, of one length together."""
    return {f"{mark}{gram}": _LENGTH / math.sqrt(len(grams)) for gram in grams}


def _grams_of(item: Item) -> dict[str, float]:
    """The features of a text, or of a pair."""
    sides = [_grams(text) for text in item.texts]
    found = {key: value for number, side in enumerate(sides) for key, value in _block(f"{number}:", side).items()}
    if len(sides) == 2:
        found |= _block("&:", sides[0] & sides[1])
    return found


def _option_grams(item: Item, option: str) -> dict[str, float]:
    """The features of an option of a choice."""
    text, own = "".join(item.texts), _grams(option)
    others = max(len(other) for other in item.options)
    return {
        **_block("o:", own),
        **_block("&:", own & _grams(text)),
        "share": _LENGTH * _share(option, text),
        "length": _LENGTH * len(option) / others,
    }


def _share(option: str, text: str) -> float:
    """The share of an option's n-grams that a text has."""
    own = _grams(option)
    return len(own & _grams(text)) / len(own)


def _best(name: str, test: Sequence[Item], score: Callable[[Item, str], float]) -> Floor:
    """The option with the highest score; of equals one that the item's id decides."""
    predictions = list[int]()
    for item in test:
        scores = [score(item, option) for option in item.options]
        best = [number for number, value in enumerate(scores) if value == max(scores)]
        digest = hashlib.sha256(item.id.encode("utf-8", "surrogatepass")).digest()
        predictions.append(best[int.from_bytes(digest[:8]) % len(best)])
    return _floor(name, test, predictions, _classes(test))


def _floor(name: str, test: Sequence[Item], predictions: Sequence[int], classes: int) -> Floor:
    return Floor(name, figures([item.label for item in test], predictions, classes), tuple(predictions))


def _classes(items: Sequence[Item]) -> int:
    """The number of labels, or of the most options."""
    return max(max(item.label + 1, len(item.options)) for item in items)
