"""A batch of samples: each step of the model gives every row its next token.

In: prompts as tokens. Out: the pieces of text that each step completes.
Invariants: a row does not depend on the other rows of its batch, nor on when they join or leave it; a finished row
leaves the batch.
Cost: joining and leaving copy the keys and values of the rows that stay.
"""

# Shape suffixes: b rows of the batch, v vocabulary.
from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corpus.generate.config import Finish, Piece, Reason, SampleConfig
from corpus.generate.engine.detokenizer import Decoder
from corpus.generate.engine.model import Model, memory_errors
from corpus.generate.engine.sampler import likeliest, processors
from corpus.generate.engine.stop_strings import StopFinder
from corpus.pipeline.errors import ModelError
from corpus.train.model.kv_cache import SlidingCache
from corpus.train.model.sampling import Noise, choose, log_probabilities, row_seed


class Row:
    """One unfinished sample."""

    def __init__(self, model: Model, key: tuple[int, int], prompt_tokens: int, config: SampleConfig) -> None:
        self.prompt, self.sample = key
        self.prompt_tokens = prompt_tokens
        self.tokens = 0
        self.seconds = 0.0
        """Time of the model since its prompt was read."""
        self._separator = model.separator
        self._decoder = Decoder(model.vocabulary)
        self._stops = StopFinder(config.stop)
        self._most = config.max_new_tokens

    def push(self, token: int) -> tuple[str, Reason | None]:
        """Take one token: the text that is now final, and why the sample is finished, if it is."""
        self.tokens += 1
        ended = token == self._separator
        text, stopped = self._stops.feed(self._decoder.flush() if ended else self._decoder.feed(token))
        if stopped:
            return text, "stop"
        if ended:
            return text + self._stops.flush(), "separator"
        if self.tokens == self._most:
            # The last character may be incomplete: it is not printed, not even as U+FFFD.
            return text + self._stops.flush(), "length"
        return text, None

    def flush(self) -> str:
        """The text held back as the beginning of a stop string, where the sample ends early."""
        return self._stops.flush()


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities under the model, of one token and of the likeliest in its place."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a step gave one row."""

    row: Row
    token: int
    text: str
    """The text that is now final."""
    finish: Finish | None
    scores: Scores | None
    """None where they were not asked for."""


class _Group:
    """Rows that came together, with their settings."""

    def __init__(
        self, config: SampleConfig, keys: Sequence[tuple[int, int]], device: torch.device, likeliest: int | None
    ) -> None:
        self.count = len(keys)
        self.likeliest = likeliest
        self._greedy = config.temperature == 0
        self._processors = processors(config)
        self._noise = Noise([row_seed(config.seed, *key) for key in keys], device)

    def choose(self, history_bt: Tensor, scores_bv: Tensor) -> Tensor:
        """The next token [b] of each row."""
        processed_bv = self._processors(history_bt, scores_bv)
        return processed_bv.argmax(dim=-1) if self._greedy else choose(processed_bv, self._noise.draw())

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        self.count = len(rows)
        self._noise.keep(rows)


