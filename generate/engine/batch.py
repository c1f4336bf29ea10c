"""A batch of samples: each step of the model gives every row its next token.

In: prompts as tokens. Out: the pieces of text that each step completes.
Invariants: a row does not depend on the other rows of its batch; a finished row leaves the batch.
"""

# Shape suffixes: b rows of the batch, v vocabulary.
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from corpus.generate.config import Finish, Piece, Reason, SampleConfig
from corpus.generate.engine.detokenizer import Decoder
from corpus.generate.engine.model import Model, memory_errors
from corpus.generate.engine.sampler import processors
from corpus.generate.engine.stop_strings import StopFinder
from corpus.pipeline.errors import ModelError
from corpus.train.model.kv_cache import SlidingCache
from corpus.train.model.sampling import Noise, choose, log_probabilities, row_seed


class _Row:
    """One unfinished sample."""

    def __init__(self, model: Model, key: tuple[int, int], prompt_tokens: int, config: SampleConfig) -> None:
        self.prompt, self.sample = key
        self.prompt_tokens = prompt_tokens
        self.tokens = 0
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


class Batch:
    """Samples that grow together, one token each at every `advance`, until `rows` is empty."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]] | Mapping[int, Sequence[int]],
        keys: Sequence[tuple[int, int]],
        config: SampleConfig,
    ) -> None:
        """Read the prompts. A key is a prompt and the number of the sample; it seeds the row."""
        self.rows = [_Row(model, key, len(prompts[key[0]]), config) for key in keys]
        self._greedy = config.temperature == 0
        self._banned = model.banned
        self._processors = processors(config)
        self._noise = Noise([row_seed(config.seed, *key) for key in keys], model.network.device)
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
        self._seconds = time.perf_counter() - started

    def pieces(self) -> Iterator[Piece]:
        """Write all rows until they are finished."""
        while self.rows:
            yield from self.advance()

    def advance(self) -> list[Piece]:
        """Write one token of every row. Finished rows leave the batch."""
        started = time.perf_counter()
        with memory_errors():
            if self._tokens_b is not None:
                self._cache.step(self._tokens_b)
            self._tokens_b = tokens_b = self._choose()
        results = [row.push(token) for row, token in zip(self.rows, tokens_b.tolist(), strict=True)]
        self._seconds += time.perf_counter() - started
        pieces = [
            Piece(prompt=row.prompt, sample=row.sample, text=text, finish=self._finish(index, reason))
            for index, (row, (text, reason)) in enumerate(zip(self.rows, results, strict=True))
            if text or reason
        ]
        alive = [index for index, (_, reason) in enumerate(results) if not reason]
        if len(alive) < len(self.rows):
            self.rows = [self.rows[index] for index in alive]
            if alive:
                self._cache.keep(alive)
                self._noise.keep(alive)
                self._logprobs_b = self._logprobs_b[alive]
                self._tokens_b = tokens_b[alive]
        return pieces

    @torch.inference_mode()
    def _choose(self) -> Tensor:
        """The next token [b] of every row, on the device."""
        logits_bv = self._cache.logits_bv
        scores_bv = self._processors(self._cache.history_bt, logits_bv.index_fill(1, self._banned, -torch.inf))
        tokens_b: Tensor = scores_bv.argmax(dim=-1) if self._greedy else choose(scores_bv, self._noise.draw())
        self._logprobs_b += log_probabilities(logits_bv, tokens_b)
        return tokens_b

    def _finish(self, index: int, reason: Reason | None) -> Finish | None:
        row = self.rows[index]
        return reason and Finish(
            reason=reason,
            prompt_tokens=row.prompt_tokens,
            tokens=row.tokens,
            logprob=self._logprobs_b[index].item(),
            seconds=self._seconds,
        )
