"""The lock of a workspace: one command, or several jobs of one stage."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from corpus.pipeline.errors import BusyError, DiskError
from corpus.pipeline.workspace import lock
from corpus.pipeline.workspace.layout import Workspace

HOLD = """
import sys, time
from pathlib import Path
from corpus.pipeline.workspace.layout import Workspace
with Workspace(Path(sys.argv[1])).sharing("ingest --shard 2/2", "ingest"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second writer waits for a moment."""
    for name in ("WAIT_S", "JOB_WAIT_S"):
        monkeypatch.setattr(f"corpus.pipeline.workspace.lock.{name}", 0.1)


def test_jobs_of_one_stage_share_a_workspace(workspace: Workspace) -> None:
    with contextlib.ExitStack() as jobs:
        for number in range(1, 4):
            jobs.enter_context(Workspace(workspace.root).sharing(f"ingest --shard {number}/3", "ingest"))
        with (
            pytest.raises(BusyError, match=r"`corpus ingest --shard 3/3`, process \d+ on \S+, or another job"),
            Workspace(workspace.root).writing("pack"),
        ):
            pass
        with (
            pytest.raises(BusyError, match="`corpus ingest --shard 3/3`"),
            Workspace(workspace.root).sharing("ingest --shard 1/3", "ingest with other settings"),
        ):
            pass
    with Workspace(workspace.root).sharing("pack --shard 1/3", "pack"):
        pass
    with Workspace(workspace.root).writing("pack"):
        assert (workspace.root / lock.HOLDER).read_text().startswith("`corpus pack`")
    assert not (workspace.root / lock.HOLDER).exists()


def test_a_job_is_refused_beside_a_command_that_writes(workspace: Workspace) -> None:
    with (
        workspace.writing("pack"),
        pytest.raises(BusyError, match="`corpus pack`") as refused,
        Workspace(workspace.root).sharing("ingest --shard 1/3", "ingest"),
    ):
        pass
    assert "wait" in refused.value.hint


def test_jobs_of_another_kind_come_while_the_first_makes_its_lock_a_shared_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system releases an exclusive lock before it takes the shared one."""
    flock, others = fcntl.flock, contextlib.ExitStack()

    def slow(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_SH:
            monkeypatch.setattr("fcntl.flock", flock)
            flock(descriptor, fcntl.LOCK_UN)
            others.enter_context(Workspace(workspace.root).sharing("pack --shard 1/2", "pack"))
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", slow)
    with others, pytest.raises(BusyError, match="`corpus pack --shard 1/2`"), workspace.sharing("ingest", "ingest"):
        pass
    with workspace.sharing("ingest --shard 1/2", "ingest"):
        pass


def test_a_killed_job_holds_nothing(workspace: Workspace) -> None:
    """Though `.lock.holder` still names it."""
    with subprocess.Popen([sys.executable, "-c", HOLD, workspace.root], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="--shard 2/2"), workspace.writing("pack"):
            pass
        job.kill()
    with workspace.sharing("pack --shard 1/2", "pack"):
        assert "pack --shard 1/2" in (workspace.root / lock.HOLDER).read_text()


def test_a_file_system_without_locks_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    named = f"{workspace.root}: the file system has no locks"
    with pytest.raises(DiskError, match=named) as refused, workspace.writing("pack"):
        pass
    assert "--workspace" in refused.value.hint


def test_one_after_another(tmp_path: Path) -> None:
    """`alone` waits for the other, which is in another process."""
    code = (
        "import sys, time, pathlib\n"
        "from corpus.pipeline.workspace import lock\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "with lock.alone(place / 'it'):\n"
        "    print('in', flush=True)\n"
        "    time.sleep(0.3)\n"
        "    (place / 'left').touch()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with lock.alone(tmp_path / "it"):
            assert (tmp_path / "left").exists()


def test_who_waits_for_long_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SOON_S", 0.1)
    told = list[str]()

    def wait() -> None:
        with lock.alone(tmp_path / "file", waits=lambda: told.append("waiting")):
            pass

    wait()
    assert told == []
    second = threading.Thread(target=wait)
    with lock.alone(tmp_path / "file"):
        second.start()
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert second.is_alive()
    second.join(20)
    assert told == ["waiting"]
