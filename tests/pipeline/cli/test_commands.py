"""The command as users run it: exit codes, what is printed where, and what only a real process shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus.pipeline.cli import main as cli_module
from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import CORPUS, corpus, corpus_process
from tests.support.documents import TRAIN, VALID
from tests.support.forked import Forked
from tests.support.records import baike, baike_near, lines


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of unpacked files, fetched by hand."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / TRAIN).write_bytes(lines([*map(baike, range(119)), baike_near(119, 7), baike(999, answer="")]))
    (folder / VALID).write_bytes(lines([baike(n) for n in range(120, 140)]))
    return folder


def test_every_command_teaches(tmp_path: Path) -> None:
    names = list(cli_module.cli.commands)
    assert names[:7] == ["datasets", "manifest", "download", "clean", "ingest", "dedup", "decontaminate"]
    for name in names:
        text = corpus(name, "-h", folder=tmp_path).stdout
        assert re.search(rf"Examples?:\n +corpus {name}", text), name
        assert ("--workspace" in text) == (name not in {"manifest", "tasks"})
    for group, name in (("manifest", "init"), ("manifest", "check"), ("tasks", "show"), ("tasks", "check")):
        text = corpus(group, name, "-h", folder=tmp_path).stdout
        assert re.search(rf"Examples?:\n +corpus {group} {name}", text), name


def test_no_description_is_cut_at_80_columns(tmp_path: Path) -> None:
    text = corpus("--help", folder=tmp_path, COLUMNS="80").stdout.partition("Commands:")[2]
    assert len(text.split("\n  ")) == 1 + len(cli_module.cli.commands)
    assert "..." not in text


def test_the_command_is_also_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corpus.pipeline.cli"]
    done = subprocess.run([*command, "pack"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "corpus ingest" in done.stderr
    assert subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "corpus"
    )


def test_the_way_to_rows(tmp_path: Path, source: Path) -> None:
    done = corpus_process("ingest", "--source", source, folder=tmp_path)
    assert "not at" in done.stderr
    assert re.search(r"baike2018qa +141 +1 +1 +139 ", done.stdout)
    assert "dropped: empty 1" in done.stdout
    assert re.search(r"(?m)^dedup: [\d.]+ s$", done.stdout)
    assert "ledger: workspace/documents/baike2018qa/ledger.json" in done.stdout
    assert done.stdout.endswith("next: corpus pack --dataset baike2018qa\n")
    done = corpus_process("pack", "--seq-length", 64, folder=tmp_path)
    assert "training one first" in done.stderr
    assert re.search(r"baike2018qa +119 ", done.stdout)
    assert "next: corpus train --model tiny" in done.stdout
    done = corpus("pack", "--seq-length", 64, folder=tmp_path)
    assert corpus("ingest", "--source", source, folder=tmp_path).stdout.count("was finished") == 1
    status = json.loads(corpus("status", "--json", folder=tmp_path).stdout)
    assert {(row["area"], row["state"]) for row in status} == {
        (area, "finished") for area in ("raw", "documents", "dedup", "tokenizer", "packed")
    }
    assert "tokenizer" in corpus("status", folder=tmp_path).stdout
    assert all(len(line) <= 80 for line in corpus("datasets", folder=tmp_path).stdout.splitlines()[:20])


def test_wrong_usage_is_2_and_names_the_flag(tmp_path: Path) -> None:
    for arguments, says in (
        (["pack", "--seq-length", "1"], "--seq-length"),
        (["ingest", "--dataset", "wiki"], "--dataset"),
        (["tokenizer", "--vocab-size", "9"], "--vocab-size"),
        (["ingest", "--dataset", "demo", "--min-length", "-3"], "--min-length"),
        (["train", "--batch-size", "0"], "--batch-size"),
        (["sample", "--top-p", "2"], "--top-p"),
        (["frobnicate"], "frobnicate"),
    ):
        assert says in corpus(*arguments, folder=tmp_path, code=2).stderr


def test_named_failures_are_1_and_say_what_to_type(tmp_path: Path) -> None:
    for arguments, says in (
        (["pack"], "corpus ingest"),
        (["clean", "--dataset", "baike2018qa"], "corpus download"),
        (["clean"], "corpus download"),
        (["ingest", "--source", "nowhere"], "nowhere"),
        (["train"], "corpus pack"),
        (["sample"], "corpus train"),
        (["tokenizer"], "corpus ingest"),
    ):
        done = corpus(*arguments, folder=tmp_path, code=1)
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 4
        assert not done.stdout


def test_a_second_writer_is_told_who_holds_the_workspace(tmp_path: Path, source: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    with workspace.writing("pack"):
        done = corpus_process("ingest", "--source", source, folder=tmp_path, code=1)
    assert f"process {os.getpid()}" in done.stderr
    assert "corpus pack" in done.stderr
    corpus("ingest", "--source", source, folder=tmp_path)


def test_unwritable_workspaces_are_named(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file/inside", "/proc/nope", "x" * 300):
        done = corpus("ingest", "--source", source, "--workspace", place, folder=tmp_path, code=1)
        assert "Error:" in done.stderr
        assert "--workspace" in done.stderr


def test_file_size_limit_is_a_named_failure(tmp_path: Path, source: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; exec {CORPUS} ingest --source {source}"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Error:" in done.stderr
    assert not (tmp_path / "workspace/documents/baike2018qa/ledger.json").exists()
    corpus("ingest", "--source", source, folder=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_ends_with_130_and_goes_on(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / TRAIN).write_bytes(lines([baike(n, answer=f"说来话长，第{n}次。" * 20) for n in range(10_000)]))
    ingest = ("ingest", "--source", folder, "--workers", "2")
    process = Forked([CORPUS, *ingest], cwd=tmp_path)
    documents = tmp_path / "workspace/documents/baike2018qa"
    deadline = time.monotonic() + 60
    while not list(documents.glob(".part-*.tmp")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Run the same command again" in errors
    assert "Traceback" not in errors
    assert not (documents / "ledger.json").exists()
    corpus(*ingest, folder=tmp_path)
    assert not list(documents.glob(".*.tmp"))


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{CORPUS} datasets | head -1; exit 0"], cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_no_bar_without_a_terminal(tmp_path: Path, source: Path) -> None:
    done = corpus_process("ingest", "--source", source, folder=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
