"""An item of a task as a question to a model, with what stands beside the item for calibration and PMI.

In: a task and an item. Out: texts; nothing is encoded here. `corpus.pipeline.tasks.ask` makes context and answers.
Invariant: the two sentences of a minimal pair stand in an order that the item's id decides, so a model that cannot tell
them apart is right in half of the pairs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from corpus.pipeline import tasks
from corpus.pipeline.tasks.schema import Item, Task

CONTENT_FREE = ("无", "N/A", "")
"""Inputs without content. Zhao et al. (2021) take "N/A", "[MASK]" and the empty text; a causal model has no [MASK], so
the Chinese word for nothing stands in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """An item as it is put to a model."""

    id: str
    group: str
    context: str
    """What the model reads; empty at the beginning of a document."""
    answers: tuple[str, ...]
    """What may follow; their likelihoods are compared."""
    label: int
    """The right one."""
    without: str = ""
    """The context without the item; empty where the task names none."""
    content_free: tuple[str, ...] = ()
    """The context with inputs without content in place of the item's, where the answers are the task's labels."""


def ask(task: Task, item: Item) -> Question:
    """The question that an item is.

    Raises:
        TaskError: the task has no prompt, or the item lacks what the prompt needs.

    """
    asked = tasks.ask(task, item)
    if task.kind == "minimal_pairs":
        first = hashlib.blake2b(item.id.encode(), digest_size=1).digest()[0] % 2
        answers = asked.answers[::-1] if first else asked.answers
        return Question(id=item.id, group=item.group, context="", answers=answers, label=first)
    blanks = (replace(item, texts=tuple(text for _ in item.texts)) for text in CONTENT_FREE)
    return Question(
        id=item.id, group=item.group, context=asked.context, answers=asked.answers, label=item.label,
        without=asked.without,
        content_free=() if task.kind == "choice" else tuple(tasks.ask(task, blank).context for blank in blanks),
    )  # fmt: skip
