"""A GPT-2 with random weights, by a preset.

In: sizes and the special tokens of the workspace. Out: a causal model of `transformers` in single precision.
Invariant: the model has the workspace's vocabulary, exactly; equal arguments give equal weights.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, set_seed

from corpus.train.presets import Preset

ACTIVATION = "gelu_pytorch_tanh"
"""GPT-2's own function (`gelu_new`) in one kernel: the same numbers, a third less memory kept for the backward pass."""


def make(
    preset: Preset, *, vocab_size: int, seq_length: int, separator: int, pad: int, dropout: float, seed: int
) -> GPT2LMHeadModel:
    """A GPT-2 with random weights."""
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
        n_ctx=seq_length,  # the older name of n_positions, which llama.cpp's converter reads
    )
    set_seed(seed)
    return configure(GPT2LMHeadModel(config))


def configure(model: Any) -> Any:
    """Set the loss, which `transformers` would guess with a warning, and drop a check that asks the device per pass."""
    model.loss_type = "ForCausalLM"
    for module in (model, model.base_model):
        module.warn_if_padding_and_no_attention_mask = lambda *_: None  # padding is a segment of its own
    return model
