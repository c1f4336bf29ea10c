"""Killed at any moment, in any way, the next run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from .conftest import baike, lines
from .test_ingest import TRAIN, VALID, tree

WAY = Path(__file__).with_name("way.py")
ENDS_WITHIN_S = 10


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose way to rows takes some seconds."""
    chance = random.Random(3)
    records = [baike(n, answer="。".join(f"第{chance.randrange(999)}步要做好" for _ in range(12))) for n in range(3000)]
    folder = tmp_path_factory.mktemp("source")
    with zipfile.ZipFile(folder / "baike2018qa.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(TRAIN, lines(records[:2900]))
        out.writestr(VALID, lines(records[2900:]))
    return folder / "baike2018qa.zip"


def start(workspace: Path, archive: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WAY, workspace, archive], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What an undisturbed run leaves, and how long it takes here."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "workspace"
    begin = time.monotonic()
    process = start(workspace, archive)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return outputs(workspace), time.monotonic() - begin


def outputs(workspace: Path) -> dict[str, bytes]:
    left = {
        name: data for name, data in tree(workspace).items() if not name.startswith(".") and "origin.json" not in name
    }
    assert not [name for name in left if name.endswith((".tmp", ".part"))]
    return left


def strike(process: subprocess.Popen[str], how: str, chance: random.Random) -> None:
    """Kill the command, one of its workers, or ask it to stop."""
    try:
        if how == "worker":
            workers = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            ]
            if workers:
                chance.choice(workers).kill()
        else:
            process.send_signal({"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[how])
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass


def survives(seed: int, archive: Path, undisturbed: tuple[dict[str, bytes], float], workspace: Path) -> int:
    """Strike at seeded random moments until a run comes through; returns the number of strikes."""
    expected, seconds = undisturbed
    chance = random.Random(seed)
    strikes = 0
    for _ in range(40):
        process = start(workspace, archive)
        children: list[psutil.Process] = []
        try:
            process.wait(chance.uniform(0.2, seconds * 1.1))
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children(recursive=True)
            strike(process, chance.choice(["kill", "kill", "worker", "interrupt", "terminate"]), chance)
            strikes += 1
        out, errors = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=ENDS_WITHIN_S)
        assert not alive, f"workers outlive their command: {alive}"
        if process.returncode == 0:
            assert out.strip() == "done"
            assert outputs(workspace) == expected
            return strikes
    pytest.fail(f"no run came through: {errors}")


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_moments(
    seed: int, archive: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    survives(seed, archive, undisturbed, tmp_path / "workspace")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_killed_at_many_random_moments(
    seed: int, archive: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    survives(seed, archive, undisturbed, tmp_path / "workspace")


def test_a_dead_worker_is_named(archive: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "workspace", archive)
    documents = tmp_path / "workspace/documents/baike2018qa"
    deadline = time.monotonic() + 60
    while not list(documents.glob("part-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    strike(process, "worker", random.Random(1))
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    if process.returncode:  # the last piece may have been done before the strike
        assert "WorkerError" in errors
        assert time.monotonic() - begin < ENDS_WITHIN_S
        assert not (documents / "ledger.json").exists()
    os.sync()
