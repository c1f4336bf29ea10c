"""A causal model from a folder that somebody trained.

Invariants: weights come from safetensors, from this disk, and no code comes with them; a model to train has the
workspace's vocabulary, exactly; one to measure is whole and does not look ahead.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as hub_logging

from corpus.pipeline.errors import ModelError, TokenizerError, TrainError
from corpus.pipeline.workspace.files import sha256_file
from corpus.train.model.build import settle
from corpus.train.model.device import is_full

_PROBE_TOKENS = 8
_ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-3}
"""Share of the largest score that may be rounding where nothing should change; on a CPU it is 0."""


def load(folder: Path, *, vocab_size: int, seq_length: int, tokenizer: Path, dropout: float | None = None) -> Any:
    """A model from a folder, in single precision whatever it was saved in.

    Args:
        folder: holds `config.json` and safetensors.
        vocab_size: entries that the rows' tokenizer has.
        seq_length: tokens of a row.
        tokenizer: `tokenizer.json` that the rows were packed with; compared with the folder's own, where it has one.
        dropout: replaces the model's own, if given.

    Raises:
        ModelError: the folder does not hold a whole model.
        TokenizerError: the model has another vocabulary or tokenizer.
        TrainError: the rows are longer than the model's context.

    """
    config = _read_config(folder)
    _check_vocabulary(folder, config, vocab_size, tokenizer)
    limit = config.get("n_positions") or config.get("max_position_embeddings") or seq_length
    if limit < seq_length:
        raise TrainError(
            f"{folder} takes {limit:,} tokens at once, the rows have {seq_length:,}",
            hint=f"Run `corpus pack --seq-length {limit}` first.",
        )
    names = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout")
    changed = {} if dropout is None else {name: dropout for name in names if name in config}
    return settle(_open(folder, "--init", torch.float32, **changed))


def load_any(folder: Path, *, precision: str) -> Any:
    """Any causal model, to be measured: in single precision, or in bf16 where it was saved and is computed so.

    Args:
        folder: holds `config.json` and safetensors.
        precision: "fp32" or "bf16", what it will be computed in.

    Raises:
        ModelError: the folder does not hold a whole model, or its tokens see those after them.

    """
    config = _read_config(folder, "--model")
    saved = config.get("dtype") or config.get("torch_dtype")
    dtype = torch.bfloat16 if precision == "bf16" and saved == "bfloat16" else torch.float32
    with quiet():
        model = _open(folder, "--model", dtype).eval()
        _check_causal(folder, model)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars and reports of `transformers` off the terminal: what matters of them becomes an error here."""
    level, bars = hub_logging.get_verbosity(), hub_logging.is_progress_bar_enabled()
    hub_logging.set_verbosity(hub_logging.CRITICAL)
    hub_logging.disable_progress_bar()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if bars:
            hub_logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """The first line of what a library says of a failure."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def files(folder: Path, flag: str = "--init") -> list[Path]:
    """What a model's identity is made of: its configuration and weights.

    Raises:
        ModelError: they are not there.

    """
    _read_config(folder, flag)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} holds no *.safetensors",
            hint="Weights are read from safetensors alone: open the model and save_pretrained it again.",
        )
    return [folder / "config.json", *weights]


def _open(folder: Path, flag: str, dtype: torch.dtype, **changed: float) -> Any:
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            **changed,
        )
    except Exception as error:  # whatever a damaged config.json or safetensors makes transformers raise
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise ModelError(
            f"{folder} cannot be loaded: {first_line(error)}",
            hint=f"Give {flag} a folder that `corpus train` made, or another whole one that needs no code of its own.",
        ) from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"{folder} lacks weights: {', '.join(missing[:3])}", hint=f"Give {flag} a whole model.")
    return model


def _check_causal(folder: Path, model: Any) -> None:
    kind, hint = type(model).__name__, "Give --model a causal model; a masked one has no loss in this sense."
    try:
        ahead = _looks_ahead(model)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if is_full(error):
            raise
        raise ModelError(
            f"{folder}: this {kind} cannot be run on plain text: {first_line(error)}", hint=hint
        ) from error
    if ahead:
        raise ModelError(f"{folder}: a token of this {kind} sees those after it, so it predicts nothing", hint=hint)


@torch.no_grad()
def _looks_ahead(model: Any) -> bool:
    """Whether another last token changes the scores of those before it, by more than rounding does."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _PROBE_TOKENS
    ids_rt = (torch.arange(min(most, _PROBE_TOKENS)) % 2).repeat(2, 1)
    ids_rt[1, -1] = 1 - ids_rt[0, -1]
    logits_rtv = model(input_ids=ids_rt, attention_mask=torch.ones_like(ids_rt), use_cache=False).logits.float()
    changed_t = (logits_rtv[0] - logits_rtv[1]).abs().amax(-1)
    rounding = _ROUNDING[model.dtype]
    return bool(changed_t[:-1].max() > rounding * max(changed_t[-1].item(), logits_rtv.abs().max().item()))


def _read_config(folder: Path, flag: str = "--init") -> dict[str, Any]:
    path = folder / "config.json"
    hint = f"Give {flag} the folder of a model."
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{folder} holds no config.json", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=f"Give {flag} the folder of a whole model.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not the configuration of a model", hint=hint)
    return config


def _check_vocabulary(folder: Path, config: dict[str, Any], vocab_size: int, tokenizer: Path) -> None:
    hint = "A model can only go on with the tokenizer that it was trained with: pack with that one, or train anew."
    if config.get("vocab_size") != vocab_size:
        raise TokenizerError(
            f"{folder} has a vocabulary of {config.get('vocab_size')}, the workspace's tokenizer {vocab_size}",
            hint=hint,
        )
    own = folder / "tokenizer.json"
    if own.is_file() and sha256_file(own) != sha256_file(tokenizer):
        raise TokenizerError(f"{own} and {tokenizer} are different tokenizers", hint=hint)
