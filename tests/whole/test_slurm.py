"""Array jobs on a real Slurm: sixteen on one workspace, some cancelled, requeued or doubled; and the documented script.

Slow: it needs Slurm and root, and starts some forty processes.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support import job, slurm
from tests.support.command import CORPUS, corpus
from tests.support.copies import random_texts
from tests.support.documents import TRAIN, VALID
from tests.support.outputs import outputs
from tests.support.packed import lay_tokenizer
from tests.support.records import ROOT, LayRaw, baike, lines

pytestmark = pytest.mark.slow
JOBS = 16
WITHIN_S = 1500.0


@pytest.fixture
def cluster() -> Iterator[slurm.Slurm]:
    """A cluster of one node with eight processors, whatever the machine has."""
    if reason := slurm.missing():
        pytest.skip(f"no Slurm here: {reason}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as place:
        Path(place).chmod(0o755)  # munged wants its socket where every user can reach it
        with slurm.Slurm(Path(place), cpus=8) as found:
            yield found


def submit(cluster: slurm.Slurm, workspace: Path, stage: str, share: str, *flags: str) -> str:
    """Submit a script that does a share of a stage; returns the job's id."""
    words = f'{sys.executable} {job.__file__} {workspace} {stage} "{share}"'
    script = workspace.with_name(f"{stage}.sh")
    script.write_text(f"#!/bin/bash\nexec {words}\n")
    log = f"--output={workspace.parent}/%x-%A-%a.log"
    return cluster.run("sbatch", "--parsable", "--requeue", "--open-mode=append", log, *flags, script)


def wait_for_the_end(cluster: slurm.Slurm) -> None:
    deadline = time.monotonic() + WITHIN_S
    while cluster.jobs():
        assert time.monotonic() < deadline, cluster.jobs()
        time.sleep(0.5)


def disturb(cluster: slurm.Slurm, array: str, chance: random.Random) -> tuple[list[str], list[str]]:
    """Cancel some running jobs of an array, and requeue some, until none waits; returns both."""
    cancelled, requeued = list[str](), list[str]()
    deadline = time.monotonic() + WITHIN_S
    while any(name.startswith(f"{array}_") for name, _ in cluster.jobs()):
        assert time.monotonic() < deadline, cluster.jobs()
        running = [name for name, state in cluster.jobs() if state == "RUNNING" and name.startswith(f"{array}_")]
        fresh = [name for name in running if name not in {*cancelled, *requeued}]
        if fresh and len(cancelled) + len(requeued) < 6:
            one = chance.choice(fresh)
            time.sleep(chance.random())
            if len(requeued) < 3:
                cluster.run("scontrol", "requeue", one, check=False)  # it may have ended meanwhile
                requeued.append(one)
            else:
                cluster.run("scancel", one, check=False)
                cancelled.append(one)
        time.sleep(0.3)
    return cancelled, requeued


def test_an_array_that_is_cancelled_requeued_and_doubled(
    cluster: slurm.Slurm, workspace: Workspace, lay_raw: LayRaw
) -> None:
    chance = random.Random(int(os.environ.get("SOAK_SEED", "100")))
    texts = random_texts(1600, 80, seed=6)
    records = [baike(n, answer="" if n % 40 == 0 else f"{text}。") for n, text in enumerate(texts)]
    lay_raw("baike2018qa", {TRAIN: lines(records[:1500]), VALID: lines(records[1500:])})
    lay_tokenizer(workspace)
    alone = Workspace(workspace.root.with_name("alone"))
    shutil.copytree(workspace.root, alone.root)
    items = [{"text": str(records[n]["answer"])[:40]} for n in range(1, 1500, 9)]
    (workspace.root.parent / job.ITEMS).write_bytes(lines(items))
    for stage in ("ingest", "decontaminate", "pack", "export"):
        job.work(alone, stage, "all")
        assert sum(path.stat().st_size for path in alone.documents("baike2018qa").glob("part-*")) > 100_000
        share = f"$SLURM_ARRAY_TASK_ID/{JOBS}"
        array = submit(cluster, workspace.root, stage, share, f"--array=1-{JOBS}")
        again = submit(cluster, workspace.root, stage, share, "--array=5,9")
        cancelled, requeued = disturb(cluster, array, chance)
        assert cancelled
        assert requeued
        last = submit(cluster, workspace.root, stage, "all", f"--dependency=afterany:{array}:{again}")
        wait_for_the_end(cluster)
        logs = sorted(workspace.root.parent.glob(f"{stage}.sh-*.log"))
        assert "done" in (workspace.root.parent / f"{stage}.sh-{last}-4294967294.log").read_text(), last
        assert not [log for log in logs if "Traceback" in log.read_text()]
        assert outputs(workspace.root) == outputs(alone.root)
    there, here = (outputs(job.exporting(each).place) for each in (alone, workspace))
    assert len(there) > 10
    assert here == there
    assert len(list(workspace.decontaminate.rglob("lists/*/part-*.parquet"))) > 3


def test_the_documented_script(cluster: slurm.Slurm, tmp_path: Path) -> None:
    """As docs/cluster.md has it, with the built-in dataset, and two jobs for sixteen."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    script, commands = re.findall(r"^```\n(.*?)^```", page.partition("## Slurm")[2], re.MULTILINE | re.DOTALL)[:2]
    workspace = tmp_path / "shared"
    script = script.replace("/shared/corpus", str(workspace)).replace("news2016zh", "demo")
    (tmp_path / "ingest.sh").write_text(script.replace("1-16", "1-2").replace("ID/16", "ID/2"))
    commands = commands.replace("/shared/corpus", str(workspace)).replace("news2016zh", "demo")
    cluster.run("bash", "-c", f"set -e; cd {tmp_path}; PATH={CORPUS.parent}:$PATH; {commands}")
    wait_for_the_end(cluster)
    logs = "\n".join(path.read_text() for path in sorted(tmp_path.glob("slurm-*.out")))
    assert read_ledger(Workspace(workspace).documents("demo")) is not None, logs
    corpus("ingest", "--dataset", "demo", "--workspace", "alone", folder=tmp_path)
    assert outputs(workspace) == outputs(tmp_path / "alone")
