"""Training on several nodes with an address each: one curve, whichever node is lost and however many go on.

Slow: it needs root, and starts eleven processes that import torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.train.run.stage import run
from tests.support import nodes
from tests.support.packed import contents, lay_all
from tests.support.server import Server
from tests.support.training import config_of, flags_of

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {"epochs": 20.0, "dropout": 0.0, "save_steps": 8}
WITHIN_S = 600.0


@pytest.fixture
def cluster() -> Iterator[nodes.Nodes]:
    """Two nodes and a hub."""
    if reason := nodes.missing():
        pytest.skip(f"no network namespaces here: {reason}")
    with nodes.Nodes(2) as found:
        yield found


class Job:
    """`corpus train` under torchrun on the nodes, `processes` of them on each."""

    def __init__(
        self, cluster: nodes.Nodes, changes: Mapping[str, Any], workspace: Workspace, processes: Mapping[int, int]
    ) -> None:
        self.cluster = cluster
        self.run = workspace.models / "one"
        first = min(processes)
        self.agents = {
            node: cluster.start(
                node,
                [
                    sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(processes)}",
                    f"--nproc-per-node={count}", "--rdzv-backend=c10d",
                    f"--rdzv-endpoint={nodes.address(first)}:29500", f"--rdzv-conf=is_host={node == first}",
                    f"--local-addr={nodes.address(node)}", "-m", "--", "corpus.pipeline.cli",
                    *flags_of({**SETTINGS, **changes, "cache": workspace.root.parent / f"cache-{node}"}, workspace),
                ],
                {"GLOO_SOCKET_IFNAME": nodes.CABLE, "OMP_NUM_THREADS": "1"},
            )
            for node, count in processes.items()
        }  # fmt: skip

    def wait_for(self, step: int) -> None:
        """Wait until it has made this checkpoint or a later one."""
        deadline = time.monotonic() + WITHIN_S
        while max((int(path.name.partition("-")[2]) for path in self.run.glob("checkpoint-*")), default=0) < step:
            for agent in self.agents.values():
                assert agent.poll() is None, agent.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finish(self, node: int) -> tuple[int, str]:
        """Exit code and messages of a node."""
        try:
            _, errors = self.agents[node].communicate(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            self.cluster.kill(self.agents[node])
            raise
        return self.agents[node].returncode, errors


def losses(workspace: Workspace) -> list[tuple[int, float]]:
    lines = (workspace.models / "one" / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def test_a_lost_node_and_other_numbers_of_processes_give_the_curve_of_one(
    cluster: nodes.Nodes, workspace: Workspace, tmp_path: Path
) -> None:
    files = contents(lay_all(workspace))
    one = run(config_of(SETTINGS), workspace)
    other = Workspace(tmp_path / "other")
    with cluster.on_hub():
        server = Server({f"/{name}": data for name, data in files.items()}, host=nodes.HUB)
    with server:
        changes = {"rows": server.url(), "ddp_timeout": 20}
        two = Job(cluster, changes, other, {1: 1, 2: 1})
        two.wait_for(8)
        cluster.kill(two.agents[2])
        code, said = two.finish(1)
        assert code != 0
        assert said.count("process 0 of 2 lost the others") == 1, said
        assert "resumes from the last checkpoint" in said
        three = Job(cluster, changes, other, {1: 2, 2: 1})
        three.wait_for(40)
        cluster.cut(2)
        code, said = three.finish(1)
        assert code != 0
        assert said.count("of 3 lost the others") == 1, said
        assert "resuming from step" in said
        cluster.kill(three.agents[2])
        cluster.mend(2)
        code, said = Job(cluster, changes, other, {2: 1}).finish(2)
        assert code == 0, said
        fetches = [len(server.requests(f"/{name}")) for name in files if name.endswith(".arrow")]
    assert fetches == [2] * 4  # once a node
    assert [step for step, _ in losses(other)] == [step for step, _ in losses(workspace)]
    assert [loss for _, loss in losses(other)] == pytest.approx([loss for _, loss in losses(workspace)], rel=1e-3)
    ledger = read_ledger(other.models / "one")
    assert ledger is not None
    assert ledger.fingerprint == one.ledger.fingerprint
