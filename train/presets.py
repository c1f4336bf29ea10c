"""Presets: the papers' sizes, two that fit a laptop, and three of Llama's shape; parameters and memory by formula.

Out: frozen values. Imports no torch, so `corpus train --list-models` is quick.
Invariants: `parameters` is the exact count of the network that `train.model.build` makes; memory is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

VOCAB_SIZE = 32_000
"""Vocabulary of listings: the default of `corpus tokenizer`."""
WEIGHT_BYTES = 16
"""Per parameter in single precision: weight 4, gradient 4, Adam's two moments 8."""
MOMENT_BYTES = 4
"""Of these, one moment: Muon keeps one instead of two for each weight that it trains."""
HALF_COPY_BYTES = 2
"""Added per parameter under bf16: autocast keeps a half-precision copy during a pass."""
WIDTH_BYTES = {"fp32": (32, 40), "bf16": (20, 34)}
"""Per token, layer and unit of width, kept for the backward pass: of GPT-2's block, and of one with a gate (Llama)."""
FEED_BYTES = {"fp32": (8, 16), "bf16": (4, 8)}
"""Per token, layer and unit of the feed-forward layer: before and after the activation; with a gate twice as many."""
QK_NORM_BYTES = {"fp32": 16, "bf16": 12}
"""Per token, layer and unit of width, added where queries and keys are normalized (Qwen3)."""
MASK_BYTES = {"fp32": 4, "bf16": 2}
"""Per token, layer and token of the row: the document mask."""
LOGIT_BYTES = 12
"""Per token and vocabulary entry at the peak: logits, log-probabilities and their gradient in single precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """One model by name: its size and default training settings."""

    name: str
    """Its name for `--model`."""
    layers: int
    """Transformer blocks."""
    width: int
    """Units of a token's state."""
    heads: int
    """Attention heads of a block."""
    context: int
    """Tokens of a row in the paper; a run uses the length of the packed rows."""
    batch_size: int
    """Rows of an optimizer step."""
    learning_rate: float
    """Peak of the schedule."""
    dropout: float
    """Share of units dropped. 0 where rows are seen once or a few times; the GPT paper's 0.1 where it states one."""
    warmup_tokens: int | None
    """Tokens of the warm-up, where the paper gives them."""
    decay_to: float
    """Share of the learning rate at the end."""
    source: str
    """Source of size, batch size and learning rate."""
    family: str = "gpt2"
    """Its `model_type` in transformers: `gpt2` or `llama`."""
    muon_rate: float | None = None
    """Peak of Muon, which is then the default optimizer of pre-training, with the schedule `wsd`; AdamW's alone is
    `learning_rate`."""

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: as many as of queries, in Llama's shape half of them."""
        return self.heads // 2 if self.family == "llama" else self.heads

    @property
    def feed_forward(self) -> int:
        """Units of the feed-forward layer."""
        return self.width * (3 if self.family == "llama" else 4)

    def parameters(self, *, vocab_size: int = VOCAB_SIZE, context: int | None = None) -> int:
        """Exact number of parameters; the head shares its weights with the token embedding.

        A block of width d has 12 d² weights: GPT-2's 4 d² in attention and 8 d² in the feed-forward layer, Llama's
        3 d² and 9 d². GPT-2's has 13 d in biases and norms, and a position d; Llama's has two norms of d.
        """
        if self.family == "llama":
            return vocab_size * self.width + self.layers * (12 * self.width**2 + 2 * self.width) + self.width
        embeddings = (vocab_size + (context or self.context)) * self.width
        block = 12 * self.width**2 + 13 * self.width
        return embeddings + self.layers * block + 2 * self.width

    def memory(
        self,
        *,
        rows: int = 1,
        vocab_size: int = VOCAB_SIZE,
        context: int | None = None,
        precision: str = "fp32",
        checkpointing: bool = False,
    ) -> int:
        """Estimated bytes of a training step with `rows` rows in one pass, without framework and fragmentation."""
        length = context or self.context
        token = token_memory(
            layers=self.layers,
            width=self.width,
            vocab_size=vocab_size,
            context=length,
            precision=precision,
            checkpointing=checkpointing,
            block=block_memory(
                width=self.width,
                feed_forward=self.feed_forward,
                precision=precision,
                has_gate=self.family == "llama",
            ),
        )
        return fixed_memory(self.parameters(vocab_size=vocab_size, context=context), precision) + rows * length * token


def fixed_memory(parameters: int, precision: str, *, one_moment: int = 0) -> int:
    """Bytes of a training step that do not depend on its rows: parameters x 16, under bf16 x 18.

    Of the parameters, `one_moment` have one moment: 4 bytes less for each.
    """
    each = WEIGHT_BYTES + (HALF_COPY_BYTES if precision == "bf16" else 0)
    return parameters * each - one_moment * MOMENT_BYTES


