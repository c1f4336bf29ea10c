"""Opening a model folder: safetensors and `tokenizer.json` in, a model ready to sample out.

The folder is untrusted: no pickle is read, no code from it runs, nothing is fetched from a hub. Invariant: a `Model` is
whole (no weight is missing and drawn at random instead), its tokenizer fits it, and it can do what `window` asks of it;
everything else is a ModelError that says what to do. Cost: about the time to read the weights.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from corpus.generate.config import DEVICES, PRECISIONS
from corpus.generate.engine.detokenizer import Vocabulary
from corpus.pipeline.errors import ModelError
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR

_MODEL_HINT = (
    "Give --model a folder that `corpus train` wrote, or one with config.json, *.safetensors and tokenizer.json."
)
_WHOLE_HINT = "Copy the folder again, or give --model another one: this one is damaged or incomplete."


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
    banned: Tensor
    """Ids that are never sampled: special tokens other than the separator, and ids that are no token."""
    context: int
    """Most tokens the model can look at."""
    folder: Path
    """Where it came from."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; `<|endoftext|>` and the like inside it are ordinary characters, no special tokens."""
        encoding = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoding["input_ids"])


def load(folder: Path, *, device: str = "auto", precision: str = "auto") -> Model:
    """Open a model folder.

    Args:
        folder: what `save_pretrained` wrote, with `tokenizer.json` beside it.
        device: one of `DEVICES`; "auto" takes the accelerator that torch finds, else the CPU.
        precision: one of `PRECISIONS`; "auto" takes bf16 where the device computes in it, else fp32.

    Raises:
        ModelError: the folder holds no model that can be loaded safely, or the machine has no such device.
        ValueError: device or precision is none of those.

    """
    kind = pick_device(device)
    dtype = pick_precision(precision, kind)
    _check_files(folder)
    tokenizer = _open_tokenizer(folder)
    network = _open_network(folder, dtype)
    _check_fit(folder, network, tokenizer)
    with memory_errors():
        network = network.to(kind)
    return _assemble(folder, network, tokenizer)


def pick_device(device: str) -> str:
    """The kind of device to compute on, as torch calls it."""
    if device not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, is {device}")
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (found.type if found else "cpu") if device == "auto" else device
    if kind != "cpu" and (found is None or found.type != kind):
        available = found.type if found else "the CPU alone"
        raise ModelError(
            f"--device {kind}: this machine has no such device", hint=f"Leave --device out; torch finds {available}."
        )
    return kind


def pick_precision(precision: str, kind: str) -> torch.dtype:
    """The type of the weights. Emulated bf16 is slower than fp32, so "auto" never takes it."""
    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, is {precision}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    computes = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if computes or kind == "xpu" else torch.float32


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a full device into a ModelError."""
    try:
        yield
    except RuntimeError as error:
        # without memory, the CPU raises a bare RuntimeError
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise ModelError(
            "the device has too little memory for the model and this many rows",
            hint="Type a smaller --batch-size, or --device cpu.",
        ) from error


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder", hint=_MODEL_HINT)
    if not (folder / "config.json").is_file():
        checkpoints = [path.parent for path in folder.glob("checkpoint-*/config.json")]
        newest = max(checkpoints, key=lambda path: (len(path.name), path.name), default=None)
        hint = f"It holds checkpoints: type --model {newest}" if newest else _MODEL_HINT
        raise ModelError(f"{folder} holds no model: config.json is missing", hint=hint)
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            raise ModelError(
                f"{folder} holds its weights as pickle only, and opening a pickle can run any code",
                hint="Where you trust them, load them with transformers and save_pretrained the model again.",
            )
        raise ModelError(f"{folder} holds no weights: there is no *.safetensors", hint=_MODEL_HINT)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} holds no tokenizer: tokenizer.json is missing", hint=_MODEL_HINT)


def _open_tokenizer(folder: Path) -> Any:
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        raise ModelError(f"{folder}: the tokenizer cannot be read: {_first_line(error)}", hint=_WHOLE_HINT) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
        raise ModelError(
            f"{folder}: the tokenizer is not byte-level BPE, so its tokens are no runs of bytes", hint=_MODEL_HINT
        )
    return tokenizer


def _open_network(folder: Path, dtype: torch.dtype) -> Any:
    try:
        with _quiet(), memory_errors():
            network, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are in the report, and an error below
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged config.json or safetensors makes transformers raise
        raise ModelError(f"{folder}: the model cannot be read: {_first_line(error)}", hint=_WHOLE_HINT) from error
    lacking = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"{folder}: {len(lacking)} weights are missing or have another shape, the first is {lacking[0]}",
            hint=_WHOLE_HINT,
        )
    return network.eval()


def _check_fit(folder: Path, network: Any, tokenizer: Any) -> None:
    """The tokenizer must be this model's, and the model one whose window can slide."""
    kind = type(network).__name__
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    if known > network.config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {known} tokens, the model {network.config.vocab_size}: it is another model's",
            hint="Copy the tokenizer that the model was trained with into the folder.",
        )
    layers = DynamicCache(config=network.config).layers
    takes_positions = "position_ids" in inspect.signature(network.forward).parameters
    if not takes_positions or any(type(layer) is not DynamicLayer for layer in layers) or _context(network) < 2:
        raise ModelError(
            f"{folder}: {kind} is not a decoder with full attention and explicit positions",
            hint="Sample it with transformers' own generate.",
        )


def _context(network: Any) -> int:
    return int(getattr(network.config, "max_position_embeddings", None) or 0)


def _assemble(folder: Path, network: Any, tokenizer: Any) -> Model:
    separator = tokenizer.backend_tokenizer.token_to_id(SEPARATOR)
    if separator is None:
        separator = tokenizer.eos_token_id
    if separator is None:
        raise ModelError(f"{folder}: the tokenizer has no {SEPARATOR} and no other end of a document", hint=_MODEL_HINT)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ordinary = set(tokenizer.get_vocab().values()) - special | {separator}
    banned = [token for token in range(network.config.vocab_size) if token not in ordinary]
    return Model(
        network=network,
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer, special | {separator}),
        separator=separator,
        banned=torch.tensor(banned, dtype=torch.long, device=network.device),
        context=_context(network),
        folder=folder,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own bars and reports off the terminal: what matters of them becomes an error here."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
