"""Sizes of the named models: exact parameters, memory near what is really kept, the papers' counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from corpus.train.model.build import make
from corpus.train.presets import PRESETS, Preset, block_memory, token_memory
from tests.support.kept import kept_bytes


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_parameters_are_those_of_the_network(preset: Preset) -> None:
    with torch.device("meta"):
        model = make(preset, vocab_size=32_000, seq_length=preset.context, separator=0, pad=1, dropout=0.0, seed=1)
    assert preset.parameters() == model.num_parameters()
    assert model.config.model_type == preset.family
    if preset.family == "gpt2":
        dropouts = (model.config.resid_pdrop, model.config.embd_pdrop, model.config.attn_pdrop)
        assert (model.config.n_positions, model.config.n_ctx, *dropouts) == (preset.context, preset.context, 0, 0, 0)


@pytest.mark.parametrize(("name", "twin"), [("tiny", "tiny"), ("mini", "mini"), ("small", "gpt2-small")])
def test_the_shape_of_llama_computes_as_much_as_its_twin(name: str, twin: str) -> None:
    ours, theirs = PRESETS[f"llama-{name}"], PRESETS[twin]
    same = ("layers", "width", "heads", "context", "batch_size", "learning_rate")
    assert [getattr(ours, field) for field in same] == [getattr(theirs, field) for field in same]
    with torch.device("meta"):
        model = make(ours, vocab_size=300, seq_length=64, separator=0, pad=1, dropout=0.0, seed=1)
    config = model.config
    assert config.num_key_value_heads * 2 == config.num_attention_heads
    assert config.tie_word_embeddings
    matrices = sum(weight.numel() for block in model.model.layers for weight in block.parameters() if weight.ndim == 2)
    assert matrices == 12 * ours.width**2 * ours.layers


def test_parameters_of_what_we_really_make() -> None:
    tiny = PRESETS["tiny"]
    model = make(tiny, vocab_size=300, seq_length=32, separator=0, pad=1, dropout=0.0, seed=1)
    assert tiny.parameters(vocab_size=300, context=32) == model.num_parameters()


@pytest.mark.parametrize(
    ("name", "vocabulary", "expected"),
    [
        ("gpt", 40_478, 116_536_320),  # "117M"; ours has one norm more than the paper's
        ("gpt2-small", 50_257, 124_439_808),
        ("gpt2-medium", 50_257, 354_823_168),
        ("gpt2-large", 50_257, 774_030_080),
        ("gpt2-xl", 50_257, 1_557_611_200),
    ],
)
def test_parameters_with_the_papers_vocabularies(name: str, vocabulary: int, expected: int) -> None:
    assert PRESETS[name].parameters(vocab_size=vocabulary) == expected


@pytest.mark.parametrize(
    ("name", "millions", "layers", "width", "batch_tokens", "learning_rate"),
    [
        ("gpt3-small", 125, 12, 768, 0.5e6, 6e-4),
        ("gpt3-medium", 350, 24, 1024, 0.5e6, 3e-4),
        ("gpt3-large", 760, 24, 1536, 0.5e6, 2.5e-4),
        ("gpt3-xl", 1_300, 24, 2048, 1e6, 2e-4),
        ("gpt3-2.7b", 2_700, 32, 2560, 1e6, 1.6e-4),
        ("gpt3-6.7b", 6_700, 32, 4096, 2e6, 1.2e-4),
        ("gpt3-13b", 13_000, 40, 5120, 2e6, 1e-4),
        ("gpt3-175b", 175_000, 96, 12288, 3.2e6, 6e-5),
    ],
)
def test_gpt3_as_its_table_has_it(
    name: str, millions: int, layers: int, width: int, batch_tokens: float, learning_rate: float
) -> None:
    preset = PRESETS[name]
    assert preset.parameters(vocab_size=50_257) == pytest.approx(millions * 1e6, rel=0.025)
    assert (preset.layers, preset.width, preset.context, preset.learning_rate) == (layers, width, 2048, learning_rate)
    assert preset.batch_size * preset.context == pytest.approx(batch_tokens, rel=0.05)
    assert (preset.warmup_tokens, preset.decay_to) == (375_000_000, 0.1)


def test_the_papers_settings() -> None:
    gpt = PRESETS["gpt"]
    assert (gpt.layers, gpt.width, gpt.heads, gpt.context, gpt.batch_size, gpt.learning_rate) == (
        12, 768, 12, 512, 64, 2.5e-4,
    )  # fmt: skip
    sizes = {name: (preset.layers, preset.width) for name, preset in PRESETS.items() if name.startswith("gpt2-")}
    assert sizes == {
        "gpt2-small": (12, 768), "gpt2-medium": (24, 1024), "gpt2-large": (36, 1280), "gpt2-xl": (48, 1600),
    }  # fmt: skip
    assert all(preset.width % preset.heads == 0 for preset in PRESETS.values())
    assert {PRESETS[name].context for name in sizes} == {1024}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_counts_what_a_layer_keeps(precision: str) -> None:
    """The bytes that autograd keeps for two more layers, against the formula."""
    kept = [_kept(layers, precision) for layers in (2, 4)]
    block = block_memory(width=64, feed_forward=256, precision=precision)
    sizes: dict[str, Any] = {"width": 64, "vocab_size": 300, "context": 128, "precision": precision, "block": block}
    formula = 128 * (token_memory(layers=4, **sizes) - token_memory(layers=2, **sizes))
    assert kept[1] - kept[0] == pytest.approx(formula, rel=0.05)


def _kept(layers: int, precision: str) -> int:
    preset = dataclasses.replace(PRESETS["tiny"], layers=layers, width=64, heads=2, context=128)
    model = make(preset, vocab_size=300, seq_length=128, separator=0, pad=1, dropout=0.0, seed=1)
    return kept_bytes(model, torch.arange(128)[None] % 300, torch.arange(128)[None] % 50, precision)


def test_memory_formula() -> None:
    tiny = PRESETS["tiny"]
    parameters = tiny.parameters()
    row = 1024 * (4 * (256 * 64 + 1024 * 4) + 32_000 * 12)
    assert tiny.memory() == 16 * parameters + row
    assert tiny.memory(rows=3) - tiny.memory(rows=2) == row
    assert tiny.memory(precision="bf16") == 18 * parameters + 1024 * (4 * (256 * 36 + 1024 * 2) + 32_000 * 12)
    assert PRESETS["gpt2-xl"].memory(rows=8, checkpointing=True) < PRESETS["gpt2-xl"].memory(rows=8) / 2


def test_presets_are_listed_by_size() -> None:
    assert [preset.name for preset in PRESETS.values()] == list(PRESETS)
    for family in ("gpt2-", "gpt3-", "llama-"):
        parameters = [preset.parameters() for name, preset in PRESETS.items() if name.startswith(family)]
        assert parameters == sorted(parameters)
    assert PRESETS["tiny"].parameters(vocab_size=1000) == PRESETS["tiny"].parameters() - 31_000 * 256
