"""Killed for real and resumed, shared by two processes, out of disk: the run ends as if nothing had been."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.pipeline.cli.main import main
from corpus.pipeline.errors import DiskError
from corpus.pipeline.terminal.console import Console
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.train.run.stage import run
from tests.support.forked import Forked
from tests.support.packed import contents, lay_all
from tests.support.server import Server
from tests.support.training import config_of, flags_of, start, start_several, torchrun

SETTINGS: dict[str, Any] = {
    "dropout": 0.1, "sample_prompts": ("第3个", "a"), "eval_benchmark": "demo_minimal_pairs",
    "eval_benchmark_every": 2, "eval_benchmark_limit": 4,
}  # fmt: skip


def finish(process: Forked) -> str:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return errors


def wait_for(path: Path, process: Forked) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def losses(workspace: Workspace) -> list[tuple[int, float]]:
    lines = (workspace.models / "one" / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def kill_after(step: int, workspace: Workspace) -> None:
    """Train in a process, and kill it when it has made this checkpoint."""
    process = start(SETTINGS, workspace)
    wait_for(workspace.models / "one" / f"checkpoint-{step}", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_ledger(workspace.models / "one") is None


def check_same(workspace: Workspace, other: Workspace) -> None:
    for name in ("model.safetensors", "metrics.jsonl", "samples.jsonl", "ledger.json"):
        if name == "samples.jsonl" and not (workspace.models / "one" / name).exists():
            continue
        assert (other.models / "one" / name).read_bytes() == (workspace.models / "one" / name).read_bytes(), name


def test_killed_and_resumed_equals_undisturbed(workspace: Workspace, tmp_path: Path) -> None:
    lay_all(workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    run(config_of(SETTINGS), workspace)
    kill_after(4, other)
    with (other.models / "one" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "lo')  # as a crash may leave it
    with (other.models / "one" / "samples.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "prompt": "a", "text": "')
    resumed = run(config_of(SETTINGS), other)
    assert resumed.details["resumed_from"] >= 4
    check_same(workspace, other)
    assert [step for step, _ in losses(other)] == [3, 4, 6, 8, 9, 12, 15, 16, 18]


@pytest.mark.slow
def test_killed_again_and_again(workspace: Workspace, tmp_path: Path) -> None:
    """At seeded random moments, also before the first checkpoint and while one is written."""
    settings = {"epochs": 30.0, "dropout": 0.1}
    lay_all(workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    run(config_of(settings), workspace)
    random = np.random.default_rng(0)
    kills = 0
    while read_ledger(other.models / "one") is None and kills < 60:
        process = start(settings, other)
        try:
            process.communicate(timeout=random.uniform(3, 12))
        except subprocess.TimeoutExpired:
            kills += 1
            process.kill()
            process.communicate()
    assert kills >= 3
    run(config_of(settings), other)
    check_same(workspace, other)


def test_two_processes_give_the_curve_of_one(workspace: Workspace, tmp_path: Path) -> None:
    """One reads rows of its workspace, two the same rows from a URL."""
    settings = {"epochs": 1.5, "dropout": 0.0}
    other, files = Workspace(tmp_path / "other"), contents(lay_all(workspace))
    one = run(config_of(settings), workspace)
    with Server({f"/{name}": data for name, data in files.items()}) as server:
        remote = {"rows": server.url(), "cache": tmp_path / "cache", "report_to": ("tensorboard",)}
        said = finish(torchrun(settings | remote, other, processes=2))
        fetches = [len(server.requests(f"/{name}")) for name in files if name.endswith(".arrow")]
    assert fetches == [1] * 4  # by one of the processes
    assert len(list((other.models / "one" / "tensorboard").iterdir())) == 1
    assert "2 processes" in said
    assert said.count("training tokens") == 1  # only the first speaks
    two = read_ledger(other.models / "one")
    assert two is not None
    assert [step for step, _ in losses(other)] == [step for step, _ in losses(workspace)]
    assert [loss for _, loss in losses(other)] == pytest.approx([loss for _, loss in losses(workspace)], rel=1e-4)
    for name in ("steps", "rows", "tokens", "parameters"):
        assert two.counts[name] == one.ledger.counts[name]
    for dataset, figures in one.ledger.counts["validation"].items():
        assert two.counts["validation"][dataset] == pytest.approx(figures, rel=1e-3)
    assert two.fingerprint == one.ledger.fingerprint


@pytest.mark.slow
def test_muon_in_two_processes_gives_the_curve_of_one(workspace: Workspace, tmp_path: Path) -> None:
    """Muon orthogonalizes in bf16, so the order in which gradients are added shows in the third digit."""
    settings = {"epochs": 1.5, "dropout": 0.0, "optimizer": "muon", "schedule": "wsd"}
    lay_all(workspace)
    other = Workspace(shutil.copytree(workspace.root, tmp_path / "other"))
    run(config_of(settings), workspace)
    finish(start_several(settings, other, processes=2))
    assert [loss for _, loss in losses(other)] == pytest.approx([loss for _, loss in losses(workspace)], rel=1e-2)


def test_no_room_for_a_checkpoint_is_said_and_resumable(workspace: Workspace) -> None:
    lay_all(workspace)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, words in ((300_000, "File too large"), (900_000, "cannot be written")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # less than the weights, less than Adam's moments
        try:
            with pytest.raises(DiskError, match=words) as caught:
                run(config_of(SETTINGS), workspace)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "limit" in caught.value.hint
        assert not list((workspace.models / "one").glob("checkpoint-*"))
    assert run(config_of(SETTINGS), workspace).ledger.counts["steps"] == 18
    assert not (workspace.models / "one" / ".saving").exists()


def test_a_failure_of_several_processes_is_said_once(workspace: Workspace) -> None:
    for changes, words in (
        ({}, ("holds no packed rows", "Run `corpus pack` first")),
        ({"epochs": 0.0}, ("--epochs must be greater than 0", "Usage:")),
    ):
        process = start_several(SETTINGS | changes, workspace, processes=2)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert [errors.count(word) for word in words] == [1, 1], errors


def test_an_interrupt_ends_with_130(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_all(workspace)

    def interrupt(self: Console, amount: int) -> None:
        if (workspace.models / "one" / "checkpoint-4").exists():
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Console, "advance", interrupt)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job begins with Ctrl-C switched off
    try:
        with pytest.raises(SystemExit) as leave:
            main(flags_of(SETTINGS, workspace))
    finally:
        signal.signal(signal.SIGINT, before)
    assert leave.value.code == 130
    assert "Run the same command again" in capsys.readouterr().err
    assert run(config_of(SETTINGS), workspace).details["resumed_from"] == 4
