"""Runs of the objectives `reward` and `dpo`: what they learn and write, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from corpus.pipeline.errors import TrainError, WorkspaceError
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report
from corpus.train.config import TrainConfig
from corpus.train.preferences import predict
from corpus.train.run import dpo, dry_run, stage
from corpus.train.run.reward import RewardObjective
from tests.support.rankings import lay_rankings, toy
from tests.support.runs import history

SETTINGS: dict[str, Any] = {
    "datasets": ("demo",), "epochs": 4, "batch_size": 16, "micro_batch_size": 6, "learning_rate": 3e-2, "log_steps": 1,
    "eval_steps": 8, "save_steps": 6, "threads": 1, "device": "cpu", "precision": "fp32",
}  # fmt: skip
FASTER = {"reward": {}, "dpo": {"learning_rate": 3e-3}}


def trained(workspace: Workspace, objective: str, run: str, **changes: Any) -> Report:
    values = {"init": workspace.models / "start"} | SETTINGS | FASTER[objective] | changes
    return stage.run(TrainConfig(objective=objective, run=run, **values), workspace)


@pytest.fixture(scope="module")
def reward_run(ranked: Workspace) -> Report:
    return trained(ranked, "reward", "rm")


@pytest.fixture(scope="module")
def dpo_run(ranked: Workspace) -> Report:
    return trained(ranked, "dpo", "policy", sample_prompts=("茶？",))


def test_a_reward_model_learns_what_is_better(ranked: Workspace, reward_run: Report) -> None:
    counts = reward_run.ledger.counts
    lines = history(reward_run.folder)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert counts["best"]["validation"]["demo"]["accuracy"] > 0.9
    assert counts["test"]["demo"]["accuracy"] > 0.85
    assert counts["questions"] == {"train": 96, "validation": 24, "test": 24}
    floors = counts["floors"]["test"]["demo"]
    assert set(floors) == {"longer wins", "n-gram Bradley-Terry"}
    assert floors["n-gram Bradley-Terry"]["accuracy"] > 0.9
    assert 0.3 < floors["longer wins"]["accuracy"] < 0.7
    names = {path.name for path in reward_run.folder.iterdir()}
    assert {"calibration.png", "curves.png", "README.md", "best", "model.safetensors", "tokenizer.json"} <= names
    card = (reward_run.folder / "README.md").read_text()
    assert "floor: longer wins" in card
    assert trained(ranked, "reward", "rm").skipped


@pytest.mark.parametrize("place", ["", "best"])
def test_demonstrations_have_a_mean_score_of_zero(ranked: Workspace, reward_run: Report, place: str) -> None:
    """By the saved folder alone, with the classes of transformers."""
    folder = reward_run.folder / place
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    objective = RewardObjective(TrainConfig(objective="reward", init=ranked.models / "start", **SETTINGS), ranked)
    scores = []
    for item in objective.train.__getitems__(range(96)):
        ids = torch.from_numpy(np.concatenate([[0], item.question, item.answers[0]]).astype(np.int64))[None]
        with torch.no_grad():
            scores.append(model(input_ids=ids).logits.item() - model.config.reward_shift)
    assert abs(np.mean(scores)) < 1e-3
    assert np.std(scores) > 0.01
    assert AutoTokenizer.from_pretrained(folder).pad_token_id == model.config.pad_token_id


def test_dpo_widens_the_margin_and_says_both_log_probabilities(dpo_run: Report) -> None:
    lines = [line for line in history(dpo_run.folder) if "demo/margin" in line]
    last = lines[-1]
    assert history(dpo_run.folder)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert last["demo/accuracy"] > 0.7
    assert last["demo/margin"] > lines[0]["demo/margin"] / 2 > 0
    for line in lines:
        gap = (line["demo/chosen"] - line["demo/chosen_reference"]) - (
            line["demo/rejected"] - line["demo/rejected_reference"]
        )
        assert 0.1 * gap == pytest.approx(line["demo/margin"], abs=1e-3)
    assert len({line["demo/chosen_reference"] for line in lines}) == 1
    samples = [json.loads(line) for line in (dpo_run.folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == len(lines)
    model = AutoModelForCausalLM.from_pretrained(dpo_run.folder)
    assert type(model).__name__ == json.loads((dpo_run.folder / "config.json").read_text())["architectures"][0]
    assert type(model).__name__ == "GPT2LMHeadModel"


@pytest.mark.parametrize("objective", ["reward", "dpo"])
def test_interrupted_is_whole(
    ranked: Workspace, request: pytest.FixtureRequest, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Report = request.getfixturevalue(f"{objective}_run")
    prompts = {"sample_prompts": ("茶？",)} if objective == "dpo" else {}
    done = 0

    def stop(*_: Any, **__: Any) -> None:
        nonlocal done
        done += 1
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("corpus.train.run.trainer.CorpusTrainer._compare", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(ranked, objective, f"{objective}-again", **prompts)
    monkeypatch.undo()
    again = trained(ranked, objective, f"{objective}-again", **prompts)
    assert again.details["resumed_from"] > 0
    assert history(again.folder) == history(whole.folder)
    for name in ("model.safetensors", "config.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_the_reference_is_computed_once_and_goes_on_where_it_was(
    ranked: Workspace, dpo_run: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = (dpo_run.folder / dpo.REFERENCE).iterdir()
    seen = 0
    real = predict.of_items

    def counted(network: Any, items: Any, *others: Any) -> Any:
        nonlocal seen
        seen += len(items)
        return real(network, items, *others)

    monkeypatch.setattr(predict, "of_items", counted)
    copy = ranked.models / "other"
    shutil.copytree(dpo_run.folder / dpo.REFERENCE, copy / dpo.REFERENCE)
    (copy / "run.json").write_bytes((dpo_run.folder / "run.json").read_bytes())
    file = copy / dpo.REFERENCE / place.name / "train-0-of-1.npy"
    values = np.load(file)
    values[:20] = np.nan
    np.save(file, values)
    monkeypatch.setattr("corpus.train.run.stage.log_startup", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(ranked, "dpo", "other", sample_prompts=("茶？",))
    assert 5 <= seen <= 10  # the questions of these twenty answers, of 144
    np.testing.assert_allclose(np.load(file), np.load(place / file.name), rtol=1e-5)


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_from_random_weights_and_two_datasets(ranked: Workspace) -> None:
    report = trained(ranked, "reward", "scratch", init=None, model="tiny", datasets=(), max_steps=2)
    assert report.ledger.counts["mixture"].keys() == {"demo", "wiki2019zh"}
    config = json.loads((report.folder / "config.json").read_text())
    assert (config["n_positions"], config["resid_pdrop"]) == (48, 0.0)
    for objective in ("reward", "dpo"):
        config = TrainConfig(objective=objective, init=ranked.models / "start", **(SETTINGS | {"datasets": ()}))
        forecast = dry_run.run(config, ranked)
        assert forecast.steps == 28
        assert forecast.row_bytes > 0


def test_what_cannot_be_trained_on_is_named(ranked: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="news2016zh is not packed"):
        trained(ranked, "reward", "none", datasets=("news2016zh",))
    other = Workspace(tmp_path / "w")
    shutil.copytree(ranked.tokenizer, other.tokenizer)
    with pytest.raises(WorkspaceError, match="holds no rankings"):
        trained(other, "reward", "none", datasets=(), init=ranked.models / "start")
    lay_rankings(other, "demo", {"test": toy(3, seed=5)})
    with pytest.raises(TrainError, match="there is no question to train on"):
        trained(other, "dpo", "none", init=ranked.models / "start")
    short = shutil.copytree(ranked.models / "start", tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"n_positions": 4}))
    with pytest.raises(TrainError, match="takes 4 tokens at once") as caught:
        trained(ranked, "dpo", "none", init=short)
    assert caught.value.hint == "Run `corpus pack --form ranking --seq-length 4` first."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": "dpo"}, "--objective dpo needs --init"),
        ({"objective": "reward", "beta": 0.2}, "--beta must stand with --objective dpo"),
        ({"objective": "dpo", "init": Path("x"), "beta": 0.0}, "--beta must be greater than 0"),
        ({"objective": "reward", "sample_prompts": ("问",)}, "--sample-prompt must not stand with --objective reward"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TrainConfig(**settings)
