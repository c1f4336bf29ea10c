"""Filter rules: why a document is not worth keeping.

In: a document's text and the length of its question or source side. Out: the reason to drop it, or None.
A rule is named by its reason; the reason is the counter in the ledger and the label in `rejected/`. Lengths are
characters.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a dataset's documents must fulfil."""

    min_length: int
    """Fewest characters of a whole document."""


def empty(text: str, prompt_length: int, limits: Limits) -> str | None:  # noqa: ARG001
    """Nothing is left to learn: no text at all, or a question without an answer."""
    return "nothing is left after the question or source side" if len(text) <= prompt_length else None


def too_short(text: str, prompt_length: int, limits: Limits) -> str | None:  # noqa: ARG001
    """Fewer characters than the dataset's minimum."""
    return f"{len(text)} of at least {limits.min_length} characters" if len(text) < limits.min_length else None


RULES = (empty, too_short)


def judge(text: str, prompt_length: int, limits: Limits) -> tuple[str, str] | None:
    """The first rule that drops the document, as (reason, detail), or None when it is kept."""
    for rule in RULES:
        detail = rule(text, prompt_length, limits)
        if detail is not None:
            return rule.__name__, detail
    return None
