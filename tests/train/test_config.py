"""The configuration: every check fires and names its flag."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.cli.main import main
from corpus.pipeline.humanize import duration
from corpus.train.config import TrainConfig
from corpus.train.data.schedule import Steps, rate, warmup_steps
from corpus.train.presets import PRESETS


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "gpt3", f"--model must be one of {', '.join(PRESETS)}, or a config.json, is gpt3"),
        ("run", "a/b", "--run must be a plain folder name, is a/b"),
        ("run", "..", "--run must be a plain folder name, is .."),
        ("report_to", ("board",), "--report-to must be one of tensorboard, wandb, swanlab, mlflow, none, is board"),
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
        ("warmup_tokens", -1, "--warmup-tokens must be at least 0, is -1"),
        ("ramp_from", 4, "--ramp-from and --ramp-tokens must be given together"),
        ("early_stop", 0, "--early-stop must be at least 1, is 0"),
        ("optimizer", "lion", "--optimizer must be one of adamw, muon, is lion"),
        ("schedule", "step", "--schedule must be one of cosine, wsd, linear, constant, is step"),
        (
            "adam_learning_rate",
            1e-3,
            "--adam-learning-rate must stand with --optimizer muon; --learning-rate is AdamW's alone",
        ),
        ("decay_share", 0.1, "--decay-share must stand with --schedule wsd, not with cosine"),
        ("cache_bytes", 0, "--cache and --cache-bytes must stand with --rows"),
        ("cache", Path("cache"), "--cache and --cache-bytes must stand with --rows"),
        ("ddp_timeout", 0, "--ddp-timeout must be at least 1, is 0"),
        ("shuffle", "none", "--shuffle must be one of full, block, is none"),
        ("shuffle_block", 4, "--shuffle-block must stand with --shuffle block"),
        ("decay_to", 1.5, "--decay-to must be between 0 and 1, is 1.5"),
        ("max_repeats", 0.0, "--max-repeats must be greater than 0, is 0.0"),
        ("objective", "chat", "--objective must be one of text, sft, task, reward, dpo, ppo, is chat"),
        ("datasets", ("demo=1", "wiki2019zh"), "--dataset must have a weight for every dataset, or for no dataset"),
        ("datasets", ("demo", "demo"), "--dataset must name each dataset once"),
        ("datasets", ("demo=x",), "--dataset demo=x: the weight must be a number greater than 0"),
        ("datasets", ("demo=0",), "--dataset demo=0: the weight must be a number greater than 0"),
        ("dropout", 1.0, "--dropout must be at least 0 and less than 1, is 1.0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_flag(field: str, value: object, words: str) -> None:
    values: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match="must") as caught:
        TrainConfig(**values)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"schedule": "wsd", "decay_share": 0.0}, "--decay-share must be greater than 0 and at most 1, is 0.0"),
        ({"schedule": "constant", "decay_to": 0.1},
         "--decay-to must not stand with --schedule constant, which never decays"),
        ({"rows": "s3://a", "cache_bytes": 0}, "--cache-bytes must be at least 1, is 0"),
        ({"shuffle": "block", "shuffle_block": 0}, "--shuffle-block must be at least 1, is 0"),
        ({"shuffle": "block", "objective": "task", "task": "ocnli"},
         "--shuffle block must stand with --objective text or sft, not with task"),
        ({"rows": "s3://a", "objective": "task", "task": "ocnli"},
         "--rows must stand with --objective text or sft, not with task"),
        ({"optimizer": "muon", "adam_learning_rate": 0.0}, "--adam-learning-rate must be greater than 0, is 0.0"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
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


def test_trackers_are_named_in_a_list_or_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, wrong = ["--report-to", "mlflow, none,tensorboard"], ["--report-to", "wandb,board"]
    for flags, code, words in ((known, 1, "holds no packed rows"), (known + wrong, 2, "--report-to must be one of")):
        with pytest.raises(SystemExit) as leave:
            main(["train", *flags, "--dry-run", "--workspace", str(tmp_path)])
        assert leave.value.code == code
        assert words in capsys.readouterr().err


def test_a_wrong_flag_is_refused_before_torch_is_imported() -> None:
    code = "import sys, corpus.train.config, corpus.train.presets; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def warm(steps: Steps, **settings: Any) -> int:
    return warmup_steps(TrainConfig(**settings), steps, 100)


def test_warm_up_in_steps_in_tokens_or_as_a_share() -> None:
    assert [warm(Steps(batch_size=8, count=100), warmup=value) for value in (0, 0.05, 1, 30)] == [0, 5, 1, 30]
    assert warm(Steps(batch_size=8, count=210), warmup=0.05) == 11
    assert [warm(Steps(batch_size=8, count=100), warmup_tokens=value) for value in (0, 1, 800, 801)] == [0, 1, 1, 2]


def test_warm_up_left_out_is_a_twentieth_or_the_papers_tokens() -> None:
    assert warm(Steps(batch_size=8, count=200)) == 10
    assert warm(Steps(batch_size=64, count=10**6), model="gpt") == 2000 * 512 // 100
    assert warm(Steps(batch_size=64, count=1000), model="gpt") == 50
    assert warm(Steps(batch_size=64, count=10**6), model="gpt", init=Path("somewhere")) == 50_000


def test_the_learning_rate_rises_and_falls() -> None:
    six = Steps(batch_size=8, count=6)
    assert [round(rate(step, 2, six), 2) for step in range(6)] == [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    one = Steps(batch_size=8, count=1)
    assert rate(0, 0, one) == rate(0, 1, one) == 1.0  # a run of one step trains
    assert all(rate(step, 7, Steps(batch_size=8, count=40)) > 0 for step in range(40))
    tenth = [round(rate(step, 2, six, 0.1), 3) for step in range(7)]
    assert tenth == [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1]


def test_schedules_besides_the_cosine() -> None:
    ten = Steps(batch_size=8, count=10)

    def curve(**settings: Any) -> list[float]:
        return [round(rate(step, 2, ten, **settings), 3) for step in range(11)]

    assert curve(schedule="constant") == [0.5, *[1.0] * 10]
    assert curve(schedule="linear") == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]
    assert curve(schedule="wsd", decay_share=0.4) == [0.5, *[1.0] * 6, 0.5, 0.293, 0.134, 0.0]
    assert curve(schedule="wsd", decay_share=1.0)[:4] == [0.5, 1.0, 1.0, 0.646]  # the warm-up comes first
    assert curve(schedule="wsd", decay_share=0.2, decay_to=0.1)[-3:] == [1.0, 0.364, 0.1]


def test_a_batch_that_grows() -> None:
    steps = Steps(batch_size=32, total=300, ramp_from=4, ramp_rows=100)
    sizes = [steps.begin(step + 1) - steps.begin(step) for step in range(steps.count)]
    assert sizes == [4, 5, 6, 8, 10, 13, 16, 21, 27, 32, 32, 32, 32, 32, 30]
    assert (steps.total, steps.begin(99)) == (300, 300)
    assert [steps.until(rows) for rows in (0, 1, 4, 5, 9, 110, 142)] == [0, 1, 1, 2, 2, 9, 10]
    for count in (1, 5, 9, 10, 14):
        assert (again := Steps(batch_size=32, count=count, ramp_from=4, ramp_rows=100)).count == count
        assert again.total == steps.begin(count)
    assert Steps(batch_size=32, total=7, ramp_from=4, ramp_rows=100).count == 2
    assert Steps(batch_size=32, total=10**15).count == 10**15 // 32


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="--sample-prompt must be text"):
        TrainConfig(sample_prompts=("\udcff",))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "1 h 30 min"), (12_000, "3 h 20 min"), (500_000, "5 d 19 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
