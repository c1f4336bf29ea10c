"""The values of a task file: what the items of a labelled set are, and how a model is asked about them.

A task has one of five kinds. The first four are those of GPT-1 (Radford et al., 2018, section 3.3); `minimal_pairs` has
no training, a model is asked which of two sentences it finds likelier (Warstadt et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corpus.pipeline.manifest.schema import Split

Kind = Literal["classification", "entailment", "similarity", "choice", "minimal_pairs"]
KINDS: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # kind: (fields that must be named, fields that may be named)
    "classification": (("text", "label"), ("id", "group")),
    "entailment": (("premise", "hypothesis", "label"), ("id", "group")),
    "similarity": (("first", "second", "label"), ("id", "group")),
    "choice": (("context", "options", "label"), ("question", "id", "group")),
    "minimal_pairs": (("good", "bad"), ("id", "group")),
}
"""Every text may be a template: a value with braces, such as `{title}\\n{body}`, is filled from the record."""
METRICS = ("accuracy", "macro_f1", "mcc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One labelled item."""

    id: str
    """The record's own id, else `file:line`; unique in a split."""
    texts: tuple[str, ...]
    """(text,), (premise, hypothesis), (first, second), or (context, question) with an empty question where there is
    none; () of a minimal pair."""
    options: tuple[str, ...] = ()
    """The options of a choice; (good, bad) of a minimal pair."""
    label: int
    """Index into `Task.labels`, or into `options`; 0 of a minimal pair."""
    group: str = ""
    """Subject or paradigm that the item belongs to; figures are given for each group too."""
    place: str
    """`file:line` of the record, or `file:row`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """Where the items of a split come from."""

    values: tuple[str, ...] = ()
    """Values of `Source.split_field`; any when empty."""
    files: tuple[str, ...] = ()
    """File names below the data's folder; glob patterns. Any file when empty."""
    held_out_of: Split | None = None
    """The split whose items are divided: a share of them, chosen by the hash of their id (or `Source.unit_field`), is
    taken from it. Splits that are held out of the same one share no item."""
    share: float = 0.0
    """Share of those items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Files of a task and their splits."""

    path: str = ""
    """File or folder, relative to the task file; empty where `--data` must say it."""
    split_field: str = ""
    """Field that holds a record's split."""
    unit_field: str = ""
    """Field whose equal values stay together when items are held out, such as the premise's id; the id when empty."""
    splits: dict[Split, SplitRule]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """How a model without training on the task is asked: a context, and what may follow it."""

    context: str = ""
    """Template of the text before the answer, filled from the kind's fields: `{text}`, `{premise}`, `{hypothesis}`,
    `{first}`, `{second}`, `{context}`, `{question}`, `{options}` (one line each, lettered).
    Empty for minimal pairs: sentences are scored from the beginning of a document."""
    answers: tuple[str, ...] = ()
    """What follows for each label; of a choice one template with `{option}` or `{letter}`."""
    gap: str = ""
    """The characters of the filled context that an option replaces; the text after them belongs to each answer."""
    without: str = ""
    """The context without the item, for PMI (Holtzman et al., 2021)."""
    cases: dict[str, str] = field(default_factory=dict)
    """Contexts by the value of `question`, in place of `context`: XCOPA asks for a cause or an effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task."""

    name: str
    title: str
    kind: Kind
    summary: str
    licence: str
    citation: str
    homepage: str
    source: Source
    fields: dict[str, str]
    """The field of a record, dotted where nested, or a template with braces, for each name in KINDS."""
    options: tuple[str, ...] = ()
    """Fields of a choice that has each option in a field of its own; empty where `fields["options"]` is a list."""
    labels: tuple[str, ...]
    """Labels in order, as records spell them, numbers as text; empty for minimal pairs, and for choices whose label is
    the position of the right option from 0, its letter or its text."""
    names: tuple[str, ...]
    """What people call the labels, in the same order."""
    ignored: tuple[str, ...] = ()
    """Labels of items that are left out, such as `-`; glob patterns."""
    cut: str
    """The field whose end is cut where an item is longer than the context."""
    metric: str
    """The main figure, one of METRICS."""
    prompt: Prompt | None
    """How the task is asked without training; None where it is not."""
    file: Path | None
    """The task file; None for a built-in task."""

    @property
    def is_trainable(self) -> bool:
        """Whether it has items to train on."""
        return self.kind != "minimal_pairs" and "train" in self.source.splits
