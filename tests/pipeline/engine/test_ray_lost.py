"""Ray's nodes and commands that die, and nodes with other versions: each test has a cluster of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from corpus.pipeline import engine
from corpus.pipeline.engine.ray_engine import SETTINGS
from corpus.pipeline.errors import EngineError
from corpus.pipeline.workers import run_pieces
from tests.support import ray_job, ray_pieces
from tests.support.documents import TRAIN
from tests.support.outputs import outputs
from tests.support.records import LayRaw, baike, lines

pytestmark = [
    pytest.mark.slow, pytest.mark.ray, pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: make ray installs it"),
]  # fmt: skip


def started(start: Callable[[], Any]) -> Any:
    """A node of a cluster; on a busy machine it can take longer than the 30 s that Ray waits."""
    for _ in range(2):
        with contextlib.suppress(Exception):  # Ray raises no class of its own
            return start()
    return start()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head of one slot; tests add nodes."""
    for name, value in (SETTINGS | {"RAY_AUTH_TOKEN": "0" * 64}).items():
        monkeypatch.setenv(name, os.environ.get(name, value))  # Ray reads them once a process, when it is imported
    from ray.cluster_utils import Cluster

    made = Cluster()
    started(lambda: made.add_node(num_cpus=1, include_dashboard=False))
    yield made
    made.shutdown()


def test_rerun_after_a_killed_driver_ends_with_the_same_bytes(tmp_path: Path, lay_raw: LayRaw) -> None:
    lay_raw("baike2018qa", {TRAIN: lines(map(baike, range(400)))})
    near, far = tmp_path / "workspace", tmp_path / "far"
    shutil.copytree(near, far)
    subprocess.run([sys.executable, "-m", ray_job.__name__, near, "local"], check=True)
    receipts = far / "documents" / "baike2018qa" / "receipts"
    with subprocess.Popen([sys.executable, "-m", ray_job.__name__, far, "ray"]) as driver:
        until = time.monotonic() + 300
        while not list(receipts.glob("*/*.json")) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    assert not (receipts.parent / "ledger.json").exists()
    subprocess.run([sys.executable, "-m", ray_job.__name__, far, "ray"], check=True, timeout=300)
    assert outputs(far) == outputs(near)


def test_node_with_another_opencc_is_named(cluster: Any, tmp_path: Path) -> None:
    other = tmp_path / "opencc-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: OpenCC\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    started(lambda: cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path}))
    with (
        pytest.raises(EngineError, match=r"would write other bytes: it has OpenCC 0\.0\.1 \(here "),
        engine.using("ray", address=cluster.address),
    ):
        pass


def test_killed_node_has_its_pieces_made_elsewhere(cluster: Any, tmp_path: Path) -> None:
    lost = started(lambda: cluster.add_node(num_cpus=2))
    (raylet,) = lost.all_processes["raylet"]
    begun = list[str]()

    def kill() -> None:
        """Kill the node with its workers while it makes its first piece."""
        until = time.monotonic() + 100
        while not begun and time.monotonic() < until:
            begun.extend(path.stem for path in tmp_path.glob(f"*.{raylet.process.pid}"))
            time.sleep(0.01)
        node = psutil.Process(raylet.process.pid)
        for process in [node, *node.children(recursive=True)]:
            process.kill()

    with engine.using("ray", address=cluster.address):
        killing = threading.Thread(target=kill)
        killing.start()
        assert list(run_pieces(partial(ray_pieces.slow, folder=tmp_path), range(8), workers=0)) == list(range(8))
        killing.join()
    assert len(list(tmp_path.glob(f"{begun[0]}.*"))) > 1  # it was tried again
