"""Cleaning the parts of records: cleaning rules, trimming, swapped sides, masks.

In: the parts of records in one flat list, `width` a record, and which steps apply. Out: the same parts cleaned, with
the number of records each rule changed and of the strings masked.
Invariants: cleaned parts stay as they are; a record's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from corpus.pipeline.clean.boilerplate import trim
from corpus.pipeline.clean.pii import mask_all
from corpus.pipeline.clean.quality import survey_of
from corpus.pipeline.clean.rules import Table, clean_all

MIN_SIDE = 4
"""Fewest characters of a side of a translation that show its language."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSteps:
    """What is done to the parts of a dataset's records."""

    table: Table
    trim: bool = False
    """Whether to trim the last part of each record."""
    swap: bool = False
    """Whether a record is a translation whose two sides may be swapped."""
    mask: Collection[str] = ()
    """Kinds of personal data to mask."""


@dataclass(slots=True)
class CleanedParts:
    """Parts after cleaning, in order."""

    texts: list[str]
    cleaned: Counter[str] = field(default_factory=Counter)
    """Records changed, by rule."""
    masked: Counter[str] = field(default_factory=Counter)
    """Strings masked, by kind."""


def clean_parts(
    texts: Sequence[str], width: int, steps: PartSteps, owners: Sequence[int] | None = None
) -> CleanedParts:
    """Clean the parts of records, `width` parts each; `owners` gives the record of each part where widths differ."""
    rules = clean_all(texts, steps.table)
    parts = CleanedParts(rules.texts)
    changed = dict(rules.changed)
    if steps.trim:
        changed["trim"] = _trim(parts.texts, width, steps.table)
    if steps.swap:
        changed["swap_sides"] = set(swapped(parts.texts))
        for source in changed["swap_sides"]:
            parts.texts[source : source + 2] = parts.texts[source + 1], parts.texts[source]
    for rule, positions in changed.items():
        if positions:
            parts.cleaned[rule] = len({owners[at] if owners else at // width for at in positions})
    if steps.mask:
        parts.texts, parts.masked = mask_all(parts.texts, steps.mask)
    return parts


def swapped(sides: Sequence[str]) -> list[int]:
    """Which translations have their sides swapped, by the position of their first side.

    Args:
        sides: source and target of one translation after another. They are swapped if the source is mostly Han and the
            target has letters and no Han.

    """
    firsts = [at for at in range(0, len(sides), 2) if not sides[at].isascii()]  # others have no Han
    if not firsts:
        return []
    survey = survey_of([side for at in firsts for side in sides[at : at + 2]])
    han, visible = survey.han, survey.visible
    letters = visible - han - survey.signs
    wrong = (han[::2] > 0.5 * visible[::2]) & (han[1::2] == 0) & (letters[1::2] > 0)
    wrong &= np.minimum(visible[::2], visible[1::2]) >= MIN_SIDE
    return [firsts[index] for index in np.flatnonzero(wrong).tolist()]


def _trim(texts: list[str], width: int, table: Table) -> set[int]:
    """Trim the last part of each record in place; the positions changed.

    Of all that the rules match only code can cross the end of a line, so only a text that loses a backtick is cleaned
    once more.
    """
    changed: set[int] = set()
    with_code: list[int] = []
    for position in range(width - 1, len(texts), width):
        text = texts[position]
        trimmed = trim(text)
        if trimmed != text:
            texts[position] = trimmed.strip()
            changed.add(position)
            if text.count("`") != trimmed.count("`"):
                with_code.append(position)
    for position, text in zip(with_code, clean_all([texts[at] for at in with_code], table).texts, strict=True):
        texts[position] = text
    return changed
