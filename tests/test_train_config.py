"""The configuration: every check fires and names its flag; a file of it is read or refused."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from corpus.train.__main__ import read_config
from corpus.train.arguments import rate, warmup_steps
from corpus.train.config import TrainConfig
from corpus.train.estimate import duration


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (
            "model",
            "gpt3",
            "--model must be one of tiny, mini, gpt, gpt2-small, gpt2-medium, gpt2-large, gpt2-xl, is gpt3",
        ),
        ("run", "a/b", "--run must be a plain folder name, is a/b"),
        ("run", "..", "--run must be a plain folder name, is .."),
        ("precision", "fp8", "--precision must be one of auto, fp32, bf16, is fp8"),
        ("device", "tpu", "--device must be one of auto, cpu, cuda, mps, xpu, is tpu"),
        ("epochs", 0, "--epochs must be greater than 0, is 0"),
        ("epochs", math.nan, "--epochs must be greater than 0, is nan"),
        ("learning_rate", -1.0, "--learning-rate must be greater than 0, is -1.0"),
        ("max_steps", 0, "--max-steps must be at least 1, is 0"),
        ("batch_size", 0, "--batch-size must be at least 1, is 0"),
        ("micro_batch_size", 0, "--micro-batch-size must be at least 1, is 0"),
        ("log_steps", 0, "--log-steps must be at least 1, is 0"),
        ("eval_steps", 0, "--eval-steps must be at least 1, is 0"),
        ("eval_rows", -1, "--eval-rows must be at least 0, is -1"),
        ("save_steps", 0, "--save-steps must be at least 1, is 0"),
        ("save_total_limit", 0, "--save-total-limit must be at least 1, is 0"),
        ("seed", -1, "--seed must be at least 0, is -1"),
        ("workers", -1, "--workers must be at least 0, is -1"),
        ("threads", 0, "--threads must be at least 1, is 0"),
        ("warmup", -0.1, "--warmup must not be negative, is -0.1"),
        ("weight_decay", -1.0, "--weight-decay must not be negative, is -1.0"),
        ("clip", math.inf, "--clip must not be negative, is inf"),
        ("beta1", 1.0, "--beta1 must be at least 0 and less than 1, is 1.0"),
        ("beta2", -0.5, "--beta2 must be at least 0 and less than 1, is -0.5"),
        ("dropout", 1.0, "--dropout must be at least 0 and less than 1, is 1.0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_flag(field: str, value: object, words: str) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match="must") as caught:
        TrainConfig(**values)
    assert str(caught.value) == words


def test_the_defaults_stand() -> None:
    config = TrainConfig()
    assert config.preset.name == "gpt2-small"
    assert config.resume
    assert config.document_mask
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]


def test_a_configuration_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"model": "tiny", "datasets": ["demo"], "init": "somewhere", "epochs": 0.5}))
    assert read_config(path) == TrainConfig(model="tiny", datasets=("demo",), init=Path("somewhere"), epochs=0.5)


@pytest.mark.parametrize("text", ["{", "[]", '{"modell": "tiny"}', '{"model": "x"}', '{"epochs": "two"}'])
def test_a_wrong_file_is_wrong_usage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(click.UsageError, match=r"run\.json"):
        read_config(path)


def test_a_wrong_flag_is_refused_before_torch_is_imported() -> None:
    code = "import sys, corpus.train.config, corpus.train.presets; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_warm_up_in_steps_or_as_a_share() -> None:
    assert [warmup_steps(*case) for case in ((0, 100), (0.05, 210), (1, 100), (30, 100))] == [0, 11, 1, 30]


def test_the_learning_rate_rises_and_falls() -> None:
    assert [round(rate(step, 2, 6), 2) for step in range(6)] == [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    assert rate(0, 0, 1) == rate(0, 1, 1) == 1.0  # a run of one step trains
    assert all(rate(step, 7, 40) > 0 for step in range(40))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "1 h 30 min"), (12_000, "3 h 20 min"), (500_000, "5 d 19 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
