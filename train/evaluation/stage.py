"""`corpus evaluate`: how well any causal model predicts documents it was not trained on.

In: a model's folder with its tokenizer, and the selected documents of a split. Out: sums for each dataset and the four
figures computed from them; nothing is written.
Invariants: documents are read one by one, never as packed rows, so models with different tokenizers predict the same
texts; a document is cut into windows of the context; a window predicts all its tokens except the first, and only
predicted tokens count; on rows packed to that context, training measures the same. Figures come from sums, not from
means of means: batches, their order and the buffer change only rounding.
Cost: one pass of the model over each token (context / stride passes with overlap); a bounded buffer of windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from corpus.pipeline.errors import DeviceError, ModelError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.data.passes import passes
from corpus.train.evaluation.config import DatasetScore, EvaluateConfig, Evaluation, Score
from corpus.train.evaluation.documents import Texts, texts_of
from corpus.train.evaluation.metrics import batch_nats
from corpus.train.evaluation.tokens import DocumentTokenizer, TokenizedDocument
from corpus.train.evaluation.windows import TextWindow, make_batch, windows_of
from corpus.train.model import device as devices
from corpus.train.model import load
from corpus.train.model.device import Device

BUFFER_PASSES = 64
"""Passes whose windows are sorted by length together."""
ENCODED_TEXTS = 64
"""Documents that are encoded together: the library is faster so."""
_ROW_TOKENS = 1024
"""Tokens that a row of a pass counts as where the device limits the rows: windows differ in length."""
_ENCODED_CHARACTERS = 1 << 18
_LOGIT_BYTES = 12
_STATE_BYTES = 128
_MASK_BYTES = 8


def run(
    config: EvaluateConfig, workspace: Workspace, *, progress: Progress = SILENT,
    buffer_passes: int = BUFFER_PASSES, encoded_texts: int = ENCODED_TEXTS,
) -> Evaluation:  # fmt: skip
    """Measure a model on the documents of a split.

    Raises:
        WorkspaceError: there are no documents of that split.
        ModelError: the folder does not hold a whole causal model, its context is not known, or its loss is NaN.
        TokenizerError: its tokenizer is missing, another model's, or gives no offsets.
        DeviceError: there is no such device, or it is out of memory.
        DamageError: a documents shard cannot be read.

    """
    watch = Stopwatch()
    load.files(config.model, "--model")  # refused before documents are read
    chosen = texts_of(config, workspace, progress)
    device = devices.choose(config.device, config.precision)
    with devices.memory_errors(_out_of_memory(config)):
        model = load.load_any(config.model, precision=device.precision)
        tokenizer = DocumentTokenizer(config.model, rows=model.get_input_embeddings().num_embeddings)
        context, stride = _context_and_stride(config, model)
        scorer = _Scorer(
            config=config, model=model.to(device.kind), device=device, tokenizer=tokenizer, context=context,
            stride=stride, buffer_passes=buffer_passes, encoded_texts=encoded_texts,
            tokens=_pass_tokens(model, device, context),
        )  # fmt: skip
        progress.say(f"{device.describe()}, windows of {context:,} tokens")
        results = [scorer.measure(texts, progress) for texts in chosen]
    return Evaluation(
        model=config.model, split=config.split, context=context, stride=stride, precision=device.precision,
        device=device.describe(), results=results, seconds=watch.seconds, predicts_first=bool(tokenizer.before),
    )  # fmt: skip


@dataclass(kw_only=True, slots=True)
class _Scorer:
    """A model on its device, with its tokenizer."""

    config: EvaluateConfig
    model: Any
    device: Device
    tokenizer: DocumentTokenizer
    context: int
    stride: int
    buffer_passes: int
    encoded_texts: int
    tokens: int

    def measure(self, texts: Texts, progress: Progress) -> DatasetScore:
        """Score all documents of a dataset."""
        sums = DatasetScore(dataset=texts.dataset, documents=texts.count)
        with progress.bar(texts.dataset, texts.count, "documents"):
            for windows, empty in self._buffers(texts, sums):
                progress.advance(empty)
                lengths = [len(window.ids_t) for window in windows]
                for places in passes(lengths, tokens=self.tokens, rows=self.config.batch_size):
                    chosen = [windows[place] for place in places]
                    sums.score += self._score(texts.dataset, chosen)
                    sums.windows += len(chosen)
                    progress.advance(sum(window.last for window in chosen))
        return sums

    def _buffers(self, texts: Texts, sums: DatasetScore) -> Iterator[tuple[list[TextWindow], int]]:
        """Windows of as many documents as the buffer holds, and the number of documents without a window."""
        rows = self.config.batch_size or 0
        most = self.buffer_passes * max(self.tokens, rows * min(self.context, _ROW_TOKENS))
        windows: list[TextWindow] = []
        held = empty = 0
        for document in self._tokenized(texts):
            cut = windows_of(
                document.ids_t, document.sizes, self.context, self.stride, prefixed=bool(self.tokenizer.before)
            )
            windows += cut
            held += sum(len(window.ids_t) for window in cut)
            empty += not cut
            sums.unknown += document.unknown
            sums.unseen += document.unseen
            if held >= most:
                yield windows, empty
                windows, held, empty = [], 0, 0
        yield windows, empty

    def _tokenized(self, texts: Texts) -> Iterator[TokenizedDocument]:
        """The documents as tokens, encoded a few at a time."""
        batch: list[str] = []
        for text in texts.read():
            batch.append(text)
            if len(batch) == self.encoded_texts or sum(map(len, batch)) >= _ENCODED_CHARACTERS:
                yield from self.tokenizer.encode(batch)
                batch = []
        if batch:
            yield from self.tokenizer.encode(batch)

    def _score(self, dataset: str, windows: Sequence[TextWindow]) -> Score:
        inputs = make_batch(windows, int(self.tokenizer.after[0]))
        nats = batch_nats(self.model, inputs, torch.device(self.device.kind), self.device.precision)
        if not math.isfinite(nats):
            hint = "Try --precision fp32." if self.device.precision == "bf16" else "Its weights may be damaged."
            raise ModelError(f"the loss on {dataset} is {nats}", hint=hint)
        return Score(
            nats=nats,
            tokens=sum(len(window.ids_t) - window.first for window in windows),
            characters=sum(window.sizes[0] for window in windows),
            bytes=sum(window.sizes[1] for window in windows),
        )


def _context_and_stride(config: EvaluateConfig, model: Any) -> tuple[int, int]:
    most = load.context_of(model)
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
            f"--stride {stride:,} is longer than a window of {context:,} tokens: some tokens would not be predicted",
            hint=f"Give a --stride of at most {context}.",
        )
    return context, stride


def _pass_tokens(model: Any, device: Device, context: int) -> int:
    """Tokens of a pass that fit the memory, padding included, up to what keeps the device busy; at least one window.

    Bytes of a token: its scores three times in single precision, the states of one layer, its row of the mask.
    """
    config = model.config.get_text_config()
    fixed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    width = getattr(config, "hidden_size", 0) or 0
    token = config.vocab_size * _LOGIT_BYTES + width * _STATE_BYTES + context * _MASK_BYTES
    fitting = int(device.memory - fixed) // int(token)
    return max(1, min(fitting, device.most_rows * min(context, _ROW_TOKENS)))


def _out_of_memory(config: EvaluateConfig) -> DeviceError:
    smaller = "a smaller --context" if config.batch_size == 1 else "--batch-size 1"
    return DeviceError(
        "the device has not enough memory for this model and its windows", hint=f"Give {smaller}, or --device cpu."
    )
