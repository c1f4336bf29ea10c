"""How the network comes to be: from random weights by a preset, or from a folder somebody trained.

In: sizes or a folder, and the special tokens of the workspace. Out: a causal model of `transformers` in single
precision, but for one that is only measured.
Invariants: a model to train has the workspace's vocabulary, exactly; one to measure is whole and does not look ahead;
weights come from safetensors, from this disk, and no code comes with them.
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
        n_ctx=seq_length,  # n_positions by its older name, which llama.cpp's converter reads
    )
    set_seed(seed)
    return settle(GPT2LMHeadModel(config))


def settle(model: Any) -> Any:
    """State what `transformers` would otherwise guess aloud or ask the device about in each pass."""
    model.loss_type = "ForCausalLM"
    for module in (model, model.base_model):
        module.warn_if_padding_and_no_attention_mask = lambda *_: None  # our padding has a segment of its own
    return model
