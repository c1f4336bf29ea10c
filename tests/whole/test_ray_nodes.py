"""A workspace in a storage, and Ray on three nodes with networks and disks of their own; two of them are lost."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import nodes as namespaces
from tests.support import object_server, other_node
from tests.support.nodes import HUB, Nodes
from tests.support.object_server import BUCKET, READY
from tests.support.ray_nodes import RayNodes
from tests.support.remote import differing, expected, lay_source

_LACKING = namespaces.missing() or other_node.missing()
pytestmark = [
    pytest.mark.slow, pytest.mark.ray, pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: make ray installs it"),
    pytest.mark.skipif(bool(_LACKING), reason=_LACKING),
]  # fmt: skip
_DISK = "disk"
_SERVER = pytest.mark.skipif(bool(object_server.missing()), reason=object_server.missing())
_WAIT_S = 300.0


def wait_until(is_so: Callable[[], bool], logs: Callable[[], str]) -> None:
    until = time.monotonic() + _WAIT_S
    while not is_so():
        assert time.monotonic() < until, logs()
        time.sleep(0.02)


def start_server(nodes: Nodes, folder: Path) -> str:
    """SeaweedFS on the hub; gives its URL there."""
    folder.mkdir()
    server = nodes.start(0, [sys.executable, "-m", object_server.__name__, folder, HUB], {})
    wait_until(lambda: (folder / READY).exists() or server.poll() is not None, lambda: str(folder))
    return (folder / READY).read_text()


@pytest.mark.parametrize("storage", [_DISK, pytest.param("s3", marks=[pytest.mark.s3, _SERVER])])
def test_lost_nodes_do_not_change_the_objects(storage: str, tmp_path: Path) -> None:
    source, found = lay_source(tmp_path / "source", records=3000), tmp_path / "found"
    with Nodes(3) as nodes:
        url, environment = f"file://{tmp_path}/far", dict[str, str]()
        if storage != _DISK:
            url, endpoint = f"s3://{BUCKET}/far", start_server(nodes, tmp_path / "server")
            environment = object_server.environment(endpoint)
        cluster = RayNodes(nodes, tmp_path, environment)
        job = cluster.start(1, (url, str(source), "3", str(found)))
        killed, _ = cluster.start(2), cluster.start(3)

        def await_pieces(node: int, area: str) -> None:
            """Until a node has made a piece of a stage, which is then not finished."""
            receipts = f"{area}/*/receipts/*/*.json"
            wait_until(lambda: cluster.made(node, receipts) > 0 or job.poll() is not None, cluster.logs)
            assert job.poll() is None, cluster.logs()
            assert not cluster.made(1, f"{area}/*/ledger.json"), cluster.logs()

        await_pieces(2, "documents")
        nodes.kill(killed)
        await_pieces(3, "packed")
        nodes.cut(3)
        assert job.wait(_WAIT_S) == 0, cluster.logs()
    objects = pickle.loads(found.read_bytes())  # noqa: S301  # from the job
    assert not differing(objects, expected(tmp_path / "alone", source))