class Batch:
    """Samples that grow together, one token each at every step, until `rows` is empty."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]] | Mapping[int, Sequence[int]],
        keys: Sequence[tuple[int, int]],
        config: SampleConfig,
        *,
        likeliest: int | None = None,
    ) -> None:
        """Read the prompts. A key is a prompt and the number of the sample; it seeds the row.

        With `likeliest` a step gives log-probabilities, too: of the token, and of this many likeliest ones.
        """
        self.rows = [Row(model, key, len(prompts[key[0]]), config) for key in keys]
        self._banned = model.banned
        self._groups = [_Group(config, keys, model.network.device, likeliest)]
        self._logprobs_b = torch.zeros(len(keys), device=model.network.device)
        self._tokens_b: Tensor | None = None
        started = time.perf_counter()
        used = sorted({prompt for prompt, _ in keys})
        read = [prompts[prompt] or [model.separator] for prompt in used]
        with memory_errors():
            self._cache = SlidingCache(model, read, [used.index(prompt) for prompt, _ in keys])
        if not self._cache.logits_bv.isfinite().all():
            raise ModelError(
                "the model returned NaN or infinity; training has probably diverged",
                hint="Give --model an earlier checkpoint.",
            )
        self._spend(started)

    def join(self, other: Batch) -> None:
        """Add the rows of another batch of the same model, which must not be used afterwards."""
        started = time.perf_counter()
        with memory_errors():
            for batch in (self, other):
                batch._read()
            self._cache.join(other._cache)
        self.rows += other.rows
        self._groups += other._groups
        self._logprobs_b = torch.cat([self._logprobs_b, other._logprobs_b])
        self._spend(started)

    def leave(self, rows: Collection[Row]) -> None:
        """Drop these rows, which are not finished."""
        self._keep([index for index, row in enumerate(self.rows) if row not in rows])

    def pieces(self) -> Iterator[Piece]:
        """Write all rows until they are finished."""
        while self.rows:
            yield from self.advance()

    def advance(self) -> list[Piece]:
        """`step`, as pieces of text; steps that complete no text give none."""
        return [
            Piece(prompt=each.row.prompt, sample=each.row.sample, text=each.text, finish=each.finish)
            for each in self.step()
            if each.text or each.finish
        ]

    def step(self) -> list[Written]:
        """Write one token of every row. Finished rows leave the batch."""
        started = time.perf_counter()
        with memory_errors():
            self._read()
            self._tokens_b, scores = self._choose()
        tokens = self._tokens_b.tolist()
        results = [row.push(token) for row, token in zip(self.rows, tokens, strict=True)]
        self._spend(started)
        written = [
            Written(row, token, text, self._finish(index, reason), scores.get(index))
            for index, (row, token, (text, reason)) in enumerate(zip(self.rows, tokens, results, strict=True))
        ]
        self._keep([index for index, (_, reason) in enumerate(results) if not reason])
        return written

    def _read(self) -> None:
        """Let the model read the newest tokens."""
        if self._tokens_b is not None:
            self._cache.step(self._tokens_b)
            self._tokens_b = None

    def _keep(self, alive: Sequence[int]) -> None:
        if len(alive) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in alive]
        start = 0
        for group in self._groups:
            end = start + group.count
            if kept := [index - start for index in alive if start <= index < end]:
                group.keep(kept)
            else:
                group.count = 0
            start = end
        self._groups = [group for group in self._groups if group.count]
        if alive:
            self._cache.keep(alive)
            self._logprobs_b = self._logprobs_b[list(alive)]
            self._tokens_b = None if self._tokens_b is None else self._tokens_b[list(alive)]

    @torch.inference_mode()
    def _choose(self) -> tuple[Tensor, dict[int, Scores]]:
        """The next token [b] of every row, on the device, and log-probabilities of rows that want them."""
        logits_bv, history_bt = self._cache.logits_bv, self._cache.history_bt
        allowed_bv = logits_bv.index_fill(1, self._banned, -torch.inf)
        ends = list(itertools.accumulate(group.count for group in self._groups))
        places = [slice(end - group.count, end) for end, group in zip(ends, self._groups, strict=True)]
        chosen = [
            group.choose(history_bt[rows], allowed_bv[rows]) for rows, group in zip(places, self._groups, strict=True)
        ]
        tokens_b = torch.cat(chosen)
        logprobs_b = log_probabilities(logits_bv, tokens_b)
        self._logprobs_b += logprobs_b
        scores: dict[int, Scores] = {}
        for rows, group in zip(places, self._groups, strict=True):
            if group.likeliest is not None:
                found = likeliest(logits_bv[rows], group.likeliest)
                own = logprobs_b[rows].tolist()
                scores |= {rows.start + row: Scores(*pair) for row, pair in enumerate(zip(own, found, strict=True))}
        return tokens_b, scores

    def _spend(self, started: float) -> None:
        seconds = time.perf_counter() - started
        for row in self.rows:
            row.seconds += seconds

    def _finish(self, index: int, reason: Reason | None) -> Finish | None:
        row = self.rows[index]
        return reason and Finish(
            reason=reason,
            prompt_tokens=row.prompt_tokens,
            tokens=row.tokens,
            logprob=self._logprobs_b[index].item(),
            seconds=row.seconds,
        )
