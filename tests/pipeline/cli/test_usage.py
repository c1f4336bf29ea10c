"""What a user mistypes, and what is not there: the answer names the flag, or lists what there is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from corpus.pipeline.cli.main import main
from corpus.pipeline.cli.options import model_folder
from corpus.pipeline.errors import ModelError
from corpus.pipeline.workspace.layout import REWARD_SHIFT, TASK_MODEL, Workspace
from corpus.pipeline.workspace.ledger import LEDGER
from tests.support.command import CORPUS, corpus
from tests.support.documents import TRAIN
from tests.support.records import baike, lines


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest", "baike2018qa"], "corpus ingest --dataset baike2018qa"),
        (["ingest", "--no-dedup", "folder"], "corpus ingest --source folder"),
        (["sample", "--top-k", "5", "你好"], "corpus sample --prompt 你好"),
        (["sample", "two words"], "corpus sample --prompt 'two words'"),
        (["decontaminate", "./folder/exam.jsonl"], "corpus decontaminate --against ./folder/exam.jsonl"),
        (["evaluate", "first"], "corpus evaluate --model first"),
        (["status", "folder"], "corpus status --workspace folder"),
        (["demo", "now"], "unexpected extra argument"),
        (["trace", "demo:0", "demo:1"], "unexpected extra argument"),
    ],
)
def test_a_word_without_its_flag(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "folder").mkdir()
    assert says in corpus(*arguments, folder=tmp_path, code=2).stderr


def test_help_and_version_are_also_words(tmp_path: Path) -> None:
    assert corpus("help", folder=tmp_path).stdout == corpus("--help", folder=tmp_path).stdout
    assert corpus("help", "pack", folder=tmp_path).stdout == corpus("pack", "-h", folder=tmp_path).stdout
    assert corpus("version", folder=tmp_path).stdout == corpus("--version", folder=tmp_path).stdout


def test_places_that_are_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for place, says in (("", "the name is empty"), ("link", "is a link to nowhere"), ("file", "is a file")):
        assert says in corpus("status", "--workspace", place, folder=tmp_path, code=2).stderr
    assert "empty" in corpus("status", folder=tmp_path, CORPUS_WORKSPACE="").stdout  # as without the variable


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["train", "--data", ""],
            "'--data': the name is empty; for the current folder type --data .",
        ),
        (["train", "--init", ""], "Invalid value for '--init': the name is empty"),
        (["train", "--eval-benchmark", ""], "--eval-benchmark must be the name of a task"),
        (["evaluate", "--task", "demo_choice", "--data", ""], "Invalid value for '--data': the name is empty"),
        (["evaluate", "--model", ""], "--model must not be empty"),
        (["evaluate", "--model", ".", "--benchmark", ""], "--benchmark must be the name of a task"),
        (["tasks", "show", "demo_choice", "--data", ""], "Invalid value for '--data': the name is empty"),
    ],
)
def test_empty_values_are_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dedup", "--spans", "49"], "--spans must be at least 50, is 49"),
        (["dedup", "--spans", "many"], "'many' is not a valid integer"),
        (["dedup", "--cut"], "--cut needs --spans N, which says how long a run is"),
        (["inspect", "--passages", "--reason", "email"], "--passages does not go with --reason"),
        (["inspect", "--passages", "--show", "kept"], "--passages does not go with --show"),
    ],
)
def test_flags_of_shared_runs(tmp_path: Path, arguments: list[str], says: str) -> None:
    assert says in corpus(*arguments, folder=tmp_path, code=2).stderr


def test_the_newest_run_is_of_a_task_only_where_a_task_is_measured(workspace: Workspace) -> None:
    for age, name in enumerate(("text", "tuned")):
        (workspace.models / name).mkdir(parents=True)
        (workspace.models / name / LEDGER).touch()
        os.utime(workspace.models / name / LEDGER, (age, age))
    (workspace.models / "tuned" / TASK_MODEL).touch()
    found = [model_folder(workspace, None, of_task=of_task).name for of_task in (False, True, None)]
    assert found == ["text", "tuned", "tuned"]
    (workspace.models / "scores").mkdir()
    (workspace.models / "scores" / "config.json").write_text(json.dumps({REWARD_SHIFT: 0.5}))
    (workspace.models / "scores" / LEDGER).touch()
    found = [model_folder(workspace, None, of_task=of_task).name for of_task in (False, True, None)]
    assert found == ["text", "tuned", "scores"]
    (workspace.models / "tuned" / TASK_MODEL).unlink()
    with pytest.raises(ModelError, match="holds no finished model of a task") as caught:
        model_folder(workspace, None, of_task=True)
    assert "--objective task" in caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("arguments", [["datasets"], ["datasets", "--json"]])
def test_a_full_standard_output_is_named(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [CORPUS, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output: No space left on device\n")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("records", "says", "why"),
    [
        ([baike(n) for n in range(9)], "all 9 records were dropped (too_short 9)", "all 9 records were dropped"),
        ([], "the source has no records", "its source has no records"),
    ],
)
def test_no_document_is_told_by_ingest_and_by_pack(
    tmp_path: Path, records: list[dict[str, str]], says: str, why: str
) -> None:
    (tmp_path / TRAIN).write_bytes(lines(records))
    ingest = ("ingest", "--dataset", "baike2018qa", "--source", tmp_path / TRAIN, "--min-length", 10_000)
    for _ in range(2):  # the second time it was finished
        done = corpus(*ingest, folder=tmp_path).stdout
        assert f"note: baike2018qa: {says}" in done
        assert "next:" not in done
    assert f"there are no training documents (baike2018qa: {why})" in corpus("pack", folder=tmp_path, code=1).stderr


def test_a_small_sample_is_told_to_flatter_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_bytes(lines([baike(n, answer=f"第{n}朵花开在山的那一边。" * 50) for n in range(40)]))
    ingest = ("ingest", "--dataset", "baike2018qa", "--source", tmp_path / TRAIN, "--no-rule", "repeated_spans")
    corpus(*ingest, folder=tmp_path)
    says = "bytes/token is measured on the texts that it learnt from"
    assert says not in corpus("tokenizer", "--vocab-size", 300, folder=tmp_path).stdout
    assert says in corpus("tokenizer", "--vocab-size", 300, "--sample-characters", 5_000, folder=tmp_path).stdout


def test_what_trace_does_not_find(demo: Workspace) -> None:
    there = {"folder": demo.root.parent, "CORPUS_WORKSPACE": str(demo.root)}
    for arguments, code, says in (
        (["--rejected", "nope"], 1, "There are: empty, malformed_json, missing_field, too_short, wrong_type."),
        (["--document", "nope"], 1, "Ids look like 1@wiki.json:0"),
        (["--text", ""], 2, "--text must not be empty"),
        (["--text", " "], 2, "--text must not be empty"),
    ):
        assert says in corpus("trace", *arguments, **there, code=code).stderr  # type: ignore[arg-type]


def test_documents_are_shown_when_the_archives_were_deleted(demo: Workspace, tmp_path: Path) -> None:
    shutil.copytree(demo.root, tmp_path / "workspace", ignore=shutil.ignore_patterns(".lock*", "models", "raw"))
    shown = corpus("trace", "--text", "豆腐", "-n", 1, folder=tmp_path).stdout
    assert "record: not here, as raw/demo was deleted; `corpus download --dataset demo`" in shown
    assert "document: 5@wiki.json" in shown
    assert "tokens: the same again" in corpus("trace", "demo:1", folder=tmp_path).stdout
    assert "dropped: too_short" in corpus("inspect", "--show", "dropped", folder=tmp_path).stdout
    assert "corpus download" in corpus("inspect", "--show", "changed", folder=tmp_path, code=1).stderr


def test_a_hard_link_is_told(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_bytes(lines([baike(n) for n in range(9)]))
    said = corpus("download", "--dataset", "baike2018qa", "--source", tmp_path, folder=tmp_path).stderr
    assert "raw/baike2018qa/ holds hard links, not copies" in said
    assert " 0 B" not in said
    assert (tmp_path / TRAIN).samefile(tmp_path / "workspace/raw/baike2018qa" / TRAIN)
