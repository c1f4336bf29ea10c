"""Trackers: the figures they get, and those that are missing or fail."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from corpus.pipeline.errors import TrainError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TRACKERS, TrainConfig
from corpus.train.run import trackers
from corpus.train.run.stage import run
from tests.support.packed import lay_all
from tests.support.runs import SETTINGS, history

pytestmark = pytest.mark.usefixtures("narrow")


def _events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_figures_for_tensorboard(workspace: Workspace) -> None:
    settings = SETTINGS | {"epochs": 1, "report_to": ("tensorboard",), "run": "one"}
    report = run(TrainConfig(**settings), lay_all(workspace))
    events, lines = _events(report.folder), history(report.folder)
    for figure in ("loss", "learning_rate", "grad_norm"):
        expected = [(line["step"], pytest.approx(line[figure])) for line in lines if figure in line]
        assert [(event.step, event.value) for event in events.Scalars(f"train/{figure}")] == expected
    for figure in ("demo/bits_per_character", "wiki2019zh/loss", "bits_per_character"):
        expected = [(line["step"], pytest.approx(line[figure])) for line in lines if figure in line]
        assert [(event.step, event.value) for event in events.Scalars(f"eval/{figure}")] == expected
    seen = events.Scalars("train/num_input_tokens_seen")[-1]
    assert (seen.step, seen.value) == (report.ledger.counts["steps"], report.ledger.counts["tokens"])
    assert not [entry.path for entry in report.ledger.outputs if "tensorboard" in entry.path]
    (report.folder / "ledger.json").unlink()
    shutil.rmtree(report.folder / "checkpoint-5")
    again = run(TrainConfig(**settings), workspace)  # it resumes, and no step is there twice
    assert again.details["resumed_from"] == 4
    steps = [event.step for event in _events(report.folder).Scalars("train/loss")]
    assert steps == [line["step"] for line in lines if "loss" in line]
    seen = _events(report.folder).Scalars("train/num_input_tokens_seen")[-1]
    assert (seen.step, seen.value) == (report.ledger.counts["steps"], report.ledger.counts["tokens"])
    assert again.ledger == report.ledger


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_before_a_step(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    assert tracker in INTEGRATION_TO_CALLBACK
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(TrainError, match=f"--report-to {tracker} needs the package {tracker}") as caught:
        run(TrainConfig(**SETTINGS, report_to=(tracker,)), lay_all(workspace))
    assert f"pip install 'corpus-zh[{tracker}]'" in caught.value.hint
    assert not workspace.models.exists()


def test_a_tracker_that_fails_is_named() -> None:
    class WandbCallback:
        def setup(self, *_: object) -> None:
            raise RuntimeError("nobody is logged in")

    trainer = SimpleNamespace(args=None, state=None, model=None)
    with pytest.raises(TrainError, match="--report-to wandb: nobody is logged in") as caught:
        trackers.start([WandbCallback()], trainer)
    assert "Log in" in caught.value.hint
