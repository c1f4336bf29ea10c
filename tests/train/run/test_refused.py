"""Rows, devices and losses that training stops at, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from corpus.pipeline.errors import DamageError, DeviceError, TokenizerError, TrainError, WorkspaceError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from tests.support import damage
from tests.support.packed import lay_all, lay_packed, lay_tokenizer, random_segments
from tests.support.runs import SETTINGS

pytestmark = pytest.mark.usefixtures("narrow")


def test_rows_of_another_tokenizer_are_refused_naming_both(workspace: Workspace) -> None:
    lay_all(workspace)
    old = workspace.digest(workspace.tokenizer / "tokenizer.json")
    lay_tokenizer(workspace, 390)
    new = workspace.digest(workspace.tokenizer / "tokenizer.json")
    with pytest.raises(TokenizerError, match=f"demo was packed with the tokenizer {old[:12]}.*{new[:12]}") as caught:
        run(TrainConfig(**SETTINGS), workspace)
    assert "corpus pack --dataset demo" in caught.value.hint


def test_rows_of_different_length_are_refused_naming_them(workspace: Workspace) -> None:
    lay_all(workspace)
    lay_packed(workspace, "wiki2019zh", {"train": random_segments(4, seed=1)}, seq_length=64)
    with pytest.raises(TrainError, match="demo to 48, wiki2019zh to 64"):
        run(TrainConfig(**SETTINGS), workspace)
    assert run(TrainConfig(**SETTINGS | {"epochs": 0.4}, datasets=("demo",)), workspace).ledger.counts["steps"] == 1


def test_nothing_to_train_on(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no packed rows") as caught:
        run(TrainConfig(**SETTINGS), workspace)
    assert "corpus pack" in caught.value.hint
    lay_tokenizer(workspace)
    with pytest.raises(WorkspaceError, match="news2016zh is not packed"):
        run(TrainConfig(**SETTINGS, datasets=("news2016zh",)), workspace)
    lay_packed(workspace, "demo", {"validation": random_segments(3, seed=1)})
    with pytest.raises(TrainError, match="no row to train on"):
        run(TrainConfig(**SETTINGS), workspace)
    (workspace.packed("demo") / "validation" / "data-00000.arrow").unlink()
    with pytest.raises(DamageError, match=r"data-00000\.arrow is missing"):
        run(TrainConfig(**SETTINGS), workspace)


@pytest.mark.parametrize("harm", damage.KINDS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize(
    "name",
    ["packed/demo/train/data-00000.arrow", "packed/demo/validation/data-00000.arrow", "tokenizer/tokenizer.json"],
)
def test_damaged_inputs_are_refused(workspace: Workspace, harm: Callable[[Path], None], name: str) -> None:
    lay_all(workspace)
    harm(workspace.root / name)
    with pytest.raises(DamageError, match=rf"{name} has other bytes than its ledger says") as caught:
        run(TrainConfig(**SETTINGS), Workspace(workspace.root))
    assert caught.value.hint.startswith("Delete it and run `corpus ")
    assert not workspace.models.exists()


def test_a_device_that_is_not_there(workspace: Workspace) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(DeviceError, match="--device cuda: this machine has no such device"):
        run(TrainConfig(**SETTINGS, device="cuda"), lay_all(workspace))


def test_a_loss_that_is_no_number_stops_the_run(workspace: Workspace) -> None:
    with pytest.raises(TrainError, match="the loss is nan at step"):
        run(TrainConfig(**SETTINGS | {"learning_rate": 1e30, "warmup": 0.0, "clip": 0.0}), lay_all(workspace))
    folder = next(workspace.models.iterdir())
    assert not (folder / "ledger.json").exists()
    assert not list(folder.glob("checkpoint-*"))
