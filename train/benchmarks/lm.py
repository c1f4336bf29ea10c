"""A model as lm-evaluation-harness sees it: `HFLM` with our way to encode a context and an answer.

In: a model on its device and its tokenizer. Out: log-likelihoods of answers after contexts.
Invariants: no token spans a context and an answer: where the encoding of both together does not split between them,
they are encoded apart, and counted; special strings in a text are text; a document begins with what the tokenizer puts
before a text, an empty context is that or the separator; equal requests are scored once; what is longer than the
model's context loses tokens on the left, an answer that alone is longer loses them on the right, and both are counted.
Cost: one pass for each different text, batched by length; answers of one token after the same context share a pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from corpus.pipeline.progress import SILENT, Progress
from corpus.train.evaluation.tokens import DocumentTokenizer

_CHUNK_PASSES = 32
"""Passes between two steps of the progress; the harness batches requests of like length within them."""
Pair = tuple[str, str]
"""A context and an answer."""


@dataclass(kw_only=True, slots=True)
class Counts:
    """What happened to the requests since the last `take`."""

    requests: int = 0
    scored: int = 0
    """Different ones among them."""
    seams: int = 0
    """Of those, pairs encoded apart because a token would span context and answer."""
    cut_contexts: int = 0
    """Of those, texts longer than the model's context, which lost tokens on the left."""
    cut_answers: int = 0
    """Of those, answers longer than the model's context, which lost tokens on the right."""


class CorpusLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped to us
    """A causal model and its tokenizer."""

    def __init__(
        self, model: Any, tokenizer: DocumentTokenizer, *, context: int, batch_size: int, precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> None:  # fmt: skip
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer.tokenizer,
            max_length=context,
            batch_size=batch_size,
            softmax_dtype=torch.float32,
            mixed_precision_dtype="bfloat16" if precision == "bf16" else None,
        )
        self.before = list(tokenizer.before)
        self.start = self.before or [int(tokenizer.after[0])]
        """The tokens of an empty context."""
        self.progress = progress
        self.counts = Counts()
        self.lengths: dict[Pair, int] = {}
        """Tokens of the answer of each pair that was scored."""

    @property
    def prefix_token_id(self) -> int:
        """The last token before the first one of a document that begins without a context."""
        return self.start[-1]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002  # the harness's signature
        """The tokens of a text; special strings in it are text."""
        encoding = self.tokenizer(string, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoding["input_ids"])

    def encode_pair(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        """Tokens of a context, with what begins a document, and of the answer after it."""
        if not context:
            return self._cut(self.start, self.tok_encode(answer))
        read, scored = self._encode_pair(context, answer)
        return self._cut([*self.before, *read], scored)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Both together, cut where the context ends; apart where a token would span the cut.

        As in the harness, blanks at the end of the context count with the answer: a BPE joins them with what follows.
        """
        together, read = self.tok_encode(context + continuation), self.tok_encode(context.rstrip())
        if len(together) > len(read) and together[: len(read)] == read:
            return read, together[len(read) :]
        self.counts.seams += 1
        return self.tok_encode(context), self.tok_encode(continuation)

    def _cut(self, read: list[int], scored: list[int]) -> tuple[list[int], list[int]]:
        if len(scored) > self.max_length:
            self.counts.cut_answers += 1
            scored = scored[: self.max_length]
        elif len(read) + len(scored) > self.max_length + 1:  # the last token is predicted, not read
            self.counts.cut_contexts += 1
        return read, scored

    def loglikelihood(self, requests: Iterable[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002  # as above
        """Log-likelihood of the answer of each request, and whether it is the likeliest text."""
        pairs = [request.args for request in requests]
        different = list(dict.fromkeys(pairs))
        encoded = [(pair, *self.encode_pair(*pair)) for pair in different]
        self.counts.requests += len(pairs)
        self.counts.scored += len(different)
        self.lengths |= {pair: len(scored) for pair, _, scored in encoded}
        found = dict(self._scored(encoded))
        return [found[pair] for pair in pairs]

    def _scored(self, encoded: list[tuple[Pair, list[int], list[int]]]) -> Iterable[tuple[Pair, tuple[float, bool]]]:
        ordered = sorted(encoded, key=lambda request: (-len(request[1]) - len(request[2]), request[1]))
        size = self.batch_size * _CHUNK_PASSES
        for first in range(0, len(ordered), size):
            chunk = ordered[first : first + size]
            answers = self._loglikelihood_tokens(chunk, disable_tqdm=True)
            yield from zip((request[0] for request in chunk), answers, strict=True)
            self.progress.advance(len(chunk))

    def take(self) -> Counts:
        """The counts so far; they begin anew."""
        taken, self.counts = self.counts, Counts()
        return taken
