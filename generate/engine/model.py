"""A model ready to sample: network, tokenizer, and what sampling asks of both.

In: a model folder. Out: a `Model`, or an error that says what to do.
Invariants: `corpus.train.model.load` opens the folder, so no pickle is read and no code of the folder runs; the
tokenizer is byte-level BPE and fits the network; the network is a decoder with explicit positions whose layers attend
to the whole text or to a window of it, which `corpus.train.model.kv_cache` needs.
Cost: about the time to read the weights.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from corpus.generate.engine.detokenizer import Vocabulary
from corpus.pipeline.errors import DeviceError, ModelError, TokenizerError
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.train.model import choices, sampling
from corpus.train.model import device as devices
from corpus.train.model import load as folders

_TOKENIZER_HINT = "Give --model a folder with the byte-level tokenizer.json that the model was trained with."


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A causal language model with its tokenizer."""

    network: Any
    """What `AutoModelForCausalLM` made of the folder."""
    tokenizer: Any
    """What `AutoTokenizer` made of it: byte-level BPE."""
    vocabulary: Vocabulary
    """The bytes of every token."""
    separator: int
    """The token that ends a document."""
    beginning: tuple[int, ...]
    """The tokens from which the model reads a document: those that its tokenizer puts before a text."""
    banned: Tensor
    """Ids that are never sampled: special tokens other than the separator, and ids without a token."""
    context: int
    """Most tokens the model takes at once."""
    folder: Path
    """Where it was loaded from."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; `<|endoftext|>` and the like inside it are ordinary characters, no special tokens."""
        encoding = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoding["input_ids"])


def load(folder: Path, *, device: str = "auto", precision: str = "auto") -> Model:
    """Open what `save_pretrained` wrote, with `tokenizer.json` beside it.

    With "auto" the device is the accelerator that torch finds, else the CPU; the precision is bf16 where the device
    computes in it, else fp32.

    Raises:
        ModelError: the folder holds no model that can be loaded safely, or one that cannot be sampled.
        TokenizerError: its tokenizer is missing, unreadable, not byte-level or another model's.
        DeviceError: the machine has no such device, or the device is out of memory.
        ValueError: there is no such device or precision.

    """
    choices.check(device=device, precision=precision)
    kind = devices.pick_kind(device)
    dtype = torch.bfloat16 if devices.pick_precision(precision, kind) == "bf16" else torch.float32
    folders.files(folder, "--model")
    tokenizer = _open_tokenizer(folder)
    with memory_errors():
        network = folders.open_model(folder, "--model", dtype).eval()
        folders.check_vocabulary(folder, tokenizer.get_vocab().values(), network.config.vocab_size)
        _check_network(folder, network)
        network = network.to(kind)
    return _assemble(folder, network, tokenizer)


def memory_errors() -> contextlib.AbstractContextManager[None]:
    """Raise a DeviceError that says what to do where the device is out of memory."""
    return devices.memory_errors(
        DeviceError(
            "the device has too little memory for the model and this many rows",
            hint="Type a smaller --batch-size, or --device cpu.",
        )
    )


def _open_tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file():
        raise TokenizerError(f"{folder} holds no tokenizer: tokenizer.json is missing", hint=_TOKENIZER_HINT)
    tokenizer = folders.open_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
        raise TokenizerError(
            f"{folder}: the tokenizer is not byte-level BPE, so its tokens are no runs of bytes", hint=_TOKENIZER_HINT
        )
    return tokenizer


def _check_network(folder: Path, network: Any) -> None:
    takes_positions = "position_ids" in inspect.signature(network.forward).parameters
    layers = {type(layer) for layer in DynamicCache(config=network.config).layers}
    kinds = set(getattr(network.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    attends = layers <= {DynamicLayer, DynamicSlidingWindowLayer} and not kinds
    if not (takes_positions and attends and (folders.context_of(network) or 0) >= 2):
        raise ModelError(
            f"{folder}: {type(network).__name__} is not a decoder with explicit positions and attention alone",
            hint="Sample it with transformers' own generate.",
        )


def _assemble(folder: Path, network: Any, tokenizer: Any) -> Model:
    separator = tokenizer.get_vocab().get(SEPARATOR, tokenizer.eos_token_id)
    if separator is None:
        raise TokenizerError(
            f"{folder}: the tokenizer has no {SEPARATOR} and no other end of a document", hint=_TOKENIZER_HINT
        )
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    rows = network.config.vocab_size
    banned = sampling.banned(tokenizer.get_vocab().values(), special, separator=separator, rows=rows)
    return Model(
        network=network,
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer, special | {separator}),
        separator=separator,
        beginning=tuple(folders.beginning(tokenizer)),
        banned=torch.tensor(banned, dtype=torch.long, device=network.device),
        context=int(folders.context_of(network) or 0),
        folder=folder,
    )