def token_memory(
    *, layers: int, width: int, vocab_size: int, context: int, precision: str, block: int, checkpointing: bool = False
) -> int:
    """Bytes of a training step for each token of a pass: layers x (block + context x 4) + vocabulary x 12.

    `block` is what `block_memory` gives. Under bf16 context x 2. With gradient checkpointing a layer keeps only its
    input, 4 bytes a unit, and one layer at a time keeps everything.
    """
    layer = block + context * MASK_BYTES[precision]
    kept = layers * width * 4 + layer if checkpointing else layers * layer
    return kept + vocab_size * LOGIT_BYTES


def block_memory(
    *, width: int, feed_forward: int, precision: str, has_gate: bool = False, has_qk_norm: bool = False
) -> int:
    """Bytes that a block keeps of each token for the backward pass, without the mask.

    GPT-2's, with a feed-forward layer of 4 x width, keeps 16 numbers a unit of width: width x 64, under bf16 x 36.
    """
    unit = WIDTH_BYTES[precision][has_gate] + (QK_NORM_BYTES[precision] if has_qk_norm else 0)
    return width * unit + feed_forward * FEED_BYTES[precision][has_gate]


_OURS = "ours: fits a laptop's CPU"
_GPT = "Radford et al., 2018"
_GPT2 = (
    "Radford et al., 2019; the learning rate is that of the nearest size in Brown et al., 2020: GPT-2's is unpublished"
)
_GPT3 = "Brown et al., 2020, table 2.1, with dense attention in every layer"
_LLAMA = (
    "ours: Llama's shape (Touvron et al., 2023, and 2 heads to a pair of key and value: Ainslie et al., 2023) with the "
    "weights a block, batch size and learning rate of "
)
_GPT_WARMUP = 2000 * 64 * 512
_GPT3_WARMUP = 375_000_000
_GPT_TABLE = (
    # name, layers, width, heads, context, batch size, learning rate, dropout, warm-up, decays to, source
    ("tiny", 4, 256, 4, 1024, 4, 1e-3, 0.0, None, 0.0, _OURS),
    ("mini", 6, 512, 8, 1024, 16, 6e-4, 0.0, None, 0.0, _OURS),
    ("gpt", 12, 768, 12, 512, 64, 2.5e-4, 0.1, _GPT_WARMUP, 0.0, _GPT),
    ("gpt2-small", 12, 768, 12, 1024, 512, 6e-4, 0.0, None, 0.0, _GPT2),
    ("gpt2-medium", 24, 1024, 16, 1024, 512, 3e-4, 0.0, None, 0.0, _GPT2),
    ("gpt2-large", 36, 1280, 20, 1024, 512, 2.5e-4, 0.0, None, 0.0, _GPT2),
    ("gpt2-xl", 48, 1600, 25, 1024, 512, 2e-4, 0.0, None, 0.0, _GPT2),
    ("gpt3-small", 12, 768, 12, 2048, 256, 6e-4, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
    ("gpt3-medium", 24, 1024, 16, 2048, 256, 3e-4, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
    ("gpt3-large", 24, 1536, 16, 2048, 256, 2.5e-4, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
    ("gpt3-xl", 24, 2048, 16, 2048, 512, 2e-4, 0.0, _GPT3_WARMUP, 0.1, f"{_GPT3}; its 24 heads of 128 are not 2,048"),
    ("gpt3-2.7b", 32, 2560, 32, 2048, 512, 1.6e-4, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
    ("gpt3-6.7b", 32, 4096, 32, 2048, 1024, 1.2e-4, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
    ("gpt3-13b", 40, 5120, 40, 2048, 1024, 1e-4, 0.0, _GPT3_WARMUP, 0.1, f"{_GPT3}; its 5,140 are not 40 x 128"),
    ("gpt3-175b", 96, 12288, 96, 2048, 1600, 6e-5, 0.0, _GPT3_WARMUP, 0.1, _GPT3),
)
_LLAMA_TABLE = (
    ("llama-tiny", 4, 256, 4, 1024, 4, 1e-3, 0.0, None, 0.0, f"{_LLAMA}tiny"),
    ("llama-mini", 6, 512, 8, 1024, 16, 6e-4, 0.0, None, 0.0, f"{_LLAMA}mini"),
    ("llama-small", 12, 768, 12, 1024, 512, 6e-4, 0.0, None, 0.0, f"{_LLAMA}gpt2-small"),
)
_MUON_RATE, _MUON_WIDTH = 8e-3, 256
"""Measured for this width (docs/training.md); for others it falls with the width, as Yang et al., 2022, have it."""
MUON_DECAY_SHARE = 0.4
"""Share of the run in which the rate of these presets decays, as measured with it."""


def _preset(family: str, row: tuple[object, ...]) -> Preset:
    preset = Preset(**dict(zip((field.name for field in fields(Preset)), (*row, family), strict=False)))  # type: ignore[arg-type]  # a table has columns of several types
    return replace(preset, muon_rate=_MUON_RATE * _MUON_WIDTH / preset.width) if family == "llama" else preset


PRESETS = {
    str(row[0]): _preset(family, row)
    for family, table in (("gpt2", _GPT_TABLE), ("llama", _LLAMA_TABLE))
    for row in table
}
