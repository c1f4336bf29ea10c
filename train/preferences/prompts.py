"""The prompts of rankings: what a policy continues.

In: rankings. Out: `Prompts`, ids by number.
Invariant: a prompt is the separator and the question; without a question it is the separator and the first tokens of
the best answer, to be continued (after Ziegler et al., 2019), never its end. No prompt is cut.
Cost: reads all rankings once for the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from corpus.train.preferences.batches import RankingItem, RankingItems

_SLICE = 4096


class Prompts(Dataset[np.ndarray]):
    """The prompts of rankings, by number."""

    def __init__(self, rankings: RankingItems, *, separator: int, begin: int) -> None:
        """`begin` is how many tokens of an answer stand in for a question."""
        self._rankings, self._separator, self._begin = rankings, separator, begin
        parts = [range(first, min(first + _SLICE, len(rankings))) for first in range(0, len(rankings), _SLICE)]
        asked = [(bool(len(item.question)), len(self._prompt(item))) for part in parts for item in self._items(part)]
        self.lengths = np.array([length for _, length in asked], np.int64)
        """[items] tokens of each prompt."""
        self.numbers = np.arange(len(asked))
        """[items] the ranking of each prompt."""
        self.has_questions = any(is_asked for is_asked, _ in asked)

    def keep(self, most: int) -> int:
        """Leave out the prompts of more than `most` tokens: how many these are."""
        short = self.lengths <= most
        self.lengths, self.numbers = self.lengths[short], self.numbers[short]
        return int((~short).sum())

    def __len__(self) -> int:
        """Prompts."""
        return len(self.numbers)

    def __getitem__(self, number: int) -> np.ndarray:
        """One prompt."""
        return self.__getitems__([number])[0]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Those with these numbers."""
        return [self._prompt(item) for item in self._items(self.numbers[np.asarray(rows, np.int64)])]

    def _items(self, rows: Sequence[int] | np.ndarray) -> list[RankingItem]:
        return self._rankings.__getitems__(rows)

    def _prompt(self, item: RankingItem) -> np.ndarray:
        best = item.answers[0]
        read = item.question if len(item.question) else best[: min(self._begin, len(best) - 1)]
        return np.concatenate([[self._separator], read]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class PromptCollator:
    """Makes a batch of prompts: they stay a list, for what a network reads of them is not known yet."""

    def __call__(self, prompts: Sequence[np.ndarray]) -> dict[str, Any]:
        """`prompts`: [n] arrays of ids."""
        return {"prompts": list(prompts)}
