"""`corpus train` and `corpus evaluate` before they train or measure: presets, forecasts, names of runs, interrupts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from corpus.pipeline.humanize import size_text
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.evaluation import stage as evaluation
from corpus.train.presets import PRESETS
from tests.support.command import corpus
from tests.support.families import save_config
from tests.support.packed import lay_all


def test_presets_with_batch_rate_and_memory(tmp_path: Path) -> None:
    text = corpus("train", "--list-models", folder=tmp_path).stdout
    for name, preset in PRESETS.items():
        cells = re.split(r" {2,}", next(line for line in text.splitlines() if line.split()[:1] == [name]).strip())
        assert cells[5:7] == [f"{preset.batch_size:,}", f"{preset.muon_rate or preset.learning_rate:.3g}"]
        assert cells[7:] == [f"{preset.parameters() / 1e6:,.1f} M", size_text(preset.memory())]
    assert "memory: of a step with one row in a pass" in text
    listed = json.loads(corpus("train", "--list-models", "--json", folder=tmp_path).stdout)
    assert [each["name"] for each in listed] == list(PRESETS)
    for each, preset in zip(listed, PRESETS.values(), strict=True):
        assert (each["parameters"], each["batch_size"]) == (preset.parameters(), preset.batch_size)
        assert each["fixed_bytes"] + 3 * each["row_bytes"] == preset.memory(rows=3)


def test_rows_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    remote = (
        "train",
        "--model",
        "tiny",
        "--rows",
        workspace.root,
        "--cache",
        tmp_path / "cache",
        "--dry-run",
        "--json",
    )
    first = corpus(*remote, "--cache-bytes", "0.5G", folder=tmp_path)
    assert f"from {workspace.root}" in first.stderr  # a fetch can take hours
    assert list(json.loads(first.stdout)["mixture"]) == ["demo", "wiki2019zh"]
    one = json.loads(corpus(*remote, "--dataset", "demo", folder=tmp_path).stdout)
    assert list(one["mixture"]) == ["demo"]
    failed = corpus(*remote, "--dataset", "mine", folder=tmp_path, code=1)
    assert f"{workspace.root}/packed/mine/ledger.json is not there" in failed.stderr
    assert "--cache-bytes" in corpus(*remote, "--cache-bytes", "much", folder=tmp_path, code=2).stderr


@pytest.mark.parametrize("name", ["tiny", "llama-tiny"])
def test_a_forecast_as_json_and_as_a_table(workspace: Workspace, name: str) -> None:
    lay_all(workspace)
    given = ("train", "--model", name, "--dry-run", "--device-rate", "1T", "--workspace", workspace.root)
    forecast = json.loads(corpus(*given, "--json", folder=workspace.root).stdout)
    tiny = PRESETS[name]
    assert forecast["run"].startswith(f"{name}-")
    assert forecast["parameters"] == tiny.parameters(vocab_size=400, context=48)
    assert forecast["fixed_bytes"] + forecast["row_bytes"] == tiny.memory(vocab_size=400, context=48)
    assert forecast["seconds"] == pytest.approx(forecast["flops"] / 1e12)
    assert set(forecast["mixture"]) == {"demo", "wiki2019zh"}
    text = corpus(*given, folder=workspace.root).stdout
    for words in (f"{forecast['parameters']:,}", size_text(forecast["row_bytes"]), "10 of 4 rows of 48 tokens"):
        assert words in text


def test_a_shape_by_its_config(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    save_config(tmp_path, "qwen3")
    given = ("train", "--dry-run", "--json", "--workspace", workspace.root, "--model")
    forecasts = [json.loads(corpus(*given, path, folder=tmp_path).stdout) for path in ("config.json", ".", tmp_path)]
    assert forecasts[0] == forecasts[1] == forecasts[2]
    assert forecasts[0]["run"].startswith("qwen3-")
    assert forecasts[0]["batch_size"] == PRESETS["tiny"].batch_size
    for other in ("other.json", "~nobody-of-this-name/config.json", "x" * 300):
        said = " ".join(corpus(*given, other, folder=tmp_path, code=2).stderr.split())
        assert "--model must be one of tiny, mini, " in said
        assert f", or a config.json, is {other}" in said
    assert "holds no config.json" in corpus(*given, workspace.root, folder=tmp_path, code=1).stderr


@pytest.mark.parametrize(
    ("command", "flag"),
    [(("evaluate",), "--model"), (("sample",), "--model"), (("train",), "--init"), (("train",), "--reward")],
)
def test_a_name_that_is_no_run_lists_the_runs(workspace: Workspace, command: tuple[str, ...], flag: str) -> None:
    given = (*command, flag, "nope", "--workspace", workspace.root)
    assert "There is no run yet." in corpus(*given, folder=workspace.root.parent, code=1).stderr
    for name in ("second", "first"):
        (workspace.models / name).mkdir(parents=True)
    said = corpus(*given, folder=workspace.root.parent, code=1).stderr
    assert f"there is no run nope in {workspace.models}, and no folder of this name" in said
    assert f"Give {flag} one of the runs first, second, or a model's folder." in said


@pytest.mark.parametrize("flag", ["--dataset", "--ptx-dataset"])
def test_an_unknown_dataset_is_refused_by_its_flag(workspace: Workspace, flag: str) -> None:
    (workspace.models / "one").mkdir(parents=True)
    given = ("train", "--objective", "ppo", "--init", "one", "--reward", "one", flag, "nope")
    said = corpus(*given, "--workspace", workspace.root, folder=workspace.root, code=2).stderr
    assert f"{flag} nope: must be one of " in said


def test_an_interrupted_evaluation_is_not_to_be_run_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (workspace.models / "one").mkdir(parents=True)
    monkeypatch.setattr(evaluation, "run", interrupted)
    done = corpus("evaluate", "--model", "one", "--workspace", workspace.root, folder=workspace.root, code=130)
    assert done.stderr.endswith("\nInterrupted.\n")
