"""Defaults follow the model that is given, and a run out of proportion to its rows says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.errors import TrainError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.presets import PRESETS
from corpus.train.run import startup_log
from corpus.train.run.defaults import resolve
from corpus.train.run.stage import run
from tests.support.documents import Listener
from tests.support.packed import lay_packed, lay_tokenizer, random_segments
from tests.support.runs import SETTINGS


def folder_of(tmp_path: Path, *, layers: int, width: int, context: int, preset: str = "") -> Path:
    """A folder with the files that defaults are taken from."""
    folder = tmp_path / "models" / "first"
    folder.mkdir(parents=True)
    names = {"num_hidden_layers": layers, "hidden_size": width, "max_position_embeddings": context}
    (folder / "config.json").write_text(json.dumps(names))
    if preset:
        (folder / "run.json").write_text(json.dumps({"config": {"model": preset}}))
    return folder


@pytest.mark.parametrize(
    ("size", "preset", "batch_size", "rate"),
    [
        ((4, 256, 256), "tiny", 4, 2.5e-4),
        ((6, 512, 64), "mini", 16, 1.5e-4),
        ((12, 768, 1024), "gpt2-small", 32, 1.5e-4),
        ((12, 768, 2048), "gpt3-small", 32, 1.5e-4),
        ((24, 1024, 4096), "gpt3-medium", 32, 7.5e-5),
        ((32, 4096, 4096), "gpt3-6.7b", 32, 3e-5),
    ],
)
def test_tuning_follows_the_size_of_the_model(
    tmp_path: Path, size: tuple[int, int, int], preset: str, batch_size: int, rate: float
) -> None:
    layers, width, context = size
    folder = folder_of(tmp_path, layers=layers, width=width, context=context)
    config, said = resolve(TrainConfig(init=folder, objective="sft"))
    assert (config.model, config.batch_size) == (preset, batch_size)
    assert config.learning_rate == pytest.approx(rate)
    assert (config.epochs, config.warmup) == (3.0, 0.03)
    assert f"{batch_size} rows a step" in said
    assert said.endswith(f"for a model like {preset}: --batch-size, --learning-rate, --epochs for others")
    further, _ = resolve(TrainConfig(init=folder))
    named = PRESETS[preset]
    assert (further.batch_size, further.learning_rate) == (named.batch_size, named.learning_rate)
    assert (further.epochs, further.warmup) == (1.0, None)


def test_a_run_names_its_preset_and_flags_stay(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, layers=12, width=768, context=1024, preset="mini")
    for place in (folder, folder / "checkpoint-90"):
        assert resolve(TrainConfig(init=place, objective="sft"))[0].model == "mini"
    assert resolve(TrainConfig(init=folder, model="gpt2-xl"))[0].learning_rate == PRESETS["gpt2-xl"].learning_rate
    given: dict[str, Any] = {"batch_size": 3, "learning_rate": 1e-5, "max_steps": 7, "warmup_tokens": 100}
    config, said = resolve(TrainConfig(init=folder, objective="sft", **given))
    assert {name: getattr(config, name) for name in given} == given
    assert (config.warmup, said) == (None, "")
    with pytest.raises(TrainError, match="--ramp-from must be at most the batch size, 16, is 17"):
        resolve(TrainConfig(init=folder, ramp_from=17, ramp_tokens=1000))


def test_without_a_model_the_defaults_are_the_presets() -> None:
    config, said = resolve(TrainConfig(objective="sft"))
    assert (config.model, config.epochs, config.batch_size, config.warmup, said) == ("gpt2-small", 1.0, None, None, "")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"max_steps": 1, "batch_size": 1, "warmup": 5}, "the warm-up takes 5 steps and the run has 1: its learning"),
        ({"max_steps": 6, "batch_size": 100, "micro_batch_size": 50},
         "each row is seen 120 times, 40 would be plenty: a smaller --batch-size (100 now, of 5 rows) or --max-steps"),
        ({"epochs": 0.2, "batch_size": 1}, "only 1 steps: a smaller --batch-size or more --epochs gives more"),
        ({"max_steps": 1, "batch_size": 1}, ""),
    ],
)  # fmt: skip
def test_a_run_out_of_proportion_says_so_before_it_starts(
    workspace: Workspace, settings: dict[str, Any], note: str
) -> None:
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"train": random_segments(5, seed=1)})
    listener = Listener()
    report = run(TrainConfig(**SETTINGS | settings), workspace, progress=listener)
    others = ("no dataset has validation rows", "tiny has a context of")
    notes = [each for each in report.notes if not each.startswith(others)]
    assert [each[: len(note)] for each in notes] == [note] * bool(note)
    assert set(report.notes) <= set(listener.said)
    assert not any("a step takes" in line for line in listener.said)
    assert set(report.details["said"]) == set(report.notes)  # so the closing table need not repeat them


@pytest.mark.usefixtures("narrow")
def test_slow_steps_are_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes of 40 s each for a step of 8 rows."""
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"train": random_segments(16, seed=1)})
    monkeypatch.setattr(startup_log, "pass_seconds", lambda *_, **__: 40.0)
    listener = Listener()
    run(TrainConfig(**SETTINGS | {"max_steps": 1}), workspace, progress=listener)
    assert "a step takes about 80 s: a --batch-size below 8 gives shorter ones" in listener.said


@pytest.mark.parametrize(
    ("given", "optimizer", "schedule", "rate", "decay_share"),
    [
        ({"model": "llama-tiny"}, "muon", "wsd", 8e-3, 0.4),
        ({"model": "llama-mini"}, "muon", "wsd", 4e-3, 0.4),
        ({"model": "llama-tiny", "optimizer": "muon", "learning_rate": 1e-2}, "muon", "wsd", 1e-2, 0.4),
        ({"model": "llama-tiny", "decay_share": 0.3, "adam_learning_rate": 1e-3}, "muon", "wsd", 8e-3, 0.3),
        ({"model": "llama-tiny", "schedule": "cosine"}, "muon", "cosine", 8e-3, None),
        ({"model": "llama-tiny", "schedule": "wsd"}, "muon", "wsd", 8e-3, None),
        ({"model": "llama-tiny", "optimizer": "adamw"}, "adamw", "cosine", 1e-3, None),
        ({"model": "tiny"}, "adamw", "cosine", 1e-3, None),
        ({"model": "tiny", "optimizer": "muon"}, "muon", "cosine", 1e-3, None),
        ({"objective": "task", "task": "x", "model": "llama-tiny"}, "adamw", "linear", 2.5e-4, None),
    ],
)
def test_new_llamas_train_with_what_won(
    given: dict[str, Any], optimizer: str, schedule: str, rate: float, decay_share: float | None
) -> None:
    config, _ = resolve(TrainConfig(**given))
    assert (config.optimizer, config.schedule, config.decay_share) == (optimizer, schedule, decay_share)
    assert config.learning_rate == pytest.approx(rate)


def test_an_adam_rate_and_a_decay_need_their_optimizer_and_schedule() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": "llama-tiny", "optimizer": "adamw", "adam_learning_rate": 1e-3}, "--adam-learning-rate must stand"),
        ({"model": "llama-tiny", "optimizer": "adamw", "decay_share": 0.3}, "--decay-share must stand"),
        ({"model": "llama-tiny", "schedule": "linear", "decay_share": 0.3}, "--decay-share must stand"),
        ({"model": "tiny", "adam_learning_rate": 1e-3}, "--adam-learning-rate must stand"),
    )
    for given, words in cases:
        with pytest.raises(ValueError, match=words):
            TrainConfig(**given)
