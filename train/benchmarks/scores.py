"""Figures from log-likelihoods: which answer a model prefers, by several ways to compare answers.

In: for each question the log-likelihoods of its answers, and of the same answers in other contexts. Out: accuracies.
Ways: `accuracy` compares log P(answer | context); `per_character` divides it by the answer's characters, as the
harness's acc_norm does; `calibrated` divides P by its mean over inputs without content (Zhao et al., 2021); `pmi`
divides P by P(answer) at the beginning of a document, `pmi_domain` by P(answer | the context without the item)
(Holtzman et al., 2021); `slln_lp` is log P / tokens ** 0.5 (ZhoBLiMP, arXiv:2411.06096, whose code takes 0.5).
"""

# Shape suffix: k answers of a question.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLLN_EXPONENT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The log-likelihoods of one question."""

    group: str
    label: int
    logs_k: Array
    characters_k: Array
    tokens_k: Array | None = None
    """Tokens of each answer, where `slln_lp` is wanted."""
    free_k: Sequence[Array] = ()
    """Log-likelihoods after each input without content."""
    alone_k: Array | None = None
    """Log-likelihoods at the beginning of a document."""
    without_k: Array | None = None
    """Log-likelihoods after the context without the item."""

    def preferred(self) -> dict[str, int]:
        """The answer that each way of comparing prefers."""
        return {name: int(np.argmax(scores_k)) for name, scores_k in self._ways().items()}

    def _ways(self) -> dict[str, Array]:
        ways = {"accuracy": self.logs_k, "per_character": self.logs_k / self.characters_k}
        if self.tokens_k is not None:
            ways["slln_lp"] = self.logs_k / self.tokens_k**SLLN_EXPONENT
        if len(self.free_k):
            ways["calibrated"] = _log_shares(self.logs_k) - np.log(
                np.mean([np.exp(_log_shares(free_k)) for free_k in self.free_k], axis=0)
            )
        if self.alone_k is not None:
            ways["pmi"] = self.logs_k - self.alone_k
        if self.without_k is not None:
            ways["pmi_domain"] = self.logs_k - self.without_k
        return ways


def _log_shares(logs_k: Array) -> Array:
    """Log-probabilities of the answers among themselves."""
    shares_k: Array = logs_k - np.logaddexp.reduce(logs_k)
    return shares_k


def figures(questions: Sequence[Scored], *, labels: int = 0) -> dict[str, float]:
    """Accuracy by each way of comparing that all questions allow; with `labels` also `macro_f1` of plain `accuracy`."""
    chosen = [question.preferred() for question in questions]
    names = [name for name in chosen[0] if all(name in each for each in chosen)]
    right = [question.label for question in questions]
    found = {
        name: float(np.mean([each[name] == label for each, label in zip(chosen, right, strict=True)])) for name in names
    }
    if labels:
        found["macro_f1"] = macro_f1([each["accuracy"] for each in chosen], right, labels)
    return found


def by_group(questions: Sequence[Scored], *, labels: int = 0) -> dict[str, dict[str, float]]:
    """`figures` of each group with its number of items; a group `a/b` counts in `a`, too."""
    members: dict[str, list[Scored]] = {}
    for question in questions:
        parts = question.group.split("/")
        for depth in range(1, len(parts) + 1):
            members.setdefault("/".join(parts[:depth]), []).append(question)
    members.pop("", None)
    return {name: {"items": len(own), **figures(own, labels=labels)} for name, own in sorted(members.items())}


def chance(questions: Sequence[Scored]) -> float:
    """Accuracy of guessing."""
    return float(np.mean([1 / len(question.logs_k) for question in questions]))


def majority(questions: Sequence[Scored]) -> float:
    """Share of the most frequent label."""
    return float(np.bincount([question.label for question in questions]).max() / len(questions))


def macro_f1(predicted: Sequence[int], right: Sequence[int], labels: int) -> float:
    """Mean over the labels of the harmonic mean of precision and recall; 0 of a label that never occurs.

    >>> round(macro_f1([0, 0, 1], [0, 1, 1], 2), 4)
    0.6667
    """
    pairs = np.zeros((labels, labels))
    np.add.at(pairs, (np.asarray(right), np.asarray(predicted)), 1)
    found, amounts = 2 * np.diag(pairs), pairs.sum(axis=0) + pairs.sum(axis=1)
    return float(np.mean(np.divide(found, amounts, out=np.zeros(labels), where=amounts > 0)))
