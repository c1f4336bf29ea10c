"""Benchmarks from a model's folder to figures and files, through lm-evaluation-harness."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus.pipeline import tasks
from corpus.pipeline.errors import BenchmarkError, TaskError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train import benchmarks
from corpus.train.benchmarks.config import BenchmarkConfig, BenchmarkResult
from corpus.train.benchmarks.harness_task import DELIMITER
from corpus.train.benchmarks.plain import log_likelihoods
from corpus.train.benchmarks.prompts import Question, ask
from corpus.train.evaluation.tokens import DocumentTokenizer
from corpus.train.model.load import load_any
from tests.support.records import lines
from tests.support.tasks import lay_task

GAP = """\
name = "gap"
kind = "choice"
cut = "context"
[fields]
context = "text"
options = "options"
label = "label"
id = "id"
[source]
path = "gap.jsonl"
[source.test]
[prompt]
context = "{context}"
answers = ["{option}"]
gap = "#"
"""
THEIRS = """\
task: theirs
{data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: ["好", "坏"]
doc_to_target: right
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def measure(model: Path, workspace: Workspace, *names: str, **settings: Any) -> list[BenchmarkResult]:
    config = BenchmarkConfig(model=model, benchmarks=names, device="cpu", precision="fp32", **settings)
    return benchmarks.run(config, workspace)


def samples(result: BenchmarkResult) -> list[dict[str, Any]]:
    assert result.folder is not None
    return [json.loads(line) for line in (result.folder / "samples.jsonl").read_text("utf-8").splitlines()]


def written(result: BenchmarkResult) -> dict[str, Any]:
    assert result.folder is not None
    found: dict[str, Any] = json.loads((result.folder / "results.json").read_text("utf-8"))
    return found


def questions(name: str, split: str = "test") -> dict[str, Question]:
    task = tasks.load(name)
    return {item.id: ask(task, item) for item in tasks.read(task, None, split)}  # type: ignore[arg-type]  # one of the splits


class Plain:
    """Log-likelihoods without the harness."""

    def __init__(self, folder: Path) -> None:
        self.model = load_any(folder, precision="fp32")
        self.tokenizer = DocumentTokenizer(folder, rows=self.model.get_input_embeddings().num_embeddings)

    def encode(self, text: str) -> list[int]:
        encoding = self.tokenizer.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoding["input_ids"])

    def __call__(self, context: str, answer: str) -> float:
        read = self.encode(context) or [int(self.tokenizer.after[0])]
        return float(log_likelihoods(self.model, [(read, self.encode(answer))], context=128, rows=1)[0])


def test_figures_follow_from_plain_passes(model: Path, workspace: Workspace) -> None:
    """Every kind of task: log-likelihoods, the answers that they prefer, and their shares."""
    names = ("demo_classification", "demo_entailment", "demo_similarity", "demo_choice", "demo_minimal_pairs")
    plain = Plain(model)
    for result in measure(model, workspace, *names, limit=4):
        asked, given = questions(result.benchmark), samples(result)
        assert len(given) == result.items == 4
        right = 0
        for line in given:
            question = asked[line["id"]]
            expected = [plain(question.context, answer) for answer in question.answers]
            assert line["log_likelihoods"] == pytest.approx(expected, abs=1e-5, rel=2e-7)
            right += int(np.argmax(expected)) == question.label
        assert result.summary(0)["accuracy"] == (right / 4, 0.0)
        assert not result.notes, "the demo's prompts split between tokens and fit the context"


def test_examples_stand_before_the_item_and_come_from_another_split(model: Path, workspace: Workspace) -> None:
    (result,) = measure(model, workspace, "demo_similarity", shots=(1,), orders=2, limit=2)
    pool, asked = questions("demo_similarity", "train"), questions("demo_similarity")
    first, second = (run.examples[""] for run in result.runs)
    assert first != second
    example = pool[first[0]]
    prompt = example.context + example.answers[example.label] + DELIMITER + asked[samples(result)[0]["id"]].context
    assert written(result)["task"]["first_prompt"].endswith(asked[samples(result)[0]["id"]].context)
    plain = Plain(model)
    line = samples(result)[0]
    expected = [plain(prompt, answer) for answer in line["answers"]]
    assert line["log_likelihoods"] == pytest.approx(expected, abs=1e-5, rel=2e-7)
    assert (line["shots"], line["draw"]) == (1, 0)


