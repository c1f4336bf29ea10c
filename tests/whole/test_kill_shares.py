"""Jobs of an array, killed at random moments, requeued, and two of one share at once, end with the bytes of one run.

Real processes and seeded moments: just after so many pieces are finished, or while one is written.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from corpus.pipeline.workspace.layout import Workspace
from tests.support import job
from tests.support.documents import TRAIN, VALID
from tests.support.forked import Forked
from tests.support.outputs import outputs
from tests.support.packed import lay_tokenizer
from tests.support.records import LayRaw, baike, lines

STAGES = {"ingest": "documents/baike2018qa", "pack": "packed/baike2018qa"}
ROUNDS = 20


def wait_for_moment(processes: list[Forked], folder: Path, chance: random.Random) -> None:
    """Wait until some more pieces are finished, or until a file is being written."""

    def finished() -> int:
        return len(list(folder.glob("receipts/*/*.json")))

    some, half = finished() + chance.randrange(4), chance.random() < 0.5
    while any(process.poll() is None for process in processes):
        if finished() >= some and (not half or any(folder.rglob(".*.tmp"))):
            return
        time.sleep(0.001)


def run_array(workspace: Path, stage: str, count: int, chance: random.Random) -> int:
    """Run all jobs of an array, one of them twice, and requeue those that are killed; returns the strikes."""
    waiting = [f"{index}/{count}" for index in range(1, count + 1)]
    waiting.append(chance.choice(waiting))
    strikes = 0
    for round_ in range(ROUNDS):
        processes = [Forked([sys.executable, job.__file__, workspace, stage, share]) for share in waiting]
        if round_ < 3:
            wait_for_moment(processes, workspace / STAGES[stage], chance)
            for process in chance.sample(processes, min(2, len(processes))):
                process.kill()
        failed = []
        for share, process in zip(waiting, processes, strict=True):
            _, errors = process.communicate(timeout=100)
            if process.returncode:
                assert process.returncode == -signal.SIGKILL, errors
                strikes += 1
                failed.append(share)
        waiting = failed
        if not waiting:
            return strikes
    pytest.fail("the jobs did not come through")


@pytest.mark.parametrize("seed", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(12)])
def test_killed_requeued_and_doubled_jobs(seed: int, workspace: Workspace, lay_raw: LayRaw) -> None:
    chance = random.Random(seed)
    records = [baike(n, answer="" if n % 40 == 0 else f"第{n}步要做好，{n * 7}次也不嫌多。") for n in range(400)]
    lay_raw("baike2018qa", {TRAIN: lines(records[:370]), VALID: lines(records[370:])})
    lay_tokenizer(workspace)
    alone = Workspace(workspace.root.with_name("alone"))
    shutil.copytree(workspace.root, alone.root)
    strikes = 0
    for stage, folder in STAGES.items():
        job.work(alone, stage, "all")
        strikes += run_array(workspace.root, stage, chance.choice((2, 3, 5)), chance)
        if seed % 3 == 2:  # the run that finishes is killed, too
            last = Forked([sys.executable, job.__file__, workspace.root, stage, "all"])
            wait_for_moment([last], workspace.root / folder, chance)
            last.kill()
            last.communicate(timeout=100)
        job.work(Workspace(workspace.root), stage, "all")
        assert outputs(workspace.root) == outputs(alone.root)
    assert strikes > 0
