"""The network of a run: of a preset's shape, of a config.json's, or the model that it starts from.

In: the configuration and the plan. Out: a causal model of `transformers`; under `torch.device("meta")` without memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from corpus.pipeline.errors import ModelError
from corpus.train.config import TrainConfig
from corpus.train.model import architecture, build, load
from corpus.train.run.plan import RunPlan


def files(config: TrainConfig) -> Sequence[Path]:
    """The files that are inputs of the run: configuration and weights of `init`, the configuration of `architecture`.

    Raises:
        ModelError: they are no model.

    """
    if config.init:
        return load.files(config.init, "--init")
    return [architecture.config_file(config.architecture)] if config.architecture else []


def make(config: TrainConfig, plan: RunPlan, tokenizer: Path) -> Any:
    """The network with the weights that the run begins with; `tokenizer` is the workspace's tokenizer.json.

    Raises:
        ModelError: `init` does not hold a whole model, or `architecture` no causal one.
        TokenizerError: `init` has another vocabulary or tokenizer.
        TrainError: the rows are longer than the context of `init`.

    """
    if config.init:
        return load.load(
            config.init, vocab_size=plan.vocab_size, seq_length=plan.seq_length, dropout=config.dropout,
            tokenizer=tokenizer,
        )  # fmt: skip
    return _new(config, plan)


def sketch(config: TrainConfig, plan: RunPlan) -> Any:
    """The network without weights, to count by; call it under `torch.device("meta")`.

    Raises:
        ModelError: as `make`.

    """
    if config.init is None:
        return _new(config, plan)
    try:
        shape = AutoConfig.from_pretrained(str(config.init), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.init} cannot be read: {error}", hint="Give --init the folder of a model.") from error
    return AutoModelForCausalLM.from_config(shape)


def _new(config: TrainConfig, plan: RunPlan) -> Any:
    same: dict[str, Any] = {
        "vocab_size": plan.vocab_size, "seq_length": plan.seq_length, "separator": plan.separator, "pad": plan.pad,
        "dropout": plan.settings["dropout"], "seed": config.seed,
    }  # fmt: skip
    if config.architecture:
        return architecture.make(config.architecture, **same)
    return build.make(config.preset, **same)
