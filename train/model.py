"""How the network comes to be: from random weights by a preset, or from a folder somebody trained.

In: sizes or a folder, and the special tokens of the workspace. Out: a causal model of `transformers` in single
precision.
Invariants: the vocabulary is the workspace's, exactly; weights come from safetensors, from this disk, and no code comes
with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, set_seed

from corpus.pipeline.errors import ModelError, TokenizerError, TrainError
from corpus.pipeline.workspace import sha256_file
from corpus.train.presets import Preset

ACTIVATION = "gelu_pytorch_tanh"
"""GPT-2's own function (`gelu_new`) in one kernel: the same numbers, a third less memory kept for the backward pass."""


def make(
    preset: Preset, *, vocab_size: int, seq_length: int, separator: int, pad: int, dropout: float, seed: int
) -> GPT2LMHeadModel:
    """A GPT-2 with random weights; equal arguments give equal weights."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=seq_length,
        n_embd=preset.width,
        n_layer=preset.layers,
        n_head=preset.heads,
        activation_function=ACTIVATION,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=separator,
        eos_token_id=separator,
        pad_token_id=pad,
    )
    set_seed(seed)
    return _settle(GPT2LMHeadModel(config))


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
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **changed,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded: {error}", hint="Give --init a folder that `corpus train` made."
        ) from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"{folder} lacks weights: {', '.join(missing[:3])}", hint="Give --init a whole model.")
    return _settle(model)


def files(folder: Path) -> list[Path]:
    """What a model's identity is made of: its configuration and weights.

    Raises:
        ModelError: they are not there.

    """
    _read_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} holds no *.safetensors",
            hint="Weights are read from safetensors alone: open the model and save_pretrained it again.",
        )
    return [folder / "config.json", *weights]


def _settle(model: Any) -> Any:
    """State what `transformers` would otherwise guess aloud or ask the device about in each pass."""
    model.loss_type = "ForCausalLM"
    for module in (model, model.base_model):
        module.warn_if_padding_and_no_attention_mask = lambda *_: None  # our padding has a segment of its own
    return model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no config.json", hint="Give --init the folder of a model.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="Give --init the folder of a whole model.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not the configuration of a model", hint="Give --init the folder of a model.")
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
