"""`corpus evaluate --task`: figures beside floors, by group, and with and without what the model may have seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.cli.main import main
from corpus.pipeline.errors import CorpusError, ModelError, TaskError, TokenizerError
from corpus.pipeline.storage.document_shards import parts, read_part
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from corpus.train.tasks import evaluation
from corpus.train.tasks.config import Measured, TaskEvaluateConfig, TaskEvaluation
from tests.support.packed import lay_all
from tests.support.task_items import KINDS, toy_records, write_task
from tests.train.run.conftest import narrow  # noqa: F401  # a fixture
from tests.train.tasks.test_run import SETTINGS

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> tuple[Workspace, Path]:  # noqa: F811  # the fixture
    """A workspace with a task model; four of the 30 test items stand in train."""
    root = tmp_path_factory.mktemp("measured")
    workspace = lay_all(Workspace(root / "workspace"))
    records = toy_records({"train": 64, "validation": 10, "test": 30}, seed=4)
    for number in range(4):
        records[-1 - number] |= {name: records[number][name] for name in ("text", "label")}
    task = write_task(root, records)
    run(TrainConfig(**SETTINGS | {"task": str(task), "epochs": 5.0}), workspace)
    return workspace, task


def measure(measured: tuple[Workspace, Path], **changes: Any) -> TaskEvaluation:
    workspace, task = measured
    settings: dict[str, Any] = {"model": workspace.models / "toy", "task": str(task), "device": "cpu"} | changes
    return evaluation.run(TaskEvaluateConfig(**settings), workspace)


def test_figures_floors_groups_and_leaks(measured: tuple[Workspace, Path], tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    found = measure(measured, predictions=out)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == found.all.items == 30
    assert found.all.figures["accuracy"] == pytest.approx(sum(line["right"] for line in lines) / 30)
    assert found.all.figures["accuracy"] > found.floors["majority"].figures["accuracy"] == 0.5
    assert found.interval[0] <= found.all.figures["accuracy"] <= found.interval[1]
    assert {"chance", "majority", "linear"} <= found.floors.keys()
    assert list(found.groups) == ["g0", "g1", "g2"]
    assert sum(each.items for each in found.groups.values()) == 30
    (leak,) = found.leaks
    seen = {line["id"] for line in lines if line["stands_in"]}
    assert (leak.where, leak.inside.items, leak.outside.items) == ("train", len(leak.items), 30 - len(leak.items))
    assert {f"test-{number}" for number in range(26, 30)} <= set(leak.items) == seen
    outside = [line["right"] for line in lines if line["id"] not in seen]
    assert leak.outside.figures["accuracy"] == pytest.approx(sum(outside) / len(outside))
    assert {"id", "place", "label", "prediction", "right", "probabilities", "group"} <= lines[0].keys()
    assert sum(lines[0]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert any("items stand in train" in note for note in found.notes)
    json.dumps(found.to_dict())


def test_data_without_training_items(measured: tuple[Workspace, Path], tmp_path: Path) -> None:
    """A file of test items alone is measured, and what is left out is said."""
    whole = measure(measured)
    lines = [line for path in measured[1].parent.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join(line for line in lines if json.loads(line)["split"] == "test"), "utf-8")
    found = measure(measured, data=data)
    assert found.all == whole.all
    assert found.floors.keys() == {"chance"}
    assert not found.leaks
    assert any("no training items" in note for note in found.notes)
    with pytest.raises(TaskError, match="train"):
        measure(measured, data=data, split="train")


def test_items_that_all_stand_elsewhere_have_no_figure_without_them(measured: tuple[Workspace, Path]) -> None:
    found = measure(measured)
    none = Measured(items=0, figures=dict.fromkeys(found.all.figures, 0.0))
    (leak,) = found.leaks
    said = replace(found, leaks=[replace(leak, inside=found.all, outside=none)]).notes
    assert said[0] == f"{len(leak.items)} of 30 items stand in train: nothing is left to measure without them"


def test_a_pass_changes_no_prediction(measured: tuple[Workspace, Path]) -> None:
    one, other = (measure(measured, batch_size=size, split="validation") for size in (1, 7))
    assert one.confusion == other.confusion
    assert one.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"split": "train", "task": "other"}, TaskError, "with the labels neg, pos; other has bad, pos"),
        ({"task": "pairs"}, TaskError, "of kind classification; pairs is of kind similarity"),
        ({"split": "test", "task": "other"}, TaskError, "no split test"),
        ({"model": "packed"}, ModelError, "is no task model: task.json is missing"),
    ],
)
def test_refused(
    measured: tuple[Workspace, Path], tmp_path: Path, wrong: dict[str, Any], error: type[CorpusError], words: str
) -> None:
    records = [record | {"label": record["label"].replace("neg", "bad")} for record in toy_records({"train": 4})]
    other = write_task(tmp_path, records, name="other", splits=("train",), labels=["bad", "pos"])
    twice = [record | {"first": "a", "second": "b", "label": "0", "split": "test"} for record in records]
    pairs = write_task(tmp_path, twice, name="pairs", kind="similarity", splits=("test",))
    files = {"other": str(other), "pairs": str(pairs)}
    changes = wrong | ({"task": files[wrong["task"]]} if "task" in wrong else {})
    if "model" in wrong:
        (tmp_path / "packed").mkdir()
        changes["model"] = tmp_path / "packed"
    with pytest.raises(error, match=words) as caught:
        measure(measured, **changes)
    assert caught.value.hint
    assert set(KINDS) >= {"similarity"}


def test_a_tokenizer_without_the_tokens_of_the_form_is_refused(
    measured: tuple[Workspace, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(measured[0].models / "toy" / "best", tmp_path / "toy")
    shutil.copy(measured[0].tokenizer / "tokenizer.json", folder)
    with pytest.raises(TokenizerError, match=r"the tokenizer has no <\|start\|>, so it is another model's") as caught:
        measure(measured, model=folder)
    assert caught.value.hint


def test_items_in_pre_training_documents_are_found(demo: Workspace, tmp_path: Path) -> None:
    """The ledger of the tuned run names the digest of the weights that it began with, theirs names the dataset."""
    workspace = Workspace(shutil.copytree(demo.root, tmp_path / "demo"))
    base = next(path.parent for path in workspace.models.glob("*/ledger.json"))
    texts = [text for _, _, batch in read_part(parts(workspace.documents("demo"))[0], ["text", "split"])
             for text, split in zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True)
             if split == "train"]  # fmt: skip
    records = toy_records({"train": 4, "test": 6})
    records[5]["text"] = texts[0][5:45]
    records[8]["text"] = f"天气：{texts[-1][:40]}"
    task = write_task(tmp_path, records, splits=("train", "test"))
    settings: dict[str, Any] = SETTINGS | {"task": str(task), "max_steps": 1, "batch_size": 2, "init": base}
    run(TrainConfig(**settings), workspace)
    found = measure((workspace, task), split="test")
    assert [(leak.where, list(leak.items)) for leak in found.leaks] == [
        ("train", []), ("documents of demo", ["test-1", "test-4"])
    ]  # fmt: skip
    assert found.unchecked == ""
    shutil.rmtree(base)
    gone = measure((workspace, task), split="test")
    assert [leak.where for leak in gone.leaks] == ["train"]
    assert "the run that it started from is not in this workspace" in gone.unchecked


def test_the_command(measured: tuple[Workspace, Path], capsys: pytest.CaptureFixture[str]) -> None:
    workspace, task = measured
    flags = ["evaluate", "--workspace", str(workspace.root), "--task", str(task), "--model", "toy", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for words in ("model", "floor: majority", "floor: linear", "not in train", "95 % interval", "macro f1"):
        assert words in said
    with pytest.raises(SystemExit):
        main([*flags, "--json", "--split", "validation"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["split"], printed["all"]["items"]) == ("validation", 10)
    for extra, code in (["--dataset", "demo"], 2), (["--stride", "4"], 2):
        with pytest.raises(SystemExit) as ended:
            main([*flags, *extra])
        assert ended.value.code == code
