"""A model with random weights, by a preset: a GPT-2, or a Llama.

In: sizes and the special tokens of the workspace. Out: a causal model of `transformers` in single precision.
Invariant: the model has the workspace's vocabulary, exactly; equal arguments give equal weights.
`architecture` makes one by any other configuration.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, set_seed

from corpus.train.presets import Preset

ACTIVATION = "gelu_pytorch_tanh"
"""GPT-2's own function (`gelu_new`) in one kernel: the same numbers, a third less memory kept for the backward pass."""


def make(
    preset: Preset, *, vocab_size: int, seq_length: int, separator: int, pad: int, dropout: float, seed: int
) -> GPT2LMHeadModel | LlamaForCausalLM:
    """A model of the preset's family with random weights."""
    special = {"bos_token_id": separator, "eos_token_id": separator, "pad_token_id": pad}
    set_seed(seed)
    if preset.family == "llama":
        return configure(
            LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=vocab_size,
                    max_position_embeddings=seq_length,
                    hidden_size=preset.width,
                    intermediate_size=preset.feed_forward,
                    num_hidden_layers=preset.layers,
                    num_attention_heads=preset.heads,
                    num_key_value_heads=preset.kv_heads,
                    attention_dropout=dropout,
                    tie_word_embeddings=True,
                    **special,
                )
            )
        )
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
        n_ctx=seq_length,  # the older name of n_positions, which llama.cpp's converter reads
        **special,
    )
    return configure(GPT2LMHeadModel(config))


def configure(model: Any) -> Any:
    """Set the loss, which `transformers` would guess with a warning, and drop a check that asks the device per pass."""
    model.loss_type = "ForCausalLM"
    for module in (model, model.base_model):
        module.warn_if_padding_and_no_attention_mask = lambda *_: None  # padding is a segment of its own
    return model
