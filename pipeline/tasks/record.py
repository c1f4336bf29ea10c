"""One record of a task's data as an item.

In: a parsed record and its task. Out: an `Item`, or None where the task leaves its label out.
Invariants: a field that is missing, a value of another type, a label that the task does not know and a position outside
the options raise a TaskError that names file and line.
Cost: some microseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from corpus.pipeline.errors import TaskError
from corpus.pipeline.read.nested import value_at
from corpus.pipeline.tasks.parse import TEXTS, spelled
from corpus.pipeline.tasks.schema import Item, Task
from corpus.pipeline.tasks.template import fill

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def to_item(task: Task, record: Mapping[str, Any], *, where: str, place: str) -> Item | None:
    """The item of a record.

    Args:
        task: the task.
        record: the parsed record.
        where: file and line in messages.
        place: file and line in the item.

    Raises:
        TaskError: the record is not what the task says.

    """
    found = _Record(task, record, where)
    if task.kind == "minimal_pairs":
        texts, label = tuple[str, ...](), 0
        options: tuple[str, ...] = (found.text("good"), found.text("bad"))
        if options[0] == options[1]:
            raise found.error(f"{task.fields['good']!r} and {task.fields['bad']!r} are equal")
    else:
        texts = tuple(found.text(role) if role in task.fields else "" for role in TEXTS[task.kind])
        spelling = found.label()
        if any(fnmatchcase(spelling, pattern) for pattern in task.ignored):
            return None
        options = found.options() if task.kind == "choice" else ()
        label = found.position(spelling, options)
    if any(not option.strip() for option in options):
        raise found.error("an option is empty")
    return Item(
        id=found.word("id") or place, texts=texts, options=options, label=label, group=found.word("group"), place=place
    )


class _Record:
    """A record, read by the names of its task's kind."""

    def __init__(self, task: Task, record: Mapping[str, Any], where: str) -> None:
        self._task = task
        self._record = record
        self._where = where

    def error(self, what: str, hint: str = "") -> TaskError:
        return TaskError(f"{self._where}: {what}", hint=hint)

    def text(self, role: str) -> str:
        return self._filled(self._task.fields[role], role)

    def word(self, role: str) -> str:
        """An id or a group; empty where the task names no field for it."""
        return self._filled(self._task.fields[role], role, whole=True) if role in self._task.fields else ""

    def options(self) -> tuple[str, ...]:
        """The options of a choice."""
        if self._task.options:
            return tuple(self._filled(name, "options") for name in self._task.options)
        name = self._task.fields["options"]
        values = self._value(name, "options")
        if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, str) for value in values):
            raise self.error(
                f"field {name!r} (options) must be a list of at least two texts, is {_short(values)}",
                hint='Where each option has a field of its own, write options = ["A", "B", "C", "D"].',
            )
        return tuple(values)

    def label(self) -> str:
        """The label as the record spells it."""
        name = self._task.fields["label"]
        value = value_at(self._record, name)
        if value is None or value == "":
            missing = "is empty" if name in self._record else f"is missing; the record has {self._known()}"
            raise self.error(
                f"the item has no label: field {name!r} {missing}",
                hint="Nothing can be measured on items without labels, as official test sets often are. Let the task's"
                ' [source.test] name labelled ones, or hold some out: held_out_of = "train", share = 0.1.',
            )
        spelling = spelled(value)
        if not spelling:
            raise self.error(f"field {name!r} (label) must be a word or a whole number, is {_short(value)}")
        return spelling

    def position(self, spelling: str, options: Sequence[str]) -> int:
        """The index of a label among the task's labels or the options."""
        labels, name = self._task.labels, self._task.fields["label"]
        if spelling in labels:
            index = labels.index(spelling)
        elif labels or not options:
            near = difflib.get_close_matches(spelling, labels, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise self.error(
                f"label {_short(spelling)} of field {name!r} is not known: the task has {', '.join(labels)}",
                hint=f"{meant}Name it in labels, or in ignored to leave such items out.",
            )
        elif not isinstance(value_at(self._record, name), int) and options.count(spelling) == 1:
            return options.index(spelling)
        elif spelling.isdecimal():
            index = int(spelling)
        elif len(spelling) == 1 and spelling.upper() in _LETTERS:
            index = _LETTERS.index(spelling.upper())
        else:
            raise self.error(
                f"label {_short(spelling)} of field {name!r} is no option",
                hint="It must be a position from 0, a letter from A or the text of an option; else list the labels.",
            )
        if options and index >= len(options):
            raise self.error(
                f"label {_short(spelling)} of field {name!r} is outside the {len(options)} options",
                hint='Positions count from 0; where yours count from 1, write labels = ["1", "2", "3", "4"].',
            )
        return index

    def _filled(self, field: str, role: str, *, whole: bool = False) -> str:
        """The text of a field or a template; numbers are taken in templates, and where `whole` in fields."""
        if "{" in field:
            return fill(field, lambda name: self._word(name, role, number=True))
        return self._word(field, role, number=whole)

    def _word(self, name: str, role: str, *, number: bool) -> str:
        value = self._value(name, role)
        if isinstance(value, str):
            return value
        if number and isinstance(value, int | float):
            return spelled(value) or str(value)
        raise self.error(f"field {name!r} ({role}) must be text, is {_short(value)}")

    def _value(self, name: str, role: str) -> Any:
        value = value_at(self._record, name)
        if value is None:
            near = difflib.get_close_matches(name, map(str, self._record), n=1)
            raise self.error(
                f"field {name!r} ({role}) is missing; the record has {self._known()}",
                hint=f"Did you mean {near[0]}? " if near else "Name the record's fields in the task's [fields].",
            )
        return value

    def _known(self) -> str:
        return ", ".join(map(str, self._record)) or "no fields"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
