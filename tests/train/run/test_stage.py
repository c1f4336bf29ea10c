"""The training stage as a whole: what it writes, what it leaves alone, and what it goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus.pipeline.errors import CorpusError, DamageError, DiskError, ModelError, TokenizerError, TrainError
from corpus.pipeline.tokenizer.files import are_equal
from corpus.pipeline.workspace import files
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, Report, read_ledger
from corpus.train.config import TrainConfig
from corpus.train.model import load
from corpus.train.run.curves import picture
from corpus.train.run.stage import run
from tests.support import damage
from tests.support.packed import lay_all, lay_packed, make_tokenizer, random_segments, separator_id
from tests.support.runs import SETTINGS, Recorder, history

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def trained(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Report, Recorder]:
    """A finished run; tests that change it take a copy."""
    workspace = lay_all(Workspace(tmp_path_factory.mktemp("trained") / "workspace"))
    recorder = Recorder()
    return workspace, run(TrainConfig(**SETTINGS), workspace, progress=recorder), recorder


@pytest.fixture
def copy(trained: tuple[Workspace, Report, Recorder], tmp_path: Path) -> Workspace:
    """A copy of the finished run's workspace."""
    shutil.copytree(trained[0].root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_the_fields_own_tools_open_it(trained: tuple[Workspace, Report, Recorder]) -> None:
    workspace, report, _ = trained
    model = AutoModelForCausalLM.from_pretrained(report.folder)
    tokenizer = AutoTokenizer.from_pretrained(report.folder)
    assert model.config.vocab_size == len(tokenizer) == make_tokenizer().get_vocab_size()
    assert model.config.use_cache
    assert (model.config.bos_token_id, model.config.eos_token_id) == (separator_id(), separator_id())
    assert model.config.pad_token_id == tokenizer.pad_token_id
    ids = tokenizer("春天的雨").input_ids
    assert ids[0] == separator_id()  # from which documents were read in training
    assert tokenizer.decode(ids[1:]) == "春天的雨"
    assert separator_id() not in ids[1:]
    assert tokenizer("").input_ids == [separator_id()]
    ids = model.generate(**tokenizer("春天的雨", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert ids.shape[1] > tokenizer("春天的雨", return_tensors="pt").input_ids.shape[1]
    paths = [folder / "tokenizer.json" for folder in (report.folder, workspace.tokenizer)]
    assert are_equal(*paths)
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_the_ledger_holds_the_books(trained: tuple[Workspace, Report, Recorder]) -> None:
    workspace, report, _ = trained
    ledger = read_ledger(report.folder)
    assert ledger == report.ledger
    assert (ledger.stage, ledger.dataset) == ("train", None)
    assert not {"optimizer", "adam_learning_rate", "schedule", "decay_share"} & set(ledger.config)  # none was chosen
    assert [entry.path for entry in ledger.inputs] == [
        "packed/demo/ledger.json", "packed/wiki2019zh/ledger.json", "tokenizer/tokenizer.json",
    ]  # fmt: skip
    assert [entry.path for entry in ledger.outputs] == [
        "README.md", "best/config.json", "best/generation_config.json", "best/model.safetensors", "best/tokenizer.json",
        "best/tokenizer_config.json", "config.json", "curves.png", "generation_config.json", "metrics.jsonl",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert all(files.sha256_file(report.folder / entry.path) == entry.sha256 for entry in ledger.outputs)
    rows = [row for seed in (0, 1) for row in random_segments(20, seed=seed)]
    assert ledger.counts["steps"] == 10
    assert ledger.counts["rows"] == 80
    assert ledger.counts["tokens"] == 2 * sum(len(segment) for row in rows for segment in row)
    assert ledger.counts["loss"] == [line["loss"] for line in history(report.folder) if "loss" in line][-1]
    assert set(ledger.counts["validation"]) == {"demo", "wiki2019zh"}
    text = ledger.to_json().decode()
    assert str(workspace.root) not in text
    assert "seconds" not in text
    assert json.loads((report.folder / "timings.json").read_bytes())["seconds"] > 0
    assert report.folder.name == f"tiny-{ledger.fingerprint[:6]}"


def test_the_curve_falls_and_every_line_is_there(trained: tuple[Workspace, Report, Recorder]) -> None:
    lines = history(trained[1].folder)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == [2, 4, 6, 8, 10]
    assert losses[-1]["loss"] < losses[0]["loss"] - 1
    assert [(line["step"], line["rows"], line["epoch"]) for line in losses[-2:]] == [(8, 64, 1.6), (10, 80, 2.0)]
    assert all({"loss", "grad_norm", "learning_rate"} <= set(line) for line in losses)
    scores = [line for line in lines if "demo/loss" in line]
    assert scores[-1]["step"] == 10
    figures = {f"{name}/{figure}" for name in ("demo", "wiki2019zh") for figure in FIGURES}
    assert set(scores[-1]) == {"step", "rows", "epoch", "bits_per_character", *figures}
    assert {path.name for path in trained[1].folder.glob("checkpoint-*")} == {"checkpoint-8", "checkpoint-10"}


FIGURES = ("loss", "perplexity", "bits_per_character", "bits_per_byte")


def test_it_says_what_it_will_do(trained: tuple[Workspace, Report, Recorder]) -> None:
    _, report, recorder = trained
    said = "\n".join(recorder.said)
    for words in (
        f"{report.ledger.counts['parameters']:,} parameters", "40 rows of demo, wiki2019zh",
        "10 steps of 8 rows (384 tokens a step), 2 epochs", f"{report.ledger.counts['tokens']:,} training tokens",
        "CPU with 1 threads, fp32", "2 x 4 rows a step", "an estimate from one timed pass", "only 10 steps",
    ):  # fmt: skip
        assert words in said
    assert (recorder.total, recorder.done, recorder.ended) == (10, 10, 1)


def test_the_progress_shows_the_loss_and_what_is_done(trained: tuple[Workspace, Report, Recorder]) -> None:
    lines = {line["step"]: line for line in history(trained[1].folder) if "loss" in line}
    figures = {
        step: f"loss {line['loss']:.3f}, learning rate {line['learning_rate']:.2e}" for step, line in lines.items()
    }
    notes = trained[2].notes
    assert next(note for step, note in notes if step == 4 and "loss" in note) == figures[4]
    assert (8, f"{figures[8]}, saving a checkpoint") in notes
    assert (10, f"{figures[10]}, evaluating") in notes
    assert notes[-1] == (10, figures[10])


def test_nothing_is_printed(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    run(TrainConfig(**SETTINGS | {"epochs": 0.4}), lay_all(workspace))
    assert capfd.readouterr() == ("", "")


def test_a_finished_run_is_left_alone_and_a_damaged_one_finished_again(copy: Workspace) -> None:
    config = TrainConfig(**SETTINGS)
    again = run(config, copy)
    assert again.skipped
    before = {entry.path: entry.sha256 for entry in again.ledger.outputs}
    (again.folder / "model.safetensors").unlink()
    recorder = Recorder()
    mended = run(config, copy, progress=recorder)
    assert mended.reasons == ("output model.safetensors is missing",)
    assert mended.details["resumed_from"] == 10  # from the last checkpoint, not from the start
    assert {entry.path: entry.sha256 for entry in mended.ledger.outputs} == before
    assert mended.ledger == again.ledger


def test_a_model_of_other_bytes_is_trained_to_its_end_again(copy: Workspace) -> None:
    """The size is as before. Whoever would open the model names the damage."""
    config = TrainConfig(**SETTINGS)
    before = run(config, copy)
    for name in ("best/model.safetensors", "model.safetensors"):
        path = before.folder / name
        assert [file.name for file in load.files(path.parent, "--model")] == ["config.json", "model.safetensors"]
        whole = path.read_bytes()
        damage.edit(path)
        with pytest.raises(DamageError, match=rf"{name} has other bytes than its ledger says") as caught:
            load.files(path.parent, "--model")
        assert f"corpus train --run {before.folder.name}" in caught.value.hint
        if name.startswith("best/"):
            with pytest.raises(DamageError, match="no checkpoint holds it") as caught:
                run(config, copy)
            assert "--no-resume" in caught.value.hint
            path.write_bytes(whole)
    mended = run(config, copy)
    assert mended.reasons == ("output model.safetensors has other bytes than its ledger says",)
    assert (mended.ledger, mended.details["resumed_from"]) == (before.ledger, 10)


def test_how_it_is_carried_out_is_no_part_of_it(copy: Workspace) -> None:
    other = {"micro_batch_size": 8, "save_steps": 3, "workers": 1, "device": "cpu", "gradient_checkpointing": True}
    assert run(TrainConfig(**SETTINGS | other), copy).skipped


def test_without_resume_it_begins_anew_and_ends_the_same(copy: Workspace) -> None:
    before = run(TrainConfig(**SETTINGS), copy).ledger
    recorder = Recorder()
    report = run(TrainConfig(**SETTINGS, resume=False), copy, progress=recorder)
    assert not report.skipped
    assert report.details["resumed_from"] == 0
    assert report.ledger == before


def test_another_configuration_under_the_same_name_is_refused(copy: Workspace) -> None:
    first = run(TrainConfig(**SETTINGS | {"epochs": 0.4}, run="mine"), copy)
    with pytest.raises(TrainError, match=r"epochs was 0\.4 and is 0\.5; seed was 1 and is 2") as caught:
        run(TrainConfig(**SETTINGS | {"epochs": 0.5}, run="mine", seed=2), copy)
    assert "--run" in caught.value.hint
    (first.folder / "ledger.json").unlink()  # unfinished: refused all the same
    with pytest.raises(TrainError, match="seed was 1 and is 2"):
        run(TrainConfig(**SETTINGS | {"epochs": 0.4}, run="mine", seed=2), copy)
    (copy.models / "notes").mkdir()
    (copy.models / "notes" / "todo.txt").write_text("milk")
    with pytest.raises(TrainError, match="not a run"):
        run(TrainConfig(**SETTINGS, run="notes"), copy)


def test_a_finished_run_is_not_made_longer(copy: Workspace) -> None:
    run(TrainConfig(**SETTINGS | {"epochs": 0.4}, run="mine"), copy)
    for other, is_longer in (({"max_steps": 9}, True), ({"epochs": 0.6}, True), ({"max_steps": 9, "seed": 2}, False)):
        settings: dict[str, Any] = SETTINGS | {"epochs": 0.4, "run": "mine"} | other
        with pytest.raises(TrainError, match="mine is the name of another run") as caught:
            run(TrainConfig(**settings), copy)
        assert ("give --init mine and another name with --run" in caught.value.hint) is is_longer


def test_a_disk_without_room_is_refused_before_training(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checkpoints of 12 bytes a parameter for a moment, and the best model; less is due where some are there."""
    config = TrainConfig(**SETTINGS, run="mine")
    usage, free = shutil.disk_usage(copy.root), 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(DiskError, match="mine: 0 B are free, and the run needs") as caught:
        run(config, copy)
    assert "Free some room" in caught.value.hint
    assert [path.name for path in (copy.models / "mine").iterdir() if path.is_dir()] == [".saving"]
    parameters = run(TrainConfig(**SETTINGS), copy).ledger.counts["parameters"]  # it is finished
    free = parameters * (3 * 12 + 4) - 1
    with pytest.raises(DiskError):
        run(config, copy)
    free += 1
    (run(config, copy).folder / "model.safetensors").unlink()
    free = parameters * 4
    assert run(config, copy).details["resumed_from"] == 10


def test_changed_rows_make_another_run(copy: Workspace) -> None:
    lay_packed(copy, "demo", {"train": random_segments(20, seed=99)})
    report = run(TrainConfig(**SETTINGS | {"epochs": 0.4}), copy)
    assert set(report.ledger.counts["validation"]) == {"wiki2019zh"}  # demo has no validation rows any more
    only = run(TrainConfig(**SETTINGS | {"epochs": 0.4}, datasets=("demo",)), copy)
    assert only.ledger.counts["validation"] == {}
    assert any("no dataset has validation rows" in note for note in only.notes)


def test_a_step_larger_than_the_data_is_one_step(workspace: Workspace) -> None:
    report = run(TrainConfig(**SETTINGS | {"batch_size": 512, "epochs": 1}), lay_all(workspace))
    assert (report.ledger.counts["steps"], report.ledger.counts["rows"]) == (1, 40)
    assert any("only 1 steps" in note for note in report.notes)
    assert history(report.folder)[0]["learning_rate"] == 1e-2  # and it is not spent on warming up


def test_going_on_from_a_model(
    trained: tuple[Workspace, Report, Recorder], copy: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = trained[1].folder
    settings = SETTINGS | {"epochs": 0.4, "learning_rate": 1e-5}
    report = run(TrainConfig(**settings, init=folder), copy)
    assert capfd.readouterr() == ("", "")  # no bar of a library either
    assert report.folder.name.startswith("init-")
    assert [entry.path for entry in report.ledger.inputs][-2:] == ["init/config.json", "init/model.safetensors"]
    assert str(folder) not in report.ledger.to_json().decode()
    first = next(line for line in history(report.folder) if "loss" in line)
    assert first["loss"] < history(folder)[0]["loss"] - 1  # it did not begin at random


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ("no config", ModelError, "config.json is missing"),
        ("no weights", ModelError, "holds its weights as pickle only"),
        ("torn weights", ModelError, "the model cannot be read"),
        ("other vocabulary", TokenizerError, "has a vocabulary of 32000, the workspace's tokenizer 400"),
        ("other tokenizer", TokenizerError, "are different tokenizers"),
        ("short context", TrainError, "takes 16 tokens at once, the rows have 48"),
    ],
)
def test_a_model_that_cannot_go_on(copy: Workspace, wrong: str, error: type[CorpusError], words: str) -> None:
    folder = next(copy.models.iterdir())
    (folder / "ledger.json").unlink()  # else it names the damage
    config = json.loads((folder / "config.json").read_text())
    if wrong == "no config":
        (folder / "config.json").unlink()
    elif wrong == "no weights":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif wrong == "torn weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif wrong == "other vocabulary":
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 32_000}))
    elif wrong == "other tokenizer":
        (folder / "tokenizer.json").write_text(make_tokenizer(400, copies=5).to_str())
    else:
        (folder / "config.json").write_text(json.dumps(config | {"n_positions": 16}))
    with pytest.raises(error, match=words):
        run(TrainConfig(**SETTINGS, init=folder, run="next"), copy)
    assert not (copy.models / "next").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors"])
def test_a_damaged_checkpoint_is_named(copy: Workspace, name: str) -> None:
    folder = next(copy.models.iterdir())
    (folder / "ledger.json").unlink()
    damaged = folder / "checkpoint-10" / name
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(TrainError, match="checkpoint-10 cannot be read") as caught:
        run(TrainConfig(**SETTINGS), copy)
    assert caught.value.hint.startswith("Delete it")
    shutil.rmtree(folder / "checkpoint-10")
    assert run(TrainConfig(**SETTINGS), copy).details["resumed_from"] == 8


@pytest.mark.parametrize(
    "way",
    [{"gradient_checkpointing": True}, {"workers": 2}, {"micro_batch_size": 3}, {"save_steps": 3, "log_steps": 2}],
)
def test_another_way_gives_the_same_curve(
    trained: tuple[Workspace, Report, Recorder], copy: Workspace, way: dict[str, Any]
) -> None:
    report = run(TrainConfig(**SETTINGS | way, run="other"), copy)
    before = {line["step"]: line["loss"] for line in history(trained[1].folder) if "loss" in line}
    after = {line["step"]: line["loss"] for line in history(report.folder) if "loss" in line}
    same = [step for step in before if step in after]
    assert len(same) >= 3
    if "save_steps" not in way:  # a checkpoint's step is logged too, which shortens the stretch of the next mean
        assert [after[step] for step in same] == pytest.approx([before[step] for step in same], rel=1e-4)
    assert report.ledger.counts["validation"]["demo"] == pytest.approx(
        trained[1].ledger.counts["validation"]["demo"], rel=1e-3
    )


def test_half_precision_and_no_document_mask_are_other_runs(
    trained: tuple[Workspace, Report, Recorder], copy: Workspace
) -> None:
    names = {trained[1].folder.name}
    exact = trained[1].ledger.counts["validation"]["demo"]["loss"]
    for change in ({"precision": "bf16"}, {"document_mask": False}, {"dropout": 0.2}):
        report = run(TrainConfig(**SETTINGS | change), copy)
        names.add(report.folder.name)
        loss = report.ledger.counts["validation"]["demo"]["loss"]
        assert loss != exact
        assert loss == pytest.approx(exact, rel=0.2)
    assert len(names) == 4


def _ledger(workspace: Workspace) -> Ledger:
    ledger = read_ledger(workspace.models / "one")
    assert ledger
    return ledger


def test_samples_at_evaluations_change_nothing_in_the_run(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    settings = SETTINGS | {"run": "one", "eval_steps": 2, "dropout": 0.1}
    prompts = ("", "第3个", "长" * 200)
    run(TrainConfig(**settings), workspace)
    run(TrainConfig(**settings, sample_prompts=prompts), other)
    mine, theirs = (each.models / "one" for each in (workspace, other))
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (mine / name).read_bytes() == (theirs / name).read_bytes()
    samples = [json.loads(line) for line in (theirs / "samples.jsonl").read_text().splitlines()]
    steps = sorted({line["step"] for line in samples})
    assert len(steps) >= 2
    assert [(line["step"], line["prompt"]) for line in samples] == [
        (step, prompt) for step in steps for prompt in prompts
    ]
    assert any(line["text"] for line in samples)
    assert not (mine / "samples.jsonl").exists()
    assert "samples.jsonl" in {output.path for output in _ledger(other).outputs}


def test_the_card_is_what_a_hub_reads(trained: tuple[Workspace, Report, Recorder]) -> None:
    from huggingface_hub import ModelCard

    _, report, _ = trained
    card = ModelCard.load(report.folder / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "text-generation"
    for entry in report.ledger.inputs:
        assert entry.sha256 in card.text
    for name, score in report.ledger.counts["validation"].items():
        assert f"| {name} | {score['loss']:.4f} |" in card.text
    assert "curves.png" in card.text


def test_the_picture_is_one(trained: tuple[Workspace, Report, Recorder]) -> None:
    from PIL import Image

    with Image.open(trained[1].folder / "curves.png") as image:
        assert image.size[0] > 600
        assert len(image.getcolors(1 << 20) or []) > 10
    assert picture(history(trained[1].folder)) == (trained[1].folder / "curves.png").read_bytes()
    assert picture([])[:4] == b"\x89PNG"
