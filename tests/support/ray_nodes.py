"""A Ray cluster of nodes in network namespaces, each with disks, processes and a cache of its own.

In: the folder of the caches, which is an empty disk of its own on each node; names of the environment. Out: nodes,
numbered from 1. The first is the head, where a job runs: the module's main part, which walks to rows on the cluster.
Its arguments: the URL of the workspace, the folder of the archive, the number of nodes, and a file, into which it
pickles the objects.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

import psutil

from corpus.pipeline.engine.dispatch import Deadline
from corpus.pipeline.engine.ray_engine import RayEngine
from corpus.pipeline.store import open_workspace
from corpus.pipeline.workers import running_on
from tests.support.nodes import Nodes, address
from tests.support.remote import objects, walk

PORT = 6379
SETTINGS = {
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
    "RAY_grpc_client_keepalive_time_ms": "3000", "RAY_grpc_client_keepalive_timeout_ms": "3000",
    "RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "4000",
}  # fmt: skip
"""Lost nodes are found sooner than a cluster should: its network can be slow for ten seconds."""
_ALONE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
_DISKS = 'mkdir -p /tmp/ray "$CORPUS_CACHE"; mount -t tmpfs none /tmp/ray; mount -t tmpfs none "$CORPUS_CACHE"'


class RayNodes:
    """The cluster in `Nodes`, whose end is its end."""

    def __init__(self, nodes: Nodes, folder: Path, environment: Mapping[str, str]) -> None:
        self.nodes, self.folder, self.cache = nodes, folder, folder / "cache"
        self._environment = {**SETTINGS, "CORPUS_CACHE": str(self.cache), **environment}
        self._inits: dict[int, int] = {}

    def start(self, node: int, job: tuple[str, ...] = ()) -> Popen[str]:
        """Start a node of one slot; the process ends with the job, or not by itself."""
        where = f"--address={address(1)}:{PORT}" if node > 1 else f"--head --port={PORT} --include-dashboard=false"
        ray = (
            f"{sys.executable} -m ray.scripts.scripts start {where} --node-ip-address={address(node)} --num-cpus=1 "
            f"--object-store-memory={80 << 20} --block"
        )
        then = f"{sys.executable} -m {__name__} {' '.join(job)}" if job else "wait"
        script = f"exec >{self.folder}/node{node}.log 2>&1; {_DISKS}; {ray} & {then}"
        process = self.nodes.start(node, [*_ALONE, "sh", "-c", script], self._environment)
        self._inits[node] = process.pid
        return process

    def made(self, node: int, pattern: str) -> int:
        """How many files of such names are in the cache of a node."""
        inside = psutil.Process(self._inits[node]).children()
        root = Path(f"/proc/{inside[0].pid}/root") if inside else Path("/nowhere")
        return len(list(Path(f"{root}{self.cache}").glob(f"workspaces/*/{pattern}")))

    def logs(self) -> str:
        """The end of what each node has written."""
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


def _wait_for(nodes: int) -> None:
    """Until the cluster has so many nodes."""
    import ray

    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            ray.init(address=f"{address(1)}:{PORT}", log_to_driver=False, logging_level="ERROR")
        except Exception:  # noqa: BLE001  # it has not started; Ray raises no class of its own
            time.sleep(1)
            continue
        while sum(node["Alive"] for node in ray.nodes()) < nodes and time.monotonic() < until:
            time.sleep(0.5)
        ray.shutdown()
        return


if __name__ == "__main__":
    url, source, count, found = sys.argv[1:]
    _wait_for(int(count))
    engine = RayEngine(f"{address(1)}:{PORT}", tell=print, deadline=Deadline(least_s=20.0))
    engine.join()
    with running_on(engine):
        walk(open_workspace(url), Path(source))
    engine.close()
    Path(found).write_bytes(pickle.dumps(objects(url)))
