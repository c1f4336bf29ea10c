"""The input forms of GPT-1 (Radford et al., 2018, section 3.3, figure 1): an item's texts as sequences of tokens.

    classification   start text extract
    entailment       start premise delimiter hypothesis extract
    similarity       start first delimiter second extract, and start second delimiter first extract
    choice           start context question delimiter option extract, once for each option

In: the tokens of an item's texts. Out: its sequences, each at most the context.
Invariants: where an item is too long, the end of the field that the task names is cut, and only then the end of its
longest field; the options of an item see the same context; start, delimiter and extract are never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corpus.pipeline.tasks.schema import Item, Kind, Task

FIELDS: dict[str, tuple[str, ...]] = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("first", "second"),
    "choice": ("context", "question"),
}
"""Names of an item's texts, in their order."""
_OPTIONS = "options"


@dataclass(frozen=True, slots=True)
class Marks:
    """Ids of the tokens that an item's texts stand between."""

    start: int
    delimiter: int
    extract: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How the items of a task become sequences."""

    kind: Kind
    cut: str
    """The field whose end is cut."""
    both_orders: bool
    """Whether a pair of texts is read in both orders, and the two states are added."""
    delimiter: bool = True
    """Whether a delimiter stands between the texts."""

    @classmethod
    def of(cls, task: Task, *, one_order: bool = False, delimiter: bool = True) -> Form:
        """The form of a task."""
        both = task.kind == "similarity" and not one_order
        return cls(kind=task.kind, cut=task.cut, both_orders=both, delimiter=delimiter)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Form:
        """What `to_dict` gave."""
        return cls(**{name: values[name] for name in ("kind", "cut", "both_orders", "delimiter")})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in ("kind", "cut", "both_orders", "delimiter")}

    @property
    def is_choice(self) -> bool:
        """Whether each option has one score, in place of one for each label."""
        return self.kind == "choice"

    @property
    def is_pair(self) -> bool:
        """Whether an item has two texts and one sequence, as a tokenizer's pairs have."""
        return self.kind in {"entailment", "similarity"} and not self.both_orders

    def sequences(
        self, texts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], marks: Marks, context: int
    ) -> tuple[list[np.ndarray], int]:
        """The sequences of an item, and how many tokens of its texts were cut.

        >>> form = Form(kind="entailment", cut="premise", both_orders=False)
        >>> [ids.tolist() for ids in form.sequences([[1, 2, 3], [4]], [], Marks(7, 8, 9), 6)[0]]
        [[7, 1, 2, 8, 4, 9]]
        """
        fields = dict(zip(FIELDS[self.kind], texts, strict=True))
        lengths = {name: len(ids) for name, ids in fields.items()}
        if self.is_choice:
            lengths[_OPTIONS] = max(map(len, options))
        pairs = self.kind != "classification"
        room = context - 2 - (pairs and self.delimiter)
        kept = shortened(lengths, room, self.cut)
        cut = {name: ids[: kept[name]] for name, ids in fields.items()}
        short = [option[: kept[_OPTIONS]] for option in options] if self.is_choice else []
        dropped = sum(map(len, texts)) - sum(map(len, cut.values())) + sum(map(len, options)) - sum(map(len, short))
        if self.is_choice:
            before = [*cut["context"], *cut["question"]]
            return [self._sequence(before, option, marks) for option in short], dropped
        parts = list(cut.values())
        if not pairs:
            return [self._sequence(parts[0], None, marks)], dropped
        orders = [parts, parts[::-1]] if self.both_orders else [parts]
        return [self._sequence(first, second, marks) for first, second in orders], dropped

    def _sequence(self, first: Sequence[int], second: Sequence[int] | None, marks: Marks) -> np.ndarray:
        between = [marks.delimiter] if self.delimiter else []
        rest = [] if second is None else [*between, *second]
        return np.array([marks.start, *first, *rest, marks.extract], dtype=np.int32)


def texts_of(item: Item) -> tuple[str, ...]:
    """All texts of an item in the order in which they are encoded: its fields, then its options."""
    return (*item.texts, *item.options)


def shortened(lengths: Mapping[str, int], room: int, first: str) -> dict[str, int]:
    """Lengths that sum to at most `room`: of the field `first` less, then always of the longest one.

    >>> shortened({"context": 9, "question": 2, "options": 4}, 10, "context")
    {'context': 4, 'question': 2, 'options': 4}
    >>> shortened({"context": 2, "question": 2, "options": 7}, 5, "context")
    {'context': 0, 'question': 2, 'options': 3}
    """
    kept = dict(lengths)
    over = sum(kept.values()) - max(room, 0)
    if over > 0 and first in kept:
        taken = min(over, kept[first])
        kept[first] -= taken
        over -= taken
    while over > 0:
        longest, *others = sorted(kept, key=lambda name: -kept[name])
        floor = max((kept[name] for name in others), default=0)
        taken = min(over, max(1, kept[longest] - floor))
        kept[longest] -= taken
        over -= taken
    return kept
