"""What a run takes where no flag says it: from the preset, from the model that is given, and from the objective.

In: a configuration and, with `init` or `architecture`, the files of the model. Out: a configuration without open
defaults, and what to tell the user about them.
Invariant: a value that was given stays. Without a model the defaults are the preset's.
Cost: reads two small files of the folder.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from corpus.pipeline.errors import TrainError
from corpus.train.config import NEW_MODEL, TrainConfig
from corpus.train.model import architecture
from corpus.train.model.checks import size_of
from corpus.train.presets import MUON_DECAY_SHARE, PRESETS, Preset

TUNING_EPOCHS = 3.0
"""Radford et al., 2018, section 4.1; Alpaca (Taori et al., 2023) too."""
TUNING_ROWS = 32
"""Most rows of a step (Radford et al., 2018, section 4.1); items of a task are short, so there it is the number."""
TUNING_RATE = 1 / 4
"""Share of the preset's learning rate: Radford et al., 2018, trained with 2.5e-4 and tuned with 6.25e-5.
The share, not the rate, is what a smaller model takes over: `tiny` trains with 1e-3 and tunes with 2.5e-4."""
TUNING_WARMUP = 0.03
"""Share of the run (Taori et al., 2023)."""
TASK_WARMUP = 0.002
"""Share of the run (Radford et al., 2018, section 4.1)."""
TUNINGS = {
    "reward": (1 / 8, 1.0, 0.03),
    "dpo": (1 / 100, 1.0, 0.1),
    "ppo": (1 / 16, 1.0, 0.1),
}
"""Share of the preset's learning rate, epochs and warm-up of objectives that learn from rankings. A second epoch
overfits (Ouyang et al., 2022, appendix C.2). A reward model's share lies between InstructGPT's (9e-6 of GPT-3's 1.2e-4)
and that of a task; DPO's gives `gpt2-small` 6e-6 and `tiny` 1e-5."""
EVAL_ROWS = 128
"""Most validation rows of a dataset in an evaluation of packed rows."""
EVAL_PROMPTS = 64
"""Most validation prompts of a dataset that are answered in an evaluation."""
_NOUNS = {"task": "items", "reward": "questions", "dpo": "questions", "ppo": "prompts"}
_STARTED = "run.json"


def resolve(config: TrainConfig) -> tuple[TrainConfig, str]:
    """The configuration with every default resolved, and a sentence on those that follow the model that is given.

    Raises:
        TrainError: the ramp begins above the batch size.
        ModelError: `architecture` is no configuration of a model.

    """
    config = _of_objective(config)
    if config.is_preset and config.objective in {"text", "sft"}:
        rate = config.preset.muon_rate if config.has_muon_preset else None
        learning_rate = config.learning_rate or rate or config.preset.learning_rate
        return replace(config, epochs=config.epochs or 1.0, learning_rate=learning_rate), ""
    preset = PRESETS[config.model] if config.model or config.is_preset else _preset(config)
    batch_size, rate, epochs, warmup = preset.batch_size, preset.learning_rate, 1.0, config.warmup
    if tuning_warmup := _tuning_warmup(config):
        batch_size = min(batch_size, TUNING_ROWS) if config.objective == "sft" else TUNING_ROWS
        share, epochs, _ = TUNINGS.get(config.objective, (TUNING_RATE, TUNING_EPOCHS, 0.0))
        rate *= share
        if warmup is None and config.warmup_tokens is None:
            warmup = tuning_warmup
    rows = _NOUNS.get(config.objective, "rows")
    taken = {
        "--batch-size": (config.batch_size, f"{batch_size} {rows} a step"),
        "--learning-rate": (config.learning_rate, f"a learning rate of {rate:.3g}"),
        "--epochs": (config.epochs or config.max_steps, f"{epochs:g} epochs"),
    }
    chosen = {flag: text for flag, (given, text) in taken.items() if not given}
    said = f"{', '.join(chosen.values())}, for a model like {preset.name}: {', '.join(chosen)} for others"
    batch_size = config.batch_size or batch_size
    if config.ramp_from is not None and config.ramp_from > batch_size:
        raise TrainError(
            f"--ramp-from must be at most the batch size, {batch_size}, is {config.ramp_from}",
            hint="Give a smaller one, or a larger --batch-size.",
        )
    resolved = replace(
        config, model=preset.name, batch_size=batch_size, learning_rate=config.learning_rate or rate,
        epochs=config.epochs or epochs, warmup=warmup,
    )  # fmt: skip
    return resolved, said if chosen else ""


def _of_objective(config: TrainConfig) -> TrainConfig:
    """With what follows from the objective alone: a task has GPT's linear decay to 0, and all its validation items.

    A new model of a preset with Muon is pre-trained with it, and with `wsd`.
    """
    is_task = config.objective == "task"
    own = 0 if is_task or config.objective in TUNINGS else EVAL_ROWS
    own = EVAL_PROMPTS if config.objective == "ppo" else own
    rows = own if config.eval_rows is None else config.eval_rows
    decay_to = 0.0 if is_task and config.decay_to is None and config.schedule != "constant" else config.decay_to
    if config.is_preset:
        config = replace(config, model=config.model or NEW_MODEL)
    is_muon = config.has_muon_preset
    decay_share = config.decay_share
    if is_muon and config.schedule is None and decay_share is None:
        decay_share = MUON_DECAY_SHARE
    schedule = config.schedule or ("linear" if is_task else "wsd" if is_muon else "cosine")
    return replace(
        config, optimizer="muon" if is_muon else config.optimizer or "adamw", schedule=schedule,
        decay_share=decay_share, eval_rows=rows, decay_to=decay_to,
    )  # fmt: skip


def _tuning_warmup(config: TrainConfig) -> float:
    """The warm-up of a run that tunes a model; 0 of one that trains it."""
    if config.objective == "task":
        return TASK_WARMUP
    if config.objective in TUNINGS:
        return TUNINGS[config.objective][2]
    return TUNING_WARMUP if config.objective == "sft" and config.init else 0.0


def preset_of(folder: Path) -> Preset:
    """The preset that a run names, in its folder or above a checkpoint; for other models the nearest in size."""
    for place in (folder, folder.parent):
        try:
            name = json.loads((place / _STARTED).read_bytes())["config"]["model"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if name in PRESETS:
            return PRESETS[name]
    return _nearest(*size_of(folder))


def _preset(config: TrainConfig) -> Preset:
    if config.init:
        return preset_of(config.init)
    shape = architecture.read(config.architecture or Path())
    names = ("num_hidden_layers", "hidden_size", "max_position_embeddings")
    return _nearest(*(getattr(shape, name, None) or 1 for name in names))


def _nearest(*size: int) -> Preset:
    """The preset nearest in layers x width², then in context."""
    layers, width, context = (max(1, number) for number in size)

    def distance(preset: Preset) -> tuple[float, float]:
        size = abs(math.log(preset.layers * preset.width**2 / (layers * width**2)))
        return round(size, 6), abs(math.log(preset.context / context))

    return min(PRESETS.values(), key=distance)
