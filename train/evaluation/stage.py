"""`corpus evaluate`: what any causal model makes of documents it was not trained on.

In: a model's folder with its tokenizer, and the documents of a split that are used. Out: sums for each dataset and the
four figures that follow; nothing is written.
Invariants: documents are read one by one, never as packed rows, so models with different tokenizers are asked the same;
a document is cut into windows of the context, each predicts all its tokens but the first, and what is not predicted is
not counted; on rows packed to that context the model's own training would measure the same. Sums, not means of means:
batches, their order and the buffer change nothing but rounding.
Cost: one pass of the model over each token (with overlap context / stride of them); a bounded buffer of windows.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from corpus.pipeline.errors import ModelError, TrainError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.config import TrainConfig
from corpus.train.evaluation.config import EvaluateConfig, Evaluation, Measured
from corpus.train.evaluation.documents import Texts, texts_of
from corpus.train.evaluation.metrics import Score, batch_nats
from corpus.train.evaluation.tokens import Worded, Wording
from corpus.train.evaluation.windows import Window, batch, passes, windows_of
from corpus.train.model import device as devices
from corpus.train.model import load
from corpus.train.model.device import Device

_BUFFER_PASSES = 64
"""Passes whose windows wait to be sorted by length."""
_ROW_TOKENS = 1024
"""Tokens that a row is reckoned at when a device says how many are of use: windows differ in length."""
_TEXTS = 64
_TEXTS_CHARACTERS = 1 << 18
_LOGIT_BYTES = 12
_STATE_BYTES = 128
_MASK_BYTES = 8


def run(config: EvaluateConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Evaluation:
    """Measure a model on the documents of a split.

    Raises:
        WorkspaceError: there are no documents of that split.
        ModelError: the folder does not hold a whole causal model, its context is not known, or it computes no numbers.
        TokenizerError: its tokenizer is missing, another model's, or cannot tell where its tokens stand.
        TrainError: there is no such device, or it is too small.
        DamageError: a documents shard cannot be read.

    """
    watch = Stopwatch()
    load.files(config.model, "--model")  # what is no model is told before documents are read
    chosen = texts_of(config, workspace, progress)
    device = devices.choose(TrainConfig(device=config.device, precision=config.precision))
    with _memory_errors(config):
        model = load.load_any(config.model, precision=device.precision)
        wording = Wording(config.model, rows=model.get_input_embeddings().num_embeddings)
        context, stride = _window(config, model)
        scorer = _Scorer(config, model.to(device.kind), device, wording, context, stride)
        progress.say(f"{device.describe()}, windows of {context:,} tokens")
        results = [scorer.measure(texts, progress) for texts in chosen]
    return Evaluation(
        model=config.model, split=config.split, context=context, stride=stride, precision=device.precision,
        device=device.describe(), results=results, seconds=watch.seconds,
    )  # fmt: skip


@dataclass(slots=True)
class _Sums:
    score: Score = field(default_factory=lambda: Score(nats=0.0, tokens=0, characters=0, bytes=0))
    windows: int = 0
    unknown: int = 0
    unseen: int = 0


class _Scorer:
    """A model in place."""

    def __init__(
        self, config: EvaluateConfig, model: Any, device: Device, wording: Wording, context: int, stride: int
    ) -> None:
        self.rows = config.batch_size
        self.model, self.device, self.wording = model, device, wording
        self.context, self.stride = context, stride
        self.tokens = _pass_tokens(model, device, context)
        self.most = _BUFFER_PASSES * max(self.tokens, (self.rows or 0) * min(context, _ROW_TOKENS))

    def measure(self, texts: Texts, progress: Progress) -> Measured:
        """Score all documents of a dataset."""
        sums = _Sums()
        progress.begin(texts.dataset, texts.count, "documents")
        try:
            for windows, empty in self._buffers(texts, sums):
                progress.advance(empty)
                for chosen in passes(windows, tokens=self.tokens, rows=self.rows):
                    sums.score += self._score(texts.dataset, chosen)
                    sums.windows += len(chosen)
                    progress.advance(sum(window.last for window in chosen))
        finally:
            progress.end()
        return Measured(
            dataset=texts.dataset, documents=texts.count, windows=sums.windows, score=sums.score,
            unknown=sums.unknown, unseen=sums.unseen,
        )  # fmt: skip

    def _buffers(self, texts: Texts, sums: _Sums) -> Iterator[tuple[list[Window], int]]:
        """Windows of as many documents as the buffer holds, and how many documents have none."""
        windows: list[Window] = []
        held = empty = 0
        for document in self._worded(texts):
            cut = windows_of(document.ids_t, document.sizes, self.context, self.stride)
            windows += cut
            held += sum(len(window.ids_t) for window in cut)
            empty += not cut
            sums.unknown += document.unknown
            sums.unseen += document.unseen
            if held >= self.most:
                yield windows, empty
                windows, held, empty = [], 0, 0
        yield windows, empty

    def _worded(self, texts: Texts) -> Iterator[Worded]:
        """The documents in tokens, encoded a few at a time: the library is quicker so."""
        few: list[str] = []
        for text in texts.read():
            few.append(text)
            if len(few) == _TEXTS or sum(map(len, few)) >= _TEXTS_CHARACTERS:
                yield from self.wording.encode(few)
                few = []
        if few:
            yield from self.wording.encode(few)

    def _score(self, dataset: str, windows: Sequence[Window]) -> Score:
        inputs = batch(windows, int(self.wording.after[0]))
        nats = batch_nats(self.model, inputs, torch.device(self.device.kind), self.device.precision)
        if not math.isfinite(nats):
            hint = "Try --precision fp32." if self.device.precision == "bf16" else "Its weights may be damaged."
            raise ModelError(f"the loss on {dataset} is {nats}: the model computes no numbers", hint=hint)
        return Score(
            nats=nats,
            tokens=sum(len(window.ids_t) - window.first for window in windows),
            characters=sum(window.sizes[0] for window in windows),
            bytes=sum(window.sizes[1] for window in windows),
        )


def _window(config: EvaluateConfig, model: Any) -> tuple[int, int]:
    """Context and stride."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    context = config.context or most
    if not context or context < 2:
        raise ModelError(
            f"{config.model} does not say how many tokens it takes at once", hint="Say it with --context, such as 1024."
        )
    if most and context > most:
        raise ModelError(
            f"{config.model} takes {most:,} tokens at once, --context asks for {context:,}", hint="Leave --context out."
        )
    stride = config.stride or context
    if stride > context:
        raise ModelError(
            f"--stride {stride:,} is longer than a window of {context:,} tokens: some would be predicted by none",
            hint=f"Give a --stride of at most {context}.",
        )
    return context, stride


def _pass_tokens(model: Any, device: Device, context: int) -> int:
    """Tokens of a pass that fit the memory and are of use, padding included; one window at least is passed anyway.

    Reckoned for each token: its scores three times in single precision, the states of one layer, its row of the mask.
    """
    config = model.config.get_text_config()
    fixed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    width = getattr(config, "hidden_size", 0) or 0
    token = config.vocab_size * _LOGIT_BYTES + width * _STATE_BYTES + context * _MASK_BYTES
    fitting = int(device.memory - fixed) // int(token)
    return max(1, min(fitting, device.most_rows * min(context, _ROW_TOKENS)))


@contextlib.contextmanager
def _memory_errors(config: EvaluateConfig) -> Iterator[None]:
    """Say what to do when the device has not the room."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not devices.is_full(error):
            raise
        smaller = "a smaller --context" if config.batch_size == 1 else "--batch-size 1"
        raise TrainError(
            "the device has not enough memory for this model and its windows", hint=f"Give {smaller}, or --device cpu."
        ) from error
