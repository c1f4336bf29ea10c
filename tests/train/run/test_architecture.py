"""A run of a config.json's shape: trained, resumed, forecast, started from, measured and sampled as any other."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from corpus.generate.config import SampleConfig
from corpus.generate.stage import run as sample
from corpus.pipeline.errors import ModelError, TrainError
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Report
from corpus.train.config import TrainConfig
from corpus.train.run import dry_run
from corpus.train.run.defaults import resolve
from corpus.train.run.stage import run
from tests.support.documents import Listener
from tests.support.families import save_config
from tests.support.packed import lay_all
from tests.support.runs import SETTINGS, history

GIVEN: dict[str, Any] = SETTINGS | {"model": "", "epochs": 1.0, "sample_prompts": ("春天",), "dropout": 0.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, Report, Listener]:
    """A finished run of a small Qwen3."""
    folder = tmp_path_factory.mktemp("shape")
    workspace, listener = lay_all(Workspace(folder / "workspace")), Listener()
    path = save_config(folder, "qwen3")
    return workspace, path, run(TrainConfig(**GIVEN, architecture=path), workspace, progress=listener), listener


def test_its_folder_says_what_it_is(trained: tuple[Workspace, Path, Report, Listener]) -> None:
    workspace, path, report, listener = trained
    ledger = report.ledger
    assert report.folder.name == f"qwen3-{ledger.fingerprint[:6]}"
    names = ("model", "family", "layers", "width", "heads", "dropout")
    assert [ledger.config[name] for name in names] == ["qwen3", "qwen3", 2, 32, 4, 0.1]
    assert ledger.inputs[-1].sha256 == workspace.digest(path)
    assert str(path.parent) not in ledger.to_json().decode()
    model = AutoModelForCausalLM.from_pretrained(report.folder)
    assert isinstance(model, Qwen3ForCausalLM)
    assert (model.config.max_position_embeddings, model.config.vocab_size) == (48, 400)
    assert model.num_parameters() == ledger.counts["parameters"]
    assert f"A qwen3 model of {ledger.counts['parameters']:,} parameters" in (report.folder / "README.md").read_text()
    assert (report.folder / "samples.jsonl").stat().st_size
    losses = [line["loss"] for line in history(report.folder) if "loss" in line]
    assert losses[-1] < losses[0]
    assert not any("in its paper" in line for line in listener.said)


def test_a_rerun_is_skipped_and_a_broken_one_resumes_to_the_same_bytes(
    trained: tuple[Workspace, Path, Report, Listener], tmp_path: Path
) -> None:
    workspace, path, report, _ = trained
    config = TrainConfig(**GIVEN, architecture=path.parent)
    assert run(config, workspace).skipped
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    folder = other.models / report.folder.name
    for name in (LEDGER, "model.safetensors"):
        (folder / name).unlink()
    shutil.rmtree(max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])))
    again = run(config, other)
    assert again.details["resumed_from"] == 4
    for name in ("model.safetensors", "metrics.jsonl", "samples.jsonl", LEDGER):
        assert (folder / name).read_bytes() == (report.folder / name).read_bytes()


def test_a_dry_run_counts_the_same(trained: tuple[Workspace, Path, Report, Listener]) -> None:
    workspace, path, report, _ = trained
    forecast = dry_run.run(TrainConfig(**GIVEN, architecture=path), workspace)
    assert forecast.run == report.folder.name
    assert forecast.parameters == report.ledger.counts["parameters"]
    assert forecast.steps == report.ledger.counts["steps"]


def test_it_is_sampled_past_its_context_and_trained_on(trained: tuple[Workspace, Path, Report, Listener]) -> None:
    workspace, _, report, _ = trained
    config = SampleConfig(prompts=("春天的雨", ""), max_new_tokens=60, num_samples=4, seed=3)
    together = sample(config, report.folder, device="cpu")
    alone = sample(dataclasses.replace(config, batch_size=1), report.folder, device="cpu")
    assert [each.text for each in together] == [each.text for each in alone]
    assert max(each.finish.prompt_tokens + each.finish.tokens for each in together) > 48
    further = run(TrainConfig(**GIVEN | {"max_steps": 1}, init=report.folder, run="further"), workspace)
    assert further.ledger.counts["parameters"] == report.ledger.counts["parameters"]


def test_defaults_are_those_of_a_preset_of_its_size(tmp_path: Path) -> None:
    path = save_config(tmp_path, "llama", hidden_size=512, num_hidden_layers=6, intermediate_size=1536)
    config, said = resolve(TrainConfig(architecture=path))
    assert (config.model, config.batch_size, config.learning_rate, config.epochs) == ("mini", 16, 6e-4, 1.0)
    assert said == (
        "16 rows a step, a learning rate of 0.0006, 1 epochs, for a model like mini: --batch-size, --learning-rate, "
        "--epochs for others"
    )
    assert resolve(TrainConfig(architecture=path, objective="sft"))[0].learning_rate == 6e-4
    with pytest.raises(ValueError, match="--init has a shape of its own"):
        TrainConfig(architecture=path, init=tmp_path)


def test_a_family_that_leaks_is_refused_before_anything_is_written(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    path = save_config(tmp_path, "gpt_oss")
    with pytest.raises(TrainError, match=r"GptOssForCausalLM of transformers .* makes no mask from the positions"):
        run(TrainConfig(**GIVEN, architecture=path), workspace)
    with pytest.raises(ModelError, match="a token of BertLMHeadModel sees those after it"):
        run(TrainConfig(**GIVEN, architecture=save_config(tmp_path, "bert")), workspace)
    assert not workspace.models.exists()