def test_calibration_and_pmi_score_the_same_answers_elsewhere(model: Path, workspace: Workspace) -> None:
    (result,) = measure(
        model, workspace, "demo_classification", shots=(0, 1), orders=1, limit=2, calibrate=True, pmi=True
    )
    asked = questions("demo_classification")
    plain = Plain(model)
    without, before = samples(result)[0], samples(result)[2]
    question = asked[without["id"]]
    assert [probe["context"] for probe in without["probes"]] == [*question.content_free, "", question.without]
    for probe in without["probes"]:
        expected = [plain(probe["context"], answer) for answer in question.answers]
        assert probe["log_likelihoods"] == pytest.approx(expected, abs=1e-5, rel=2e-7)
    assert [
        probe["context"].endswith(free) for probe, free in zip(before["probes"], question.content_free, strict=False)
    ]
    assert before["probes"][0]["context"] != without["probes"][0]["context"], "examples stand before them, too"
    assert before["probes"][3:] == without["probes"][3:], "and not before the answers alone"
    assert set(result.summary(1)) == {"accuracy", "per_character", "calibrated", "pmi", "pmi_domain", "macro_f1"}


def test_minimal_pairs_have_slln_lp_and_groups_and_no_examples(model: Path, workspace: Workspace) -> None:
    (result,) = measure(model, workspace, "demo_minimal_pairs", shots=(0, 4))
    plain = Plain(model)
    right = {"accuracy": 0, "slln_lp": 0}
    given = samples(result)
    for line in given:
        logs = np.array(line["log_likelihoods"])
        tokens = np.array([len(plain.encode(answer)) for answer in line["answers"]])
        right["accuracy"] += int(np.argmax(logs)) == line["label"]
        right["slln_lp"] += int(np.argmax(logs / np.sqrt(tokens))) == line["label"]
    assert {name: result.summary(0)[name][0] for name in right} == {
        name: count / len(given) for name, count in right.items()
    }
    assert result.shots == [0]
    assert "--shots does not apply" in result.notes[0]
    groups = result.runs[0].groups
    assert sum(group["items"] for name, group in groups.items() if "/" not in name) == len(given)


def test_long_contexts_are_cut_and_said(model: Path, workspace: Workspace) -> None:
    (result,) = measure(model, workspace, "demo_choice", limit=2, context=24)
    assert any("were longer than the context and lost their beginning" in note for note in result.notes)
    assert result.runs[0].counts["cut_contexts"] > 0


