"""Small random models of the families that `AutoModelForCausalLM` knows, by a config.json as a user would give it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
"""Wide enough for uneven scores, with two heads of queries to one of keys and values."""
WINDOW = {"sliding_window": 6}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "hidden_size": None, "num_hidden_layers": None},
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {},
    "mistral": WINDOW,
    "mixtral": {"num_local_experts": 4},
    "gemma": {},
    "gemma2": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {},
    "phi": {},
    "olmo2": {},
    "granite": {},
    "starcoder2": WINDOW,
    "smollm3": {},
    "glm4": {},
    "deepseek_v3": {
        "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": None,
    },
}  # fmt: skip
"""Families of packed rows that were found to keep documents apart, and what each of them needs beside `SIZE`."""
LEAKING: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_oss": {"num_local_experts": 4, "sliding_window": 64},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mamba": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}
"""Families that let a document see those before it in its row."""


def save_config(folder: Path, family: str, **more: Any) -> Path:
    """The config.json of a small model, with the tokens, context and precision of another one."""
    given = SIZE | (FAMILIES | LEAKING).get(family, {}) | more
    values = {name: value for name, value in given.items() if value is not None}
    foreign = {"vocab_size": 151_936, "eos_token_id": [5, 6], "max_position_embeddings": 4096, "dtype": "bfloat16"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": family} | foreign | values))
    return path
