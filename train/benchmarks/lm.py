"""A model as lm-evaluation-harness sees it: `HFLM` with our way to encode a context and an answer.

In: a model on its device and its tokenizer. Out: log-likelihoods of answers after contexts.
Invariants: `PairEncoder` says where a context ends and an answer begins; equal requests are scored once.
Cost: one pass for each different text, batched by length; answers of one token after the same context share a pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from corpus.pipeline.progress import SILENT, Progress
from corpus.train.benchmarks.pairs import PairEncoder
from corpus.train.evaluation.tokens import DocumentTokenizer

_CHUNK_PASSES = 32
"""Passes between two steps of the progress; the harness batches requests of like length within them."""
Pair = tuple[str, str]
"""A context and an answer."""


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
        self.pairs = PairEncoder(tokenizer, context=context)
        self.progress = progress
        self.lengths: dict[Pair, int] = {}
        """Tokens of the answer of each pair that was scored."""

    @property
    def prefix_token_id(self) -> int:
        """The last token before the first one of a document that begins without a context."""
        return self.pairs.start[-1]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002  # the harness's signature
        """The tokens of a text; special strings in it are text."""
        return self.pairs.encode(string)

    def loglikelihood(self, requests: Iterable[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002  # as above
        """Log-likelihood of the answer of each request, and whether it is the likeliest text."""
        pairs = [request.args for request in requests]
        different = list(dict.fromkeys(pairs))
        encoded = [(pair, *self.pairs.pair(*pair)) for pair in different]
        self.pairs.counts.requests += len(pairs)
        self.pairs.counts.scored += len(different)
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
