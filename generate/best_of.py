"""Best of n: of several samples of a prompt the one with the highest score is kept (Stiennon et al., 2020, section 4.3;
Nakano et al., 2021).

In: a model, prompts, and a scorer, which the caller hands over: this wing samples, and knows no reward model. Out: for
each prompt the best of its `best_of` samples, and the scores of all.
Invariants: sample k of a prompt is the text that the same seed gives without a choice; a score is the one that
`corpus score` gives, but for rounding; of equal scores the first sample is kept; a text without a score is kept only
where none has one.
Cost: `best_of` samples of each prompt, and one pass of the reward model over each; a text appears when all are written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.generate.config import Choice, Sample, SampleConfig
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import PLAIN, Form
from corpus.generate.stage import in_order, joined, stream
from corpus.pipeline.errors import ModelError
from corpus.pipeline.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A reward model, as far as the choice needs one."""

    folder: Path
    """Where it was loaded from."""
    score: Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[float | None]]
    """From questions and answers, as ids of the model's tokenizer, to a score for each; None for one that is too
    long."""


def kl_bound(many: int) -> float:
    """Nats: the most that the best of `many` diverges from a single sample, KL(best || sample).

    Of `many` samples without ties it is log n - (n - 1) / n exactly; texts that repeat make it smaller.

    >>> round(kl_bound(2), 4), round(kl_bound(16), 4)
    (0.1931, 1.8351)
    """
    return math.log(many) - (many - 1) / many


def check(config: SampleConfig, scorer: Scorer | None) -> None:
    """Raise a ValueError where only one of the two is given."""
    if (config.best_of is None) != (scorer is None):
        raise ValueError("--best-of and --reward need each other")


def choose(read: Sequence[tuple[Sequence[int], Sequence[int]]], scorer: Scorer, *, many: int) -> list[Choice]:
    """The best of each `many` samples that stand side by side in `read`, as questions and answers.

    Raises:
        ModelError: a score is NaN or infinite.

    """
    scores = scorer.score([question for question, _ in read], [answer for _, answer in read])
    if not all(score is None or math.isfinite(score) for score in scores):
        raise ModelError(
            "the reward model returned NaN or infinity; its training has probably diverged",
            hint="Give --reward an earlier checkpoint.",
        )
    return [_best(scores[first : first + many]) for first in range(0, len(scores), many)]


def _best(scores: Sequence[float | None]) -> Choice:
    known = [(score, -at) for at, score in enumerate(scores) if score is not None]
    return Choice(sample=-max(known)[1] if known else 0, scores=tuple(scores))


def samples(
    model: Model, config: SampleConfig, scorer: Scorer, *, form: Form = PLAIN, progress: Progress = SILENT
) -> Iterator[Sample]:
    """The best sample of each of `config.prompts`, as soon as all of that prompt are written.

    Raises:
        ModelError: model or reward model returned NaN or infinity.
        DeviceError: the device is out of memory.

    """
    check(config, scorer)
    reader = form.reader(model)
    pieces = in_order(stream(model, config, form=form, progress=progress), config)
    for number, own in itertools.groupby(pieces, key=lambda piece: piece.prompt):
        prompt, found = config.prompts[number], joined(own, progress)
        read = [reader(prompt, found[number, sample][0]) for sample in range(config.drawn)]
        (choice,) = choose(read, scorer, many=config.drawn)
        text, finish = found[number, choice.sample]
        yield Sample(prompt=prompt, sample=choice.sample, text=text, finish=finish, seed=config.seed, choice=choice)
