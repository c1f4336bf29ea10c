"""Fine-tuning through the stage: it learns, resumes, shares out, and its folder says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from corpus.pipeline.cli.main import main
from corpus.pipeline.errors import CorpusError, ModelError, TaskError, TrainError, WorkspaceError
from corpus.pipeline.tasks import load, read
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, read_ledger
from corpus.train.config import TrainConfig
from corpus.train.run import dry_run
from corpus.train.run.defaults import resolve
from corpus.train.run.stage import run
from corpus.train.tasks.saved import TaskModel
from tests.support.packed import lay_all
from tests.support.runs import Recorder, history
from tests.support.task_items import KINDS, toy_records, write_task
from tests.train.run.conftest import narrow  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("narrow")
COUNTS = {"train": 96, "validation": 40, "test": 40}
SETTINGS: dict[str, Any] = {
    "objective": "task", "model": "tiny", "batch_size": 16, "micro_batch_size": 8, "learning_rate": 3e-3,
    "log_steps": 3, "save_steps": 4, "eval_steps": 5, "threads": 1, "run": "toy",
}  # fmt: skip


def config_of(path: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**SETTINGS | {"task": str(path)} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> tuple[Workspace, Path, Report, Recorder]:  # noqa: F811  # the fixture
    """A run of three epochs; it is only read."""
    root = tmp_path_factory.mktemp("toy")
    workspace = lay_all(Workspace(root / "workspace"))
    task = write_task(root, toy_records(COUNTS))
    recorder = Recorder()
    report = run(config_of(task, epochs=6.0), workspace, progress=recorder)
    return workspace, task, report, recorder


def test_it_learns_which_words_decide(trained: tuple[Workspace, Path, Report, Recorder]) -> None:
    """A majority would have a half, a network that reads nothing as well."""
    counts = trained[2].ledger.counts
    assert counts["best"]["validation"]["toy"]["accuracy"] >= 0.9
    assert counts["validation"]["toy"]["mcc"] > 0.7
    matrix = np.array(counts["best"]["validation"]["toy"]["confusion"])
    assert (matrix.sum(), matrix.shape) == (40, (2, 2))
    best = json.loads((trained[2].folder / "best" / "config.json").read_text())
    assert (best["architectures"], best["id2label"]) == (["GPT2ForSequenceClassification"], {"0": "neg", "1": "pos"})


def test_the_best_is_the_first_largest(trained: tuple[Workspace, Path, Report, Recorder]) -> None:
    lines = [line for line in history(trained[2].folder) if "accuracy" in line]
    assert {"toy/loss", "toy/accuracy", "toy/macro_f1", "toy/mcc", "toy/confusion"} <= set(lines[0])
    best = max(line["accuracy"] for line in lines)
    first = next(line["step"] for line in lines if line["accuracy"] == best)
    assert trained[2].ledger.counts["best"]["step"] == first
    model = TaskModel.open(trained[2].folder / "best")
    items = read(load(str(trained[1])), None, "validation")
    right = model.logits(model.encoded(items)).argmax(1) == [item.label for item in items]
    assert right.mean() == pytest.approx(best)


def test_the_folder_says_what_it_is(trained: tuple[Workspace, Path, Report, Recorder]) -> None:
    from huggingface_hub import ModelCard
    from PIL import Image

    _, task, report, recorder = trained
    ledger = report.ledger
    assert [entry.path for entry in ledger.inputs] == ["task/toy.toml", "data/toy.jsonl", "tokenizer/tokenizer.json"]
    assert str(task.parent) not in ledger.to_json().decode()
    assert (ledger.config["task"], ledger.config["kind"], ledger.config["schedule"]) == (
        "toy",
        "classification",
        "linear",
    )
    assert ledger.counts["items"] == {"train": 96, "validation": 40}
    outputs = {entry.path for entry in ledger.outputs}
    assert {"task.json", "confusion.png", "curves.png", "README.md", "best/task.json", "best/tokenizer.json"} <= outputs
    card = ModelCard.load(report.folder / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "text-classification"
    assert f"best, step {ledger.counts['best']['step']}" in card.text
    for name in ("confusion.png", "curves.png"):
        with Image.open(report.folder / name) as image:
            assert len(image.getcolors(1 << 20) or []) > 10
    said = "\n".join(recorder.said)
    assert "96 items of toy" in said
    assert "36 steps of 16 items" in said


def test_interrupted_is_whole(trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path) -> None:
    """Ctrl-C between two checkpoints, after an evaluation that the resumed run repeats."""

    class Interrupting(Recorder):
        def advance(self, amount: int) -> None:
            super().advance(amount)
            if self.done == 11:
                raise KeyboardInterrupt

    whole, task, report, _ = trained
    other = Workspace(shutil.copytree(whole.root, tmp_path / "other", ignore=shutil.ignore_patterns("models")))
    with pytest.raises(KeyboardInterrupt):
        run(config_of(task, epochs=6.0), other, progress=Interrupting())
    assert read_ledger(other.models / "toy") is None
    resumed = run(config_of(task, epochs=6.0), other)
    assert resumed.details["resumed_from"] == 8
    for name in ("model.safetensors", "best/model.safetensors", "metrics.jsonl", "ledger.json", "README.md"):
        assert (resumed.folder / name).read_bytes() == (report.folder / name).read_bytes(), name
    assert run(config_of(task, epochs=6.0), other).skipped


def test_seeds_decide(trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path) -> None:
    workspace = Workspace(shutil.copytree(trained[0].root, tmp_path / "w", ignore=shutil.ignore_patterns("models")))
    one, other = (
        history(run(config_of(trained[1], max_steps=1, log_steps=1, seed=seed, run=str(seed)), workspace).folder)
        for seed in (1, 2)
    )
    assert one[0]["loss"] != other[0]["loss"]


def test_early_stop_is_by_the_tasks_metric(trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path) -> None:
    """With a rate of next to nothing no evaluation is better than the first."""
    workspace = Workspace(shutil.copytree(trained[0].root, tmp_path / "w", ignore=shutil.ignore_patterns("models")))
    settings = {"learning_rate": 1e-9, "eval_steps": 1, "early_stop": 2, "run": "stopped"}
    report = run(config_of(trained[1], **settings), workspace)
    assert (report.ledger.counts["steps"], report.ledger.counts["best"]["step"]) == (3, 1)


def test_tuning_goes_on_from_a_model(trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path) -> None:
    """A run on packed rows: its weights are there, new rows are at the end, and its tokenizer is taken from it."""
    workspace = Workspace(shutil.copytree(trained[0].root, tmp_path / "w", ignore=shutil.ignore_patterns("models")))
    base = run(TrainConfig(model="tiny", max_steps=2, batch_size=8, threads=1, run="base"), workspace)
    shutil.rmtree(workspace.tokenizer)
    settings = {"init": base.folder, "max_steps": 1, "learning_rate": 1e-12, "run": "tuned"}
    report = run(config_of(trained[1], **settings), workspace)
    assert [entry.path for entry in report.ledger.inputs][-2:] == ["init/config.json", "init/model.safetensors"]
    before = AutoModelForCausalLM.from_pretrained(base.folder)
    after = TaskModel.open(report.folder).network
    assert len(after.transformer.wte.weight) == len(before.transformer.wte.weight) + 3
    assert torch.allclose(after.transformer.wte.weight[:-3], before.transformer.wte.weight, atol=1e-6)
    assert torch.allclose(after.transformer.h[1].mlp.c_fc.weight, before.transformer.h[1].mlp.c_fc.weight, atol=1e-6)
    assert (after.config.n_positions, report.ledger.config["context"]) == (48, 48)
    again = run(config_of(trained[1], **settings | {"init": report.folder, "run": "again"}), workspace)
    assert again.ledger.config["vocab_size"] == len(after.transformer.wte.weight)  # its tokens are there already


def test_each_kind_runs_and_says_how_it_is_opened(
    trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path
) -> None:
    workspace = Workspace(shutil.copytree(trained[0].root, tmp_path / "w", ignore=shutil.ignore_patterns("models")))
    words = {"similarity": "two passes give the logits", "choice": "no class for multiple choice",
             "entailment": '"text_pair": hypothesis'}  # fmt: skip
    for kind, said in words.items():
        fields, labels = KINDS[kind]["fields"], KINDS[kind]["labels"]
        records = [
            {name: f"{'春雨早石'[number % 4]}{name[0]}" for name in fields if name != "options"}
            | ({"options": ["山", "灯船", "茶"][: 2 + number % 2]} if kind == "choice" else {})
            | {"id": f"{split}{number}", "split": split, "label": labels[number % 2] if labels else number % 2}
            for split in ("train", "validation") for number in range(6)
        ]  # fmt: skip
        task = write_task(tmp_path, records, kind=kind, name=kind, splits=("train", "validation"))
        report = run(config_of(task, max_steps=1, run=kind, batch_size=4), workspace)
        assert said in (report.folder / "README.md").read_text()
        items = read(load(str(task)), None, "validation")
        model = TaskModel.open(report.folder)
        assert model.logits(model.encoded(items)).shape == (6, 3 if kind != "similarity" else 2)
    only = run(config_of(tmp_path / "similarity.toml", max_steps=1, run="one", one_order=True), workspace)
    assert "pipeline(" in (only.folder / "README.md").read_text()
    assert only.ledger.config["both_orders"] is False


def test_gpts_recipe_is_the_default() -> None:
    """117 M parameters: 6.25e-5, a quarter of 2.5e-4. A smaller model keeps the share."""
    for preset, rate in (("gpt", 6.25e-5), ("tiny", 2.5e-4)):
        config, said = resolve(TrainConfig(objective="task", task="ocnli", model=preset))
        assert config.learning_rate == pytest.approx(rate)
        assert (config.epochs, config.batch_size, config.warmup) == (3.0, 32, 0.002)
        assert (config.schedule, config.decay_to, config.eval_rows, config.aux_lm) == ("linear", 0.0, 0, 0.5)
        assert "32 items a step" in said
    given = resolve(TrainConfig(objective="task", task="ocnli", schedule="cosine", epochs=1.0, eval_rows=5))[0]
    assert (given.schedule, given.epochs, given.eval_rows) == ("cosine", 1.0, 5)


def test_a_dry_run_counts_the_head(trained: tuple[Workspace, Path, Report, Recorder]) -> None:
    forecast = dry_run.run(config_of(trained[1], run="planned"), trained[0])
    assert forecast.parameters == trained[2].ledger.counts["parameters"]
    assert (forecast.steps, forecast.mixture["toy"]["rows"]) == (18, 288)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"task": "nothing"}, TaskError, "there is no task called 'nothing'"),
        ({"task": "zhoblimp"}, TaskError, "zhoblimp has no items to train on"),
        ({"data": Path("away.jsonl")}, TaskError, "away.jsonl is not there"),
        ({"one_order": True}, TaskError, "--one-order is for pairs without order, and toy is of kind classification"),
        ({"init": Path("away")}, ModelError, "away is not a folder"),
    ],
)
def test_refused(
    trained: tuple[Workspace, Path, Report, Recorder], wrong: dict[str, Any], error: type[CorpusError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        run(config_of(trained[1], **wrong | {"run": "refused"}), trained[0])
    assert caught.value.hint or "--one-order" in words
    assert not (trained[0].models / "refused").exists()


def test_bad_items_name_file_and_line(trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path) -> None:
    records = toy_records({"train": 4, "validation": 2})
    records[2] |= {"label": "maybe"}
    task = write_task(tmp_path, records, splits=("train", "validation"))
    with pytest.raises(TaskError, match=r"toy.jsonl:3.*maybe"):
        run(config_of(task, run="refused"), trained[0])
    del records[2]["text"]
    write_task(tmp_path, records, splits=("train", "validation"))
    with pytest.raises(TaskError, match=r"toy.jsonl:3.*text"):
        run(config_of(task, run="refused"), trained[0])


def test_without_a_tokenizer_or_validation_items(tmp_path: Path) -> None:
    task = write_task(tmp_path, toy_records({"train": 8}), splits=("train",))
    with pytest.raises(WorkspaceError, match="holds no tokenizer"):
        run(config_of(task), Workspace(tmp_path / "empty"))
    workspace = lay_all(Workspace(tmp_path / "workspace"))
    with pytest.raises(TrainError, match="--early-stop needs validation items"):
        run(config_of(task, early_stop=1), workspace)
    report = run(config_of(task, max_steps=1), workspace)
    assert report.ledger.counts["best"] is None
    assert any("no dataset has validation items" in note for note in report.notes)


def test_wrong_flags_are_refused() -> None:
    for settings, words in (
        ({"objective": "task"}, "--objective task needs --task"),
        ({"task": "ocnli"}, "--task must stand with --objective task"),
        ({"one_order": True}, "--one-order must stand"),
        ({"objective": "task", "task": "ocnli", "datasets": ("demo",)}, "--dataset must not stand"),
        ({"objective": "task", "task": "ocnli", "aux_lm": -1.0}, "--aux-lm must not be negative"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainConfig(**settings)


def test_the_command_asks_what_to_start_from(
    trained: tuple[Workspace, Path, Report, Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(shutil.copytree(trained[0].root, tmp_path / "w", ignore=shutil.ignore_patterns("models")))
    flags = ["train", "--workspace", str(workspace.root), "--objective", "task", "--task", str(trained[1])]
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert "--objective task needs --init RUN, or --init none for random weights" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*flags, "--init", "none", "--model", "tiny", "--max-steps", "1", "--run", "toy", "--threads", "1"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert "macro F1" in said.out
    assert f"next: corpus evaluate --task {trained[1]} --model toy" in said.out
