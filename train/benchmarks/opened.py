"""A model on its device with its tokenizer, and how many texts a pass of it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.pipeline.errors import DeviceError, ModelError
from corpus.train.benchmarks.config import BenchmarkConfig
from corpus.train.evaluation.tokens import DocumentTokenizer
from corpus.train.model import device as devices
from corpus.train.model import load
from corpus.train.model.device import Device

_LOGIT_BYTES = 12
"""Of a token's scores: three copies in single precision."""
_CPU_ROWS, _GPU_ROWS = 16, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A model on its device with its tokenizer."""

    model: Any
    tokenizer: DocumentTokenizer
    device: Device
    context: int
    batch_size: int


def open_model(config: BenchmarkConfig) -> Opened:
    """Open the model of a folder.

    Raises:
        ModelError: the folder does not hold a whole causal model, or its context is not known.
        TokenizerError: its tokenizer is missing or another model's.
        DeviceError: there is no such device, or it is out of memory.

    """
    device = devices.choose(config.device, config.precision)
    with devices.memory_errors(out_of_memory()):
        model = load.load_any(config.model, precision=device.precision)
        tokenizer = DocumentTokenizer(config.model, rows=model.get_input_embeddings().num_embeddings)
        most = load.context_of(model)
        context = min(config.context or most or 0, most or config.context or 0)
        if context < 2:
            raise ModelError(
                f"{config.model} does not say how many tokens it takes at once", hint="Say it with --context."
            )
        model.config.use_cache = False  # each text is read once
        model = model.to(device.kind)
    return Opened(
        model=model, tokenizer=tokenizer, device=device, context=context,
        batch_size=config.batch_size or rows_of(model, device, context),
    )  # fmt: skip


def rows_of(model: Any, device: Device, context: int) -> int:
    """Texts of a pass whose scores fit the memory."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    fitting = (device.memory - weights) // (context * model.config.get_text_config().vocab_size * _LOGIT_BYTES)
    return int(max(1, min(fitting, _CPU_ROWS if device.kind == "cpu" else _GPU_ROWS)))


def out_of_memory() -> DeviceError:
    """What to say where the device is out of memory."""
    return DeviceError(
        "the device has not enough memory for this model and its texts", hint="Give --batch-size 1, or --device cpu."
    )
