"""A model with random weights by a config.json: any decoder that `AutoModelForCausalLM.from_config` builds.

In: a config.json, or a folder that holds one, and the special tokens of the workspace. Out: its configuration with the
workspace's vocabulary and the length of the rows as its context, and the network in single precision.
Invariants: the file is untrusted: no code that it names runs, no hub is asked; no network is built that the memory
cannot hold; equal arguments give equal weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, set_seed

from corpus.pipeline.errors import ModelError
from corpus.train.model import checks
from corpus.train.model.build import configure
from corpus.train.model.device import is_out_of_memory
from corpus.train.model.quiet import first_line, quiet

DROPOUTS = (
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "resid_dropout",
    "residual_dropout", "embedding_dropout",
)  # fmt: skip
"""Names of a configuration's shares of dropped units, by family."""
_OF_ANOTHER_RUN = ("dtype", "torch_dtype", "quantization_config", "attn_implementation", "_attn_implementation")
"""Keys of a published config.json that say how its weights are stored and computed, not what the network is."""
_HINT = "Give --model a preset (--list-models), or the config.json of a causal model that transformers knows."


def config_file(path: Path) -> Path:
    """The file itself, or the config.json of a folder.

    Raises:
        ModelError: there is none.

    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"{path} holds no config.json" if path.is_dir() else f"{path} is not a file", hint=_HINT)
    return file


def read(path: Path) -> Any:
    """The configuration that a file or folder holds, as `transformers` completes it.

    Raises:
        ModelError: it cannot be read, needs code of its own, or is not the configuration of one network.

    """
    file = config_file(path)
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(values, dict):
        raise ModelError(f"{file} cannot be read: it holds no object", hint=_HINT)
    checks.check_code(file, values)
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ModelError(f"{file}: model_type is {kind}, which transformers does not know", hint=_HINT)
    checks.check_layer_count(file, values)
    try:
        with quiet():
            config = CONFIG_MAPPING[kind].from_dict({k: v for k, v in values.items() if k not in _OF_ANOTHER_RUN})
    except Exception as error:  # whatever a wrong value makes transformers raise
        raise ModelError(f"{file} cannot be read: {first_line(error)}", hint=_HINT) from error
    if config.get_text_config() is not config:
        raise ModelError(
            f"{file} describes several networks, not a decoder alone", hint="Give --model a file of its text_config."
        )
    return config


def make(
    path: Path, *, vocab_size: int, seq_length: int, separator: int, pad: int, dropout: float | None, seed: int
) -> Any:
    """The network of a config.json with random weights; `dropout` replaces its own, if given.

    Raises:
        ModelError: as `read`; it is no causal model, or larger than the memory.

    """
    config, file = read(path), config_file(path)
    config.vocab_size = vocab_size
    config.bos_token_id = config.eos_token_id = separator
    config.pad_token_id = pad
    config.use_cache = True
    config.dtype = torch.float32
    names = {"max_position_embeddings": seq_length} | ({} if dropout is None else dict.fromkeys(DROPOUTS, dropout))
    for name, value in names.items():
        if hasattr(config, name):
            setattr(config, name, value)
    if torch.get_default_device().type != "meta":
        checks.check_memory(file, config.to_dict(), torch.float32)
    set_seed(seed)
    try:
        with quiet():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever sizes that do not fit each other make transformers raise
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{file}: no causal model can be built: {first_line(error)}", hint=_HINT) from error
    return configure(model)
