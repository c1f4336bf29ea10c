"""Runs of the objective `ppo`: what they write, that an interruption or a second process changes nothing, what is
refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from corpus.pipeline.errors import CorpusError, ModelError, TokenizerError, TrainError, WorkspaceError
from corpus.pipeline.tokenizer.special_tokens import PAD
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, read_ledger
from corpus.train.config import TrainConfig
from corpus.train.run import defaults, dry_run, stage
from corpus.train.run import plan as plans
from corpus.train.run.ppo import PPOObjective
from tests.support.packed import lay_packed, make_tokenizer, random_segments
from tests.support.policies import lay_reward_model
from tests.support.rankings import ids_of, lay_rankings, ranking
from tests.support.runs import history
from tests.support.training import start_several

SETTINGS: dict[str, Any] = {
    "datasets": ("demo",), "max_steps": 5, "batch_size": 6, "micro_batch_size": 3, "learning_rate": 3e-3,
    "log_steps": 2, "eval_steps": 2, "eval_rows": 5, "save_steps": 3, "max_new_tokens": 5, "threads": 1,
    "device": "cpu", "precision": "fp32",
}  # fmt: skip
PTX: dict[str, Any] = {"ptx_datasets": ("news2016zh",), "minibatches": 2, "sample_prompts": ("茶？",)}
STEP_FIGURES = {
    "score", "reward", "kl", "kl_k3", "length", "ended", "entropy", "sampling_gap", "explained_variance",
    "policy_loss", "value_loss", "clip_fraction",
}  # fmt: skip


def settings_of(workspace: Workspace, **changes: Any) -> dict[str, Any]:
    return {"init": workspace.models / "start", "reward": workspace.models / "rm"} | SETTINGS | changes


def trained(workspace: Workspace, run: str, **changes: Any) -> Report:
    return stage.run(TrainConfig(objective="ppo", run=run, **settings_of(workspace, **changes)), workspace)


@pytest.fixture(scope="module")
def judged(ranked: Workspace) -> Workspace:
    """With a reward model and rows of documents."""
    lay_reward_model(ranked)
    lay_packed(ranked, "news2016zh", {"train": random_segments(7, seed=8)})
    return ranked


@pytest.fixture(scope="module")
def ppo_run(judged: Workspace) -> Report:
    return trained(judged, "ppo", **PTX)


def test_a_run_says_what_its_answers_are_worth(judged: Workspace, ppo_run: Report) -> None:
    lines = history(ppo_run.folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [2, 3, 4, 5]
    assert all(STEP_FIGURES | {"ptx_loss"} <= line.keys() for line in steps)
    assert max(line["sampling_gap"] for line in steps) < 1e-4
    assert steps[-1]["kl_k3"] > 1e-6
    evaluated = [line for line in lines if "rlhf_reward" in line]
    assert [line["step"] for line in evaluated] == [2, 4, 5]
    for line in evaluated:
        assert line["rlhf_reward"] == pytest.approx(line["demo/reward"] - 0.02 * line["demo/kl"], abs=1e-5)
        assert line["demo/prompts"] == 5
    counts = ppo_run.ledger.counts
    assert counts["prompts"] == {"train": 96, "validation": 24, "test": 24}
    assert counts["reference"]["validation"]["demo"]["kl"] == 0.0
    assert counts["test"]["demo"].keys() == counts["reference"]["test"]["demo"].keys()
    card = (ppo_run.folder / "README.md").read_text()
    assert "| demo | test | reference |" in card
    assert "rows of news2016zh beside them" in card
    names = {path.name for path in ppo_run.folder.iterdir()}
    assert {"ppo.png", "curves.png", "best", "samples.jsonl", "tokenizer.json"} <= names
    assert trained(judged, "ppo", **PTX).skipped


def test_figures_of_the_end_are_those_of_an_evaluation_in_half_precision(judged: Workspace) -> None:
    """A policy that learns nothing is its reference: in the same precision they say exactly the same."""
    still = {"learning_rate": 1e-20, "weight_decay": 0.0, "precision": "bf16", "max_steps": 1, "eval_rows": 0}
    counts = trained(judged, "still", **still).ledger.counts
    assert counts["test"] == counts["reference"]["test"]
    assert counts["test"]["demo"]["kl"] == counts["test"]["demo"]["kl_k3"] == 0.0
    assert counts["validation"] == counts["reference"]["validation"]


def test_another_mask_of_the_pre_training_rows_is_another_run(judged: Workspace) -> None:
    ids = {}
    for mask in (True, False):
        settings = settings_of(judged, document_mask=mask, **PTX)
        config, _ = defaults.resolve(TrainConfig(objective="ppo", **settings))
        ids[mask] = plans.make(config, judged, PPOObjective(config, judged)).identity
    assert ids[True] != ids[False]


def test_the_value_model_is_in_checkpoints_alone(ppo_run: Report) -> None:
    held = {}
    for place in ("", "best", "checkpoint-5"):
        model, report = AutoModelForCausalLM.from_pretrained(ppo_run.folder / place, output_loading_info=True)
        assert type(model).__name__ == "GPT2LMHeadModel"
        assert not report["missing_keys"]
        with safe_open(ppo_run.folder / place / "model.safetensors", "pt") as file:
            held[place] = [name for name in file.keys() if name.startswith("critic.")]  # noqa: SIM118  # no mapping
    assert not held[""]
    assert not held["best"]
    assert held["checkpoint-5"]
    assert ppo_run.ledger.counts["parameters"] == model.num_parameters()
    assert model.get_input_embeddings().weight.shape[0] == make_tokenizer().get_vocab_size()


def test_interrupted_is_whole(judged: Workspace, ppo_run: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = PPOObjective.learn, 0

    def stop(self: PPOObjective, *given: Any) -> float:
        nonlocal done
        done += 1
        if done == 5:  # after the checkpoint of step 3 and the evaluation of step 4
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(PPOObjective, "learn", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(judged, "ppo-again", **PTX)
    monkeypatch.undo()
    again = trained(judged, "ppo-again", **PTX)
    assert again.details["resumed_from"] == 3
    assert history(again.folder) == history(ppo_run.folder)
    for name in ("model.safetensors", "config.json", "samples.jsonl", "best/model.safetensors"):
        assert (again.folder / name).read_bytes() == (ppo_run.folder / name).read_bytes()


def test_two_processes_give_the_figures_of_one(judged: Workspace, tmp_path: Path) -> None:
    """Of three episodes a step one process has two and the other one, of
    which a minibatch can be empty.
    """
    other = Workspace(tmp_path / "other")
    for part in ("tokenizer", "ranking", "packed", "models/start", "models/rm"):
        shutil.copytree(judged.root / part, other.root / part)
    changes: dict[str, Any] = {"batch_size": 3, "max_steps": 3, "minibatches": 3, "log_steps": 1, "save_steps": 9}
    changes |= {"ptx_datasets": ("news2016zh",), "eval_rows": 3}
    flags = settings_of(other, **changes) | {"objective": "ppo", "run": "two", "architecture": None}
    process = start_several(flags, other, processes=2)
    one = trained(judged, "two", **changes)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    two = read_ledger(other.models / "two")
    assert two
    assert two.fingerprint == one.ledger.fingerprint
    for mine, theirs in zip(history(one.folder), history(other.models / "two"), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"sampling_gap"}:
            assert theirs[name] == pytest.approx(mine[name], rel=2e-3, abs=2e-4), name


def test_a_long_prompt_is_left_out_and_shortens_no_other_answer(judged: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "w")
    shutil.copytree(judged.tokenizer, other.tokenizer)
    long, short = (ranking(question, ["茶好", "茶坏"]) for question in ("春雨早石书窗猫尾山灯船茶" * 3, "茶？"))
    lay_rankings(other, "demo", {"train": [long, short, short], "validation": [short, long], "test": [long]})
    lay_rankings(other, "wiki2019zh", {"train": [long], "validation": [short]})
    lay_rankings(other, "news2016zh", {"train": [short, long, short]})
    settings = settings_of(judged, max_new_tokens=None, datasets=("demo", "wiki2019zh", "news2016zh"))
    objective = PPOObjective(TrainConfig(objective="ppo", **settings), other)
    assert objective.limits.tokens == 23  # half of the 47 that the reward model leaves
    assert objective.rows == {"demo": 2, "news2016zh": 2}
    asked = [0, *short.question]
    assert [prompt.tolist() for prompt in objective.train.__getitems__(np.arange(4))] == [asked] * 4
    assert objective.tokens.tolist() == [len(asked)] * 4
    assert {name: len(own) for name, own in objective.validation.items()} == {"demo": 1, "wiki2019zh": 1}
    assert not objective.test
    assert objective.seq_length == len(asked) + 23
    assert list(objective.notes()) == [
        "5 prompts are left out: the context of 47 tokens has no room for an answer of 23 after them"
    ]


def test_without_a_question_the_prompt_is_the_beginning_of_the_best_answer(judged: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "w")
    shutil.copytree(judged.tokenizer, other.tokenizer)
    lay_rankings(other, "demo", {"train": [ranking("", ["他把书合上，听见窗外", "雨"]), ranking("", ["茶", "雨"])]})
    objective = PPOObjective(TrainConfig(objective="ppo", **settings_of(judged, prompt_tokens=3)), other)
    first, second = objective.train.__getitems__([0, 1])
    assert first.tolist() == [0, *ids_of("他把书合上，听见窗外")[:3]]
    assert second.tolist() == [0, *ids_of("茶")]  # two tokens, never the end
    assert objective.settings["chat"] is False
    asked = PPOObjective(TrainConfig(objective="ppo", **settings_of(judged)), judged)
    assert asked.settings["chat"] is True
    assert make_tokenizer().token_to_id(PAD) in asked.limits.banned


def test_a_dry_run_says_what_each_network_takes(judged: Workspace) -> None:
    forecast = dry_run.run(TrainConfig(objective="ppo", **settings_of(judged, **PTX)), judged)
    named = [name for name, _ in forecast.lines()]
    for network in ("policy", "value model", "reference", "reward model"):
        assert f"memory of the {network}" in named
    assert sum(forecast.fixed_parts.values()) == forecast.fixed_bytes
    assert forecast.fixed_parts["policy"] == 4 * forecast.fixed_parts["reference"]
    assert forecast.row_bytes > 0


def test_fsdp_is_refused(judged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainError, match="FSDP cuts it"):
        PPOObjective(TrainConfig(objective="ppo", **settings_of(judged)), judged)


def test_what_cannot_be_trained_on_is_named(judged: Workspace, tmp_path: Path) -> None:
    def refused(error: type[CorpusError], says: str, **changes: Any) -> str:
        with pytest.raises(error, match=says) as caught:
            trained(judged, "none", **changes)
        assert not (judged.models / "none").exists()
        return caught.value.hint

    hint = refused(ModelError, "is no reward model", reward=judged.models / "start")
    assert hint == "Give --reward a run of `corpus train --objective reward`."
    lay_reward_model(judged, "other")
    tokenizer = judged.models / "other" / "tokenizer.json"
    tokenizer.write_text(make_tokenizer(copies=5).to_str())
    assert "--reward" in refused(TokenizerError, "are different tokenizers", reward=tokenizer.parent)
    hint = refused(
        TrainError, "prompts of 7 tokens and more and answers of 99 do not fit into the 47", max_new_tokens=99
    )
    assert "--max-new-tokens" in hint
    lay_reward_model(judged, "short", n_positions=6)
    hint = refused(TrainError, "do not fit into the 5 that", reward=judged.models / "short", max_new_tokens=None)
    assert hint == "Run `corpus pack --form ranking --seq-length 5` first."
    refused(WorkspaceError, "wiki2019zh is not packed", ptx_datasets=("wiki2019zh",))
    short = shutil.copytree(judged.models / "start", tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"n_positions": 40}))
    hint = refused(TrainError, "takes 40 tokens at once, the rows of news2016zh have 48", init=short,
                   ptx_datasets=("news2016zh",))  # fmt: skip
    assert hint == "Run `corpus pack --seq-length 40` first."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objective": "ppo", "reward": Path("x")}, "--objective ppo needs --init RUN"),
        ({"objective": "ppo", "init": Path("x")}, "--objective ppo needs --reward RUN"),
        ({"objective": "dpo", "init": Path("x"), "kl_coef": 0.1}, "--kl-coef must stand with --objective ppo"),
        ({"ptx_datasets": ("demo",)}, "--ptx-dataset must stand with --objective ppo"),
        ({"objective": "ppo", "ptx_coef": 1.0}, "--ptx-coef and --ptx-rows must stand with --ptx-dataset"),
        ({"objective": "ppo", "ptx_datasets": ("demo=2",)}, "--ptx-dataset must name each dataset once"),
        ({"objective": "ppo", "dropout": 0.1}, "--dropout must be 0"),
        ({"objective": "ppo", "optimizer": "muon"}, "--optimizer must be adamw"),
        ({"objective": "ppo", "kl_coef": -1.0}, "--kl-coef must not be negative"),
        ({"objective": "ppo", "inner_epochs": 0}, "--inner-epochs must be at least 1"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], says: str) -> None:
    both = (
        {"init": Path("x"), "reward": Path("x")} if "needs" not in says and settings.get("objective") == "ppo" else {}
    )
    with pytest.raises(ValueError, match=says):
        TrainConfig(**both | settings)
