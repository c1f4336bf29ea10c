"""Examples before a question, drawn by seed.

In: the questions of another split. Out: for each group of questions, examples in an order.
Invariants: a draw depends on the seed, the benchmark's name and the draw's number, not on the questions that are
measured; the examples of fewer shots are the first of those of more, so a curve over shots adds examples. Questions
with options of their own (subjects of an exam) get examples of their group where it has enough.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from corpus.pipeline.errors import BenchmarkError
from corpus.train.benchmarks.prompts import Question


def draw(
    pool: Sequence[Question], *, name: str, seed: int, number: int, shots: int, groups: Iterable[str] = ()
) -> dict[str, list[Question]]:
    """`shots` examples for each of `groups`, and under "" for all others.

    Raises:
        BenchmarkError: there are fewer examples than shots.

    """
    if len(pool) < shots:
        raise BenchmarkError(
            f"{name} has {len(pool)} items to draw examples from, --shots asks for {shots}",
            hint=f"Give --shots {len(pool)} or fewer.",
        )
    order = list(pool)
    random.Random(f"{seed}/{name}/{number}").shuffle(order)  # noqa: S311  # a draw, not a secret
    found = {"": order[:shots]}
    for group in dict.fromkeys(groups):
        own = [question for question in order if question.group == group]
        if group and len(own) >= shots:
            found[group] = own[:shots]
    return found


def of_group(drawn: Mapping[str, Sequence[Question]], group: str) -> Sequence[Question]:
    """The examples of a question's group."""
    return drawn.get(group, drawn.get("", ()))
