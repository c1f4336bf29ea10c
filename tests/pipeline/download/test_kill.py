"""A download that is killed, or meets a full disk, in a process of its own: what is left, and what a rerun makes."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from corpus.pipeline.download.stage import DownloadConfig, run
from corpus.pipeline.workspace.layout import Workspace
from tests.support.archives import FAST, NAME, A, archive, assert_unfinished, assert_whole
from tests.support.forked import Forked
from tests.support.server import Behaviour, Server

DATA = archive(11, 1_500_000)
PROGRAM = """
import resource, sys
from pathlib import Path
from corpus.pipeline.download import DownloadConfig, run
from corpus.pipeline.errors import CorpusError
from corpus.pipeline.workspace import Workspace

workspace, source, limit = Workspace(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with workspace.writing("download"):
        run(DownloadConfig(dataset="baike2018qa", source=source), workspace)
except CorpusError as error:
    print(type(error).__name__, error.message, error.hint, sep="|")
    sys.exit(1)
"""


def start(workspace: Workspace, source: str, limit: int = 0) -> Forked:
    return Forked([sys.executable, "-c", PROGRAM, str(workspace.root), source, str(limit)])


def part_bytes(workspace: Workspace) -> int:
    return sum(path.stat().st_size for path in workspace.root.rglob("*.part"))


def undisturbed(folder: Path, source: str) -> bytes:
    workspace = Workspace(folder)
    run(DownloadConfig(dataset="baike2018qa", source=source), workspace, retry=FAST)
    return (workspace.raw("baike2018qa") / "ledger.json").read_bytes()


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_in_the_middle_then_the_rerun_goes_on(tmp_path: Path, workspace: Workspace, seed: int) -> None:
    after = random.Random(seed).randrange(1, len(DATA) - 200_000)
    with Server({A: DATA}) as server:
        source = server.url("/a")
        server.script(A, Behaviour(piece_bytes=20_000, pause_s=0.005))
        process = start(workspace, source)
        deadline = time.monotonic() + 30
        while part_bytes(workspace) < after and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert_unfinished(workspace)
        left = part_bytes(workspace)
        assert left >= after

        with workspace.writing("download"):
            run(DownloadConfig(dataset="baike2018qa", source=source), workspace, retry=FAST)
        assert_whole(workspace, DATA)
        assert server.ranges(A)[-1] == f"bytes={left}-"
        ledger = (workspace.raw("baike2018qa") / "ledger.json").read_bytes()
        assert ledger == undisturbed(tmp_path / "undisturbed", source)


def test_a_full_disk_is_named_and_the_rerun_goes_on(workspace: Workspace) -> None:
    with Server({A: DATA}) as server:
        process = start(workspace, server.url("/a"), limit=700_000)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        kind, message, hint = out.strip().split("|")
        assert kind == "DiskError"
        assert message.endswith(f"{NAME}.part: File too large")
        assert "ulimit -f" in hint
        assert err == ""
        assert_unfinished(workspace)
        run(DownloadConfig(dataset="baike2018qa", source=server.url("/a")), workspace, retry=FAST)
        assert_whole(workspace, DATA)
        assert server.ranges(A)[-1] == "bytes=700000-"


def test_a_part_that_was_whole_when_the_process_died_is_only_renamed(workspace: Workspace) -> None:
    with Server({A: DATA}) as server:
        process = start(workspace, server.url("/a"), limit=len(DATA))
        process.communicate(timeout=60)
        assert process.returncode == 0
        folder = workspace.raw("baike2018qa")
        (folder / "ledger.json").unlink()
        run(DownloadConfig(dataset="baike2018qa", source=server.url("/a")), workspace, retry=FAST)
        assert_whole(workspace, DATA)
        assert server.ranges(A) == [""], "a file that is there is not asked for again"
