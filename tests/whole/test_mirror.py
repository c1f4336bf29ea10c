"""The real job in small: the shared sample of all five corpora, from a folder and through a server that breaks off."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from corpus.pipeline.clean.quality import QUALITY
from corpus.pipeline.inspect.verify import run as verify
from corpus.pipeline.manifest import CORPORA, load
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.command import CORPUS, corpus_process
from tests.support.documents import tree
from tests.support.server import Behaviour, Server

pytestmark = [pytest.mark.mirror, pytest.mark.xdist_group("mirror")]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five from a folder."""
    from tests.support.records import MIRROR

    if not (MIRROR / "SHA256SUMS").is_file():
        pytest.skip("the shared sample of real text is not here")
    folder = tmp_path_factory.mktemp("local")
    corpus_process("ingest", "--source", MIRROR, folder=folder)
    return folder


def test_all_five_balance_and_verify(local: Path) -> None:
    workspace = Workspace(local / "workspace")
    assert workspace.finished("documents") == sorted(CORPORA)
    for name in CORPORA:
        ledger = read_ledger(workspace.documents(name))
        assert ledger is not None
        counts = ledger.counts
        assert counts["records"] == counts["documents"] + sum(counts["dropped"].values())
        assert set(counts["dropped"]) <= {"empty", *QUALITY}
        assert sum(counts["dropped"].values()) - counts["dropped"].get("too_short", 0) < 0.005 * counts["records"]
    found = verify(workspace)
    assert found.stages == 11


def test_through_a_server_that_dies_in_the_middle(local: Path, mirror: Path, tmp_path: Path) -> None:
    archives = {f"/corpora/{load(name).archive}": (mirror / load(name).archive).read_bytes() for name in CORPORA}
    archives["/corpora/SHA256SUMS"] = (mirror / "SHA256SUMS").read_bytes()
    middle = f"/corpora/{load('baike2018qa').archive}"
    with Server(archives) as server:
        source = server.url("/corpora")
        server.always(middle, Behaviour(cut_at=900_000, hang_s=0.0))
        server.script(middle, Behaviour(piece_bytes=20_000, pause_s=0.05))
        command: list[str | Path] = [CORPUS, "ingest", "--source", source]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        part = tmp_path / "workspace/raw/baike2018qa/baike2018qa.zip.part"
        deadline = time.monotonic() + 120
        while not (part.is_file() and part.stat().st_size > 200_000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left = part.stat().st_size
        server.forget()
        server.always(middle, Behaviour())
        done = corpus_process("ingest", "--source", source, folder=tmp_path)
        assert done.stdout.count("was finished") == 2
        assert f"bytes={left}-" in server.ranges(middle)
    for area in ("documents",):
        for name in CORPORA:
            assert tree(tmp_path / "workspace" / area / name) == tree(local / "workspace" / area / name), name