def test_a_token_across_the_seam_is_counted_and_said(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    """A gap within a word that the tokenizer has as one token."""
    plain = Plain(model)
    word = next(
        text
        for token in range(plain.model.config.vocab_size - 10, 0, -1)
        if len(text := plain.tokenizer.tokenizer.decode([token])) > 1 and "\ufffd" not in text and text.isalpha()
    )
    path = tmp_path / "gap.toml"
    path.write_text(GAP, "utf-8")
    item = {"id": "a", "text": f"{word[:-1]}#", "options": [word[-1], "。"], "label": 0}
    (tmp_path / "gap.jsonl").write_bytes(lines([item]))
    (result,) = measure(model, workspace, str(path))
    assert result.runs[0].counts["seams"] == 1
    assert result.notes == ("1 of 2 texts were encoded apart, because a token would span prompt and answer",)
    assert samples(result)[0]["log_likelihoods"][0] == pytest.approx(plain(word[:-1], word[-1]), abs=1e-5)


def test_the_same_command_gives_the_same_files_and_the_random_state_stays(model: Path, workspace: Workspace) -> None:
    def once() -> dict[str, bytes]:
        (result,) = measure(model, workspace, "demo_entailment", shots=(0, 2), orders=2, limit=3, calibrate=True)
        assert result.folder == workspace.root / "benchmarks" / "ours" / "demo_entailment"
        names = {"results.json", "samples.jsonl", "few_shot.png", "timings.json"}
        assert {path.name for path in result.folder.iterdir()} == names
        return {name: (result.folder / name).read_bytes() for name in names - {"timings.json"}}

    before = torch.random.get_rng_state()
    first = once()
    assert first == once()
    assert torch.equal(before, torch.random.get_rng_state())
    found = json.loads(first["results.json"])
    assert found["packages"]["lm_eval"]
    assert found["settings"]["seed"] == 1
    assert set(found["model"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert str(workspace.root).encode() not in first["results.json"]


def test_no_network_is_asked(model: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    measure(model, workspace, "demo_choice", limit=1)


def test_output_goes_where_it_is_asked_to(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    (result,) = measure(model, workspace, "demo_choice", limit=1, output=tmp_path / "here")
    assert result.folder == tmp_path / "here" / "demo_choice"
    assert not (workspace.root / "benchmarks").exists()


def test_best_of_a_run_has_a_folder_of_its_own(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    best = tmp_path / "runs" / "one" / "best"
    shutil.copytree(model, best)
    (result,) = measure(best, workspace, "demo_choice", limit=1)
    assert result.folder == workspace.root / "benchmarks" / "one-best" / "demo_choice"


def test_a_task_without_a_prompt(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    path = lay_task(tmp_path)
    path.write_text(path.read_text("utf-8").partition("[prompt]")[0], "utf-8")
    with pytest.raises(TaskError, match="has no prompt"):
        measure(model, workspace, str(path))


def test_a_task_without_another_split(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    path = lay_task(tmp_path, changes={'\n[source.train]\nvalues = ["train"]\n': ""})
    with pytest.raises(BenchmarkError, match="has no split to draw examples from beside test"):
        measure(model, workspace, str(path), shots=(1,))


def test_a_split_that_the_task_does_not_have(model: Path, workspace: Workspace) -> None:
    with pytest.raises(BenchmarkError, match="demo_minimal_pairs has no train split") as caught:
        measure(model, workspace, "demo_minimal_pairs", split="train")
    assert "--split test" in caught.value.hint


def test_without_the_harness(model: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.train.benchmarks.harness.find_spec", lambda _: None)
    with pytest.raises(BenchmarkError, match="needs lm-evaluation-harness, which is not installed") as caught:
        measure(model, workspace, "demo_choice")
    assert caught.value.hint == "Type: pip install 'corpus-zh[eval]'"


def test_a_task_of_the_harness_needs_the_hub(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    """The tests run with HF_HUB_OFFLINE: what a machine without a network shows."""
    path = tmp_path / "theirs.yaml"
    path.write_text(THEIRS.format(data="dataset_path: nobody/nothing"), "utf-8")
    with pytest.raises(BenchmarkError, match=r"the data of .*theirs\.yaml cannot be had from the hub"):
        measure(model, workspace, f"hf:{path}")
    with pytest.raises(BenchmarkError, match=r"has no task .*absent\.yaml"):
        measure(model, workspace, f"hf:{tmp_path / 'absent.yaml'}")


def test_a_task_of_the_harness_is_measured_by_its_own_prompt(model: Path, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(lines({"q": f"第{number}个，", "right": 0} for number in range(6)))
    kwargs = f"{{data_files: {{test: {tmp_path / 'items.jsonl'}}}, cache_dir: {tmp_path}}}"
    local = f"dataset_path: json\ndataset_kwargs: {kwargs}"
    path = tmp_path / "theirs.yaml"
    path.write_text(THEIRS.format(data=local), "utf-8")
    (result,) = measure(model, workspace, f"hf:{path}", limit=4)
    assert result.items == 4
    plain = Plain(model)
    right = [plain(f"第{number}个，", "好") > plain(f"第{number}个，", "坏") for number in range(4)]
    assert result.summary(0)["accuracy"][0] == sum(right) / 4
    assert written(result)["benchmark"] == "theirs"
