"""An item of a task as a question to a model: a context, and the answers whose likelihood is compared.

In: a task and an item. Out: texts; nothing is encoded here.
Invariants: a context and an answer are never joined by a blank of ours; text after a gap belongs to every answer, so
all answers of an item are compared on the same text; the two sentences of a minimal pair stand in an order that the
item's id decides, so a model that cannot tell them apart is right in half of the pairs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.tasks.schema import Item, Prompt, Task

CONTENT_FREE = ("无", "N/A", "")
"""Inputs without content: Zhao et al. (2021) take "N/A", "[MASK]" and the empty text; a model of Chinese has no
[MASK], and its word for nothing stands in its place."""
_NAMES = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("first", "second"),
    "choice": ("context", "question"),
    "minimal_pairs": (),
}
_PLACE = re.compile(r"\{(\w+)\}")


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
    without: str | None = None
    """The context without the item; None where the task names none."""
    content_free: tuple[str, ...] = ()
    """The context with inputs without content in place of the item's, where the answers are the task's labels."""


def ask(task: Task, item: Item) -> Question:
    """The question that an item is.

    Raises:
        BenchmarkError: the task has no prompt, or the item lacks what the prompt needs.

    """
    if task.kind == "minimal_pairs":
        return _pair(item)
    prompt = _prompt(task)
    values, rest = _values(task, item, prompt)
    return Question(
        id=item.id,
        group=item.group,
        context=_fill(_context(task, item, prompt), values, task),
        answers=_answers(task, item, prompt, values, rest),
        label=item.label,
        without=_fill(prompt.without, values, task) if prompt.without else None,
        content_free=_content_free(task, item, prompt),
    )


def document(question: Question) -> str:
    """The question with its right answer, as an example."""
    return question.context + question.answers[question.label]


def _pair(item: Item) -> Question:
    good, bad = item.options
    first = hashlib.blake2b(item.id.encode(), digest_size=1).digest()[0] % 2
    return Question(
        id=item.id, group=item.group, context="", answers=(bad, good) if first else (good, bad), label=first
    )


def _prompt(task: Task) -> Prompt:
    if task.prompt is None or not task.prompt.answers:
        raise BenchmarkError(
            f"the task {task.name} has no prompt, so a model cannot be asked without training on it",
            hint=f"Add [prompt] to {task.file}." if task.file else "Choose a task with a prompt.",
        )
    return task.prompt


def _context(task: Task, item: Item, prompt: Prompt) -> str:
    """The template of the context."""
    if not prompt.cases:
        return prompt.context
    found = prompt.cases.get(item.texts[1])
    if found is None:
        raise BenchmarkError(
            f"{item.place}: the prompt of {task.name} has no case {item.texts[1]!r}",
            hint=f"It has {', '.join(prompt.cases)}.",
        )
    return found


def _values(task: Task, item: Item, prompt: Prompt) -> tuple[dict[str, str], str]:
    """What the places of a template stand for, and the text after the gap."""
    values = dict(zip(_NAMES[task.kind], item.texts, strict=True))
    values["options"] = "\n".join(f"{letter(number)}. {option}" for number, option in enumerate(item.options))
    if not prompt.gap:
        return values, ""
    before, gap, after = values["context"].partition(prompt.gap)
    if not gap:
        raise BenchmarkError(
            f"{item.place}: the context has no {prompt.gap}, which an option replaces",
            hint="Leave the record out, or correct [prompt] gap.",
        )
    return values | {"context": before}, after


def _answers(task: Task, item: Item, prompt: Prompt, values: Mapping[str, str], rest: str) -> tuple[str, ...]:
    if task.kind == "choice":
        template = prompt.answers[0]
        given = [
            _fill(template, {**values, "option": option, "letter": letter(number)}, task) + rest
            for number, option in enumerate(item.options)
        ]
    else:
        given = [_fill(answer, values, task) for answer in prompt.answers]
    if not all(given):
        raise BenchmarkError(f"{item.place}: an answer is empty", hint="An answer needs text to be scored.")
    return tuple(given)


def _content_free(task: Task, item: Item, prompt: Prompt) -> tuple[str, ...]:
    """Contexts without content; none where items have options of their own."""
    if task.kind == "choice":
        return ()
    blanks = [replace(item, texts=tuple(text for _ in item.texts)) for text in CONTENT_FREE]
    return tuple(_fill(prompt.context, _values(task, blank, prompt)[0], task) for blank in blanks)


def letter(number: int) -> str:
    """The letter of an option: A, B and so on.

    >>> letter(0), letter(3)
    ('A', 'D')
    """
    return chr(ord("A") + number)


def _fill(template: str, values: Mapping[str, str], task: Task) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BenchmarkError(
                f"the prompt of {task.name} has {match[0]}, which a task of kind {task.kind} does not have",
                hint=f"It has {', '.join('{' + name + '}' for name in values)}.",
            )
        return values[match[1]]

    return _PLACE.sub(value, template)
