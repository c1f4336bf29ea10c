"""Which answers to a question are compared: rules on votes, given rankings and lengths.

In: the answers to one question, with their score, time and tokens. Out: the answers that are used, best first, the
pairs, and for all others the reason why they are left out. Pure.
Invariants: every answer is used or has a reason; every used answer is in a pair; the result does not depend on the
order of the answers, but for which of two equal texts stays.
Cost: a look at every pair of at most `answers` answers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
MOST_ANSWERS = 9
"""Ouyang et al., 2022, section 3.5: labelers ranked four to nine answers."""
MOST_PAIRS = MOST_ANSWERS * (MOST_ANSWERS - 1) // 2
FACTOR = 1.5
"""Least ratio of two scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What makes one answer better than another."""

    factor: float = FACTOR
    """Least ratio of the scores of two answers, a score below 1 taken as 1; unused for given rankings."""
    answers: int = MOST_ANSWERS
    """Most answers of a question."""
    pairs: int = MOST_PAIRS
    """Most pairs of a question."""
    any_age: bool = False
    """Whether the better answer may be the older one, which had more time to be liked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer to a question."""

    text: str
    tokens: int
    """Tokens of the question and this answer as a model reads them; 0 where nobody counted."""
    score: int | None
    """Larger is better; None where the record has none."""
    time: int | None = None
    """Larger is later; None where nobody knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The answers of one question."""

    used: Sequence[int]
    """Numbers of the answers that are used, best first."""
    pairs: Sequence[tuple[int, int]]
    """Places in `used` of the better and of the worse answer."""
    left_out: Mapping[int, str]
    """Reasons of the other answers, by number."""
    pairs_left_out: Counter[str] = field(default_factory=Counter)
    """Pairs of usable answers that are not compared, by reason."""


def judge(answers: Sequence[Answer], rules: Rules, *, longest: int, is_given: bool) -> Judged:
    """Compare answers; `is_given` says that people ranked them, so that each lower score is worse.

    >>> answers = [Answer(text=text, tokens=9, score=score, time=time)
    ...            for text, score, time in (("甲", 30, 5), ("乙", 10, 2), ("丙", 29, 9), ("丁", 0, 7))]
    >>> found = judge(answers, Rules(), longest=20, is_given=False)
    >>> found.used, found.pairs, found.left_out
    ([0, 2, 1, 3], [(0, 2), (1, 2), (1, 3)], {})
    >>> sorted(found.pairs_left_out.items())
    [('better_is_older', 2), ('close_scores', 1)]
    """
    left_out = _unusable(answers, longest)
    usable = sorted(
        (at for at in range(len(answers)) if at not in left_out),
        key=lambda at: (-(answers[at].score or 0), answers[at].time or 0, answers[at].text),
    )
    if len(usable) < 2:
        return Judged(used=[], pairs=[], left_out=left_out | dict.fromkeys(usable, "single_answer"))
    chosen = _spread(usable, rules.answers)
    left_out |= {at: "too_many_answers" for at in usable if at not in chosen}
    pairs, others = list[tuple[int, int]](), Counter[str]()
    for one, other in itertools.combinations(chosen, 2):
        reason = _not_compared(answers[one], answers[other], rules, is_given=is_given)
        if reason:
            others[reason] += 1
        else:
            pairs.append((one, other))
    kept = _spread(pairs, rules.pairs)
    others.update({"too_many_pairs": len(pairs) - len(kept)} if len(kept) < len(pairs) else {})
    paired = {at for pair in kept for at in pair}
    used = [at for at in chosen if at in paired]
    left_out |= {at: "in_no_pair" for at in chosen if at not in paired}
    place = {at: index for index, at in enumerate(used)}
    return Judged(
        used=used, pairs=[(place[one], place[other]) for one, other in kept], left_out=left_out, pairs_left_out=others
    )


def _unusable(answers: Sequence[Answer], longest: int) -> dict[int, str]:
    """Reasons that do not depend on a comparison."""
    found, seen = dict[int, str](), set[str]()
    for at, answer in enumerate(answers):
        if not answer.text:
            found[at] = "empty"
        elif answer.score is None:
            found[at] = "no_score"
        elif answer.text in seen:
            found[at] = "same_text"
        elif answer.tokens > longest:
            found[at] = "too_long"
        seen.add(answer.text)
    return found


def _not_compared(better: Answer, worse: Answer, rules: Rules, *, is_given: bool) -> str:
    """Why two answers, the first with the higher score, are no pair; empty where they are one."""
    high, low = better.score or 0, worse.score or 0
    if high == low:
        return "equal_scores"
    if is_given:
        return ""
    if max(high, 1) < rules.factor * max(low, 1):
        return "close_scores"
    if not rules.any_age and better.time is not None and worse.time is not None and better.time < worse.time:
        return "better_is_older"
    return ""


def _spread(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, the first, the last and evenly between them.

    >>> _spread("abcdefg", 3)
    ['a', 'd', 'g']
    """
    if len(values) <= most:
        return list(values)
    if most == 1:
        return [values[0]]
    return [values[at * (len(values) - 1) // (most - 1)] for at in range(most)]
