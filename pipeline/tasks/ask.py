"""An item as a prompt: the context, and what may follow it.

In: a task with a prompt, and an item. Out: the texts of which a model is asked which it finds likeliest.
Invariants: one answer for each label or option, in their order. Nothing is added between context and answer.
Cost: some string operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from corpus.pipeline.errors import TaskError
from corpus.pipeline.tasks.parse import TEXTS
from corpus.pipeline.tasks.schema import Item, Prompt, Task
from corpus.pipeline.tasks.template import fill

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Question:
    """An item as a model without training is asked it."""

    context: str
    """The text before the answer; empty where answers stand at the beginning of a document."""
    answers: tuple[str, ...]
    """What may follow: one for each label, or for each option; (good, bad) of a minimal pair."""
    without: str
    """The context without the item, for PMI; empty where the task has none."""


def ask(task: Task, item: Item) -> Question:
    """An item as a prompt.

    Raises:
        TaskError: the task has no prompt, or the item lacks its gap or has a question that the prompt does not know.

    """
    prompt = task.prompt
    if prompt is None:
        raise TaskError(
            f"the task {task.name} has no prompt, so only a model trained on it can be asked",
            hint="Add a table [prompt] to the task file; docs/tasks.md shows one.",
        )
    if task.kind == "minimal_pairs":
        return Question("", item.options, "")
    names = dict(zip(TEXTS[task.kind], item.texts, strict=True))
    names["options"] = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False))
    context = fill(_template(prompt, item), names.__getitem__)
    if task.kind != "choice":
        return Question(context, prompt.answers, prompt.without)
    rest = ""
    if prompt.gap:
        context, gap, rest = context.partition(prompt.gap)
        if not gap:
            raise TaskError(
                f"{item.place}: the context has no gap {prompt.gap!r}",
                hint="Correct gap in the task's [prompt], or the text.",
            )
    answers = (
        fill(prompt.answers[0], {"option": option, "letter": letter}.__getitem__) + rest
        for letter, option in zip(LETTERS, item.options, strict=False)
    )
    return Question(context, tuple(answers), prompt.without)


def _template(prompt: Prompt, item: Item) -> str:
    """The context's template: that of the item's question, where the prompt has cases."""
    if not prompt.cases:
        return prompt.context
    template = prompt.cases.get(item.texts[1], prompt.context)
    if not template:
        raise TaskError(
            f"{item.place}: the prompt has no case {item.texts[1]!r}; it has {', '.join(prompt.cases)}",
            hint="Add it to the task's [prompt.cases], or write a context for all others.",
        )
    return template
