"""Settings and results of `corpus sample`. Imports no torch and no transformers."""

from __future__ import annotations

import itertools
import math
import secrets
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["separator", "stop", "length"]
_LOWEST_TEMPERATURE = 0.001
_SEEDS = 1 << 63


def fresh_seed() -> int:
    """A random seed below 2**32, short enough to be typed."""
    return secrets.randbelow(1 << 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Prompts and sampling settings."""

    prompts: tuple[str, ...] = ("",)
    """Texts to continue; an empty one begins a document."""
    max_new_tokens: int = 256
    """Most tokens of one sample."""
    temperature: float = 1.0
    """Below 1 likely tokens become likelier; 0 always takes the likeliest token."""
    top_k: int = 30
    """Only the k likeliest tokens may be chosen; 0 allows all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability may be chosen; 1 allows all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that occurred become less likely: positive scores are divided by it, negative ones multiplied."""
    num_samples: int = 1
    """Different continuations of each prompt."""
    best_of: int | None = None
    """Continuations of each prompt of which the one with the highest score is kept, in place of `num_samples`."""
    seed: int = field(default_factory=fresh_seed)
    """The same seed gives the same text; random when not given."""
    stop: tuple[str, ...] = ()
    """Strings that end a sample; they are not printed."""
    batch_size: int = 16
    """Most samples in one batch."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        if not self.prompts:
            raise ValueError("--prompt must be given at least once")
        for flag, texts in (("--prompt", self.prompts), ("--stop", self.stop)):
            if not all(map(_is_text, texts)):
                raise ValueError(f"{flag} must be text in UTF-8")
        if not all(self.stop):
            raise ValueError("--stop must not be empty")
        _check_positive(max_new_tokens=self.max_new_tokens, num_samples=self.num_samples, batch_size=self.batch_size)
        self._check_chances()

    def _check_chances(self) -> None:
        if self.best_of is not None:
            if self.best_of < 2:
                raise ValueError(f"--best-of must be at least 2, is {self.best_of}")
            if self.num_samples > 1:
                raise ValueError("--num-samples must be 1 with --best-of, which keeps one sample of each prompt")
            if self.temperature == 0:
                raise ValueError("--best-of needs a --temperature above 0: without chance all samples are equal")
        if not (self.temperature == 0 or _LOWEST_TEMPERATURE <= self.temperature < math.inf):
            raise ValueError(f"--temperature must be 0 or at least {_LOWEST_TEMPERATURE}, is {self.temperature}")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                "--num-samples above 1 needs a --temperature above 0: without chance all samples are equal"
            )
        if self.top_k < 0:
            raise ValueError(f"--top-k must not be negative, is {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p must be above 0 and at most 1, is {self.top_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"--repetition-penalty must be above 0, is {self.repetition_penalty}")
        if not 0 <= self.seed < _SEEDS:
            raise ValueError(f"--seed must be at least 0 and below 2**63, is {self.seed}")

    @property
    def drawn(self) -> int:
        """Samples that are written of each prompt."""
        return self.best_of or self.num_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingsConfig:
    """Positions and repeats of the timings."""

    positions: tuple[int, ...] = ()
    """Lengths of the text before the token that is timed, rising; nine up to the model's context when empty."""
    repeats: int = 3
    """How often each is timed; the median is reported."""
    batch_size: int = 16
    """Largest batch whose throughput is measured."""
    tokens: int = 64
    """Tokens of each sample of a batch."""
    seed: int = 1
    """Seed of the random tokens."""

    def __post_init__(self) -> None:
        """Raise a ValueError that names the flag."""
        _check_positive(repeats=self.repeats, batch_size=self.batch_size, max_new_tokens=self.tokens)
        if any(after <= before for before, after in itertools.pairwise((1, *self.positions))):
            raise ValueError(f"--positions must rise from 2 on, are {', '.join(map(str, self.positions))}")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """1, 4, 16 and so on below `batch_size`, and `batch_size`."""
        powers = itertools.takewhile(lambda size: size < self.batch_size, (4**power for power in itertools.count()))
        return (*powers, self.batch_size)

    def positions_of(self, context: int) -> tuple[int, ...]:
        """The positions up to a model's context."""
        sixteenths = sorted({max(2, context * part // 16) for part in (1, 2, 4, 6, 8, 10, 12, 14, 16)})
        return tuple(position for position in self.positions or sixteenths if position <= context)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """How a sample ended."""

    reason: Reason
    """`separator`: the document ended; `stop`: a stop string was found; `length`: `max_new_tokens` was reached."""
    prompt_tokens: int
    """Tokens of the whole prompt, also where the context holds only the newest of them."""
    tokens: int
    """Tokens written, a separator included."""
    logprob: float
    """Log-probability of those tokens under the model: temperature 1, no filter."""
    seconds: float
    """Time of the model, from reading the prompt to the last token, without the caller's work between pieces."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of this sample alone, not of its batch."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Text that one token added to one sample, and how the sample ended, if it did."""

    prompt: int
    """Which of the prompts, from 0."""
    sample: int
    """Which sample of it, from 0."""
    text: str
    finish: Finish | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The best of several samples of one prompt."""

    sample: int
    """Which one, from 0: the first of the highest score."""
    scores: tuple[float | None, ...]
    """Score of each sample, in their order; None where prompt and text are longer than the reward model's context."""

    @property
    def score(self) -> float | None:
        """That of the best; None where no sample has one."""
        return self.scores[self.sample]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One finished continuation."""

    prompt: str
    sample: int
    """Which sample of the prompt, from 0."""
    text: str
    finish: Finish
    seed: int
    """The seed of the run; it reproduces the text with the same settings."""
    choice: Choice | None = None
    """Of best-of-n: the scores of all samples that were drawn, of which this is the best."""


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, is {number}")


def _is_text(text: str) -> bool:
    """Whether it can be written in UTF-8: undecodable bytes of the command line are lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
