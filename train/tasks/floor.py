"""Floors of a task as figures: what needs no language model, beside every figure of one.

In: training items and those that are measured. Out: figures by the floor's name.
Cost: that of `corpus.pipeline.tasks.floors`, seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corpus.pipeline.errors import TaskError
from corpus.pipeline.tasks import METRICS, Item, Task, floors


def names_of(task: Task) -> tuple[str, ...]:
    """The figures that a task has: a choice has the accuracy alone, for its labels are places of options."""
    return ("accuracy",) if task.kind == "choice" else METRICS


def of(task: Task, train: Sequence[Item], items: Sequence[Item]) -> tuple[Mapping[str, Mapping[str, float]], str]:
    """Figures by floor, and why the linear one is not there; empty where it is."""
    why = ""
    try:
        found = floors.floors(task, train, items)
    except TaskError as error:  # scikit-learn is an extra
        why = error.message
        found = [floors.chance(items)]
        if task.kind != "choice" and train:
            found.append(floors.majority(train, items))
    return {each.name: {name: each.figures.of(name) for name in names_of(task)} for each in found}, why
