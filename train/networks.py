"""The network of a run: of a preset's shape, of a config.json's, or the model that it starts from.

In: the configuration and the shape that rows and tokenizer ask for. Out: a causal model of `transformers`; under
`torch.device("meta")` without memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from corpus.pipeline.errors import ModelError
from corpus.train.config import PREFERENCES, TrainConfig
from corpus.train.model import architecture, build, load

_PACK = {"sft": "corpus pack --form chat"} | dict.fromkeys(PREFERENCES, "corpus pack --form ranking")
"""What makes the rows of an objective, where it is not `corpus pack`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What rows and tokenizer ask of a network."""

    vocab_size: int
    seq_length: int
    separator: int
    """Id of the separator."""
    pad: int
    """Id of the padding."""


def files(config: TrainConfig) -> Sequence[Path]:
    """The files that are inputs of the run: configuration and weights of `init`, the configuration of `architecture`.

    Raises:
        ModelError: they are no model.

    """
    if config.init:
        return load.files(config.init, "--init")
    return [architecture.config_file(config.architecture)] if config.architecture else []


def make(config: TrainConfig, shape: Shape, tokenizer: Path) -> Any:
    """The network with the weights that the run begins with; `tokenizer` is the workspace's tokenizer.json.

    Raises:
        ModelError: `init` does not hold a whole model, or `architecture` no causal one.
        TokenizerError: `init` has another vocabulary or tokenizer.
        TrainError: the rows are longer than the context of `init`.

    """
    if config.init:
        return load.load(
            config.init, vocab_size=shape.vocab_size, seq_length=shape.seq_length, dropout=config.dropout,
            tokenizer=tokenizer, pack=_PACK.get(config.objective, "corpus pack"),
        )  # fmt: skip
    return new(config, shape)


def sketch(config: TrainConfig, shape: Shape) -> Any:
    """The network without weights, to count by; call it under `torch.device("meta")`.

    Raises:
        ModelError: as `make`.

    """
    if config.init is None:
        return new(config, shape)
    try:
        values = AutoConfig.from_pretrained(str(config.init), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.init} cannot be read: {error}", hint="Give --init the folder of a model.") from error
    return AutoModelForCausalLM.from_config(values)


def new(config: TrainConfig, shape: Shape) -> Any:
    """A network with random weights.

    Raises:
        ModelError: `architecture` is no configuration of a causal model.

    """
    dropout = config.dropout if config.dropout is not None or not config.is_preset else config.preset.dropout
    same: dict[str, Any] = {
        "vocab_size": shape.vocab_size, "seq_length": shape.seq_length, "separator": shape.separator, "pad": shape.pad,
        "dropout": dropout, "seed": config.seed,
    }  # fmt: skip
    if config.architecture:
        return architecture.make(config.architecture, **same)
    return build.make(config.preset, **same)


def described(config: TrainConfig) -> dict[str, Any]:
    """Name, family and size of the model; a GPT-2 has no family, as in the ledgers of earlier versions."""
    if config.init:
        return {"model": "init"}
    preset = config.preset
    if config.architecture:
        shape = architecture.read(config.architecture)
        sizes = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
        named = {name: getattr(shape, attribute, None) for name, attribute in sizes.items()}
        return {"model": shape.model_type, "family": shape.model_type, **named}
    family = {} if preset.family == "gpt2" else {"family": preset.family}
    return {"model": config.model, **family, "layers": preset.layers, "width": preset.width, "heads": preset.heads}
