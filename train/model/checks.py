"""Checks of a model's folder before any of it is built: against its run's ledger, its weights and the memory.

In: a folder and its config.json. Out: nothing, or an error that names the file and what is wrong with it.
Invariant: nothing of the size that config.json says is made.
Cost: the headers of the weights; their digest once, where the folder belongs to a run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING

from corpus.pipeline.errors import ModelError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.workspace.checked import check_bytes, check_size
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.train.model import device as devices

_MOST_LAYERS = 1_000
"""More of them than there are weights are a mistake in config.json; fewer are built in a moment."""
_LEARNT_POSITIONS = {"gpt2", "openai-gpt", "gpt_bigcode", "gpt_neo", "opt"}
"""Kinds of models whose positions are an embedding."""


def check_ledger(folder: Path) -> None:
    """Compare configuration, weights and tokenizer with the ledger of the run that wrote them, if there is one.

    Raises:
        DamageError: one of them is not what the ledger says.

    """
    run = folder.parent if folder.name == "best" else folder
    ledger = read_ledger(run)
    if ledger is None or ledger.stage != "train":
        return
    workspace = Workspace(run.parent.parent)
    for output in ledger.outputs:
        path = run / output.path
        if path.parent == folder and (path.suffix == ".safetensors" or path.name in {"config.json", "tokenizer.json"}):
            check_size("models", run, output)
            check_bytes("models", run, output, workspace.digest(path))
    if (workspace.root / ".lock").exists():  # else the folder was copied to a place that is no workspace
        workspace.save_digests()


def check_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a model that only code of its own could open."""
    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            f"{folder} needs Python code of its own (auto_map in config.json), and no code of a model's folder is run",
            hint="Only models of the types that transformers knows can be opened.",
        )


def check_layer_count(file: Path, config: dict[str, Any]) -> None:
    """Refuse so many layers that they are a mistake: making them alone would take minutes."""
    layers = _number(config, "n_layer", "num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise ModelError(f"{file} says {layers:,} layers", hint=f"It is mistyped: give at most {_MOST_LAYERS:,}.")


def check_layers(folder: Path, config: dict[str, Any], weights: Iterable[Path]) -> None:
    """Refuse more layers than there are weights: making them alone would take minutes."""
    layers = _number(config, "n_layer", "num_hidden_layers")
    if layers <= _MOST_LAYERS:
        return
    tensors = 0
    for path in weights:
        with contextlib.suppress(SafetensorError), safe_open(path, framework="pt") as file:  # torn ones are said below
            tensors += len(file.keys())
    if layers > tensors:
        raise ModelError(
            f"{folder / 'config.json'} says {layers:,} layers, and the folder holds {tensors:,} weights",
            hint="It is the config.json of another model, or mistyped: copy the folder's own.",
        )


def check_memory(file: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
    """Refuse a model that the memory cannot hold, by its sizes in a config.json."""
    parameters = _least_parameters(config)
    size, memory = parameters * dtype.itemsize, devices.host_memory()
    if size > memory:
        raise ModelError(
            f"{file} describes a model of at least {parameters:,} parameters, {size_text(size)} of "
            f"memory; this machine has {size_text(memory)}",
            hint="Look for a mistyped size in it, or use a machine with more memory.",
        )


def size_of(folder: Path) -> tuple[int, int, int]:
    """Layers, width and context by config.json; 0 where it does not say."""
    config = json.loads((folder / "config.json").read_bytes())
    names = (("n_layer", "num_hidden_layers"), ("n_embd", "hidden_size"), ("n_positions", "max_position_embeddings"))
    layers, width, context = (_number(config, *each) for each in names)
    return layers, width, context


def _least_parameters(config: dict[str, Any]) -> int:
    """Parameters of embeddings, of two attention matrices in each layer, and of the feed-forward layers."""
    width = _number(config, "n_embd", "hidden_size")
    learnt = config.get("model_type") in _LEARNT_POSITIONS
    positions = _number(config, "n_positions", "max_position_embeddings") if learnt else 0
    layer = 2 * width**2 + 2 * width * _number(config, "n_inner", "intermediate_size")
    return (_number(config, "vocab_size") + positions) * width + _number(config, "n_layer", "num_hidden_layers") * layer


def _number(config: dict[str, Any], *names: str) -> int:
    """The first of these values that is a positive integer; 0 without one."""
    return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), 0)
