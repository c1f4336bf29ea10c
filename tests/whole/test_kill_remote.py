"""Killed at any moment, on this machine or another, a workspace in a storage ends with the bytes of a local run.

Real processes with workers, killed at seeded moments, each time with the working copy of before or with none: on a
disk, and on a real S3 server behind a proxy that answers badly.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from corpus.pipeline.store import open_store
from tests.support import object_server, remote, way_source
from tests.support.faults import FaultyProxy
from tests.support.forked import Forked
from tests.support.outputs import outputs
from tests.support.records import ROOT, Shared
from tests.support.remote import differing, expected, forget, lay_source, objects

STRIKES = 4


def run(url: str, cache: Path, source: Path, *, kill_after: float | None = None) -> float:
    """A run with two workers, killed after some seconds if it takes so long; returns how long it took."""
    begun = time.monotonic()
    process = Forked([sys.executable, "-m", remote.__name__, url, str(cache), str(source), "2"], cwd=ROOT)
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0 or kill_after is not None, errors
    return time.monotonic() - begun


def come_through(url: str, caches: Path, source: Path, chance: random.Random, seconds: float) -> None:
    """Runs that are killed, each on one of two machines, then one that is not."""
    for _ in range(STRIKES):
        cache = caches / str(chance.randrange(2))
        if chance.random() < 0.3:
            forget(cache)
        run(url, cache, source, kill_after=chance.uniform(0.1, seconds))
    run(url, caches / "last", source)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_killed_on_a_disk(seed: int, tmp_path: Path) -> None:
    source, chance = lay_source(tmp_path / "source"), random.Random(seed)
    wanted = expected(tmp_path / "local", source)
    seconds = run(f"file://{tmp_path}/first", tmp_path / "first-cache", source)
    url = f"file://{tmp_path}/bucket"
    assert not differing(objects(f"file://{tmp_path}/first"), wanted)
    come_through(url, tmp_path / "caches", source, chance, seconds)
    assert not differing(objects(url), wanted)
    assert not open_store(url).keys(".claims")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_on_the_way_through_all_stages(
    seed: int, tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, chance = shared("remote-way", way_source.lay_source), random.Random(seed)

    def walk(place: str, kill_after: float | None = None) -> None:
        way, files = ROOT / "tests" / "support" / "way.py", (source / "baike2018qa.zip", source / "exam.jsonl")
        process = Forked([sys.executable, str(way), place, *map(str, files)])
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0 or kill_after is not None, errors

    begun = time.monotonic()
    walk(str(tmp_path / "local"))
    seconds, url = time.monotonic() - begun, f"file://{tmp_path}/bucket"
    for _ in range(6):
        cache = tmp_path / str(chance.randrange(2))
        monkeypatch.setenv("CORPUS_CACHE", str(cache))
        walk(url, chance.uniform(0.2, seconds))
        if chance.random() < 0.3:
            forget(cache)
    walk(url)
    assert not differing(objects(url), outputs(tmp_path / "local"))


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
@pytest.mark.parametrize("seed", range(2))
def test_killed_on_s3_behind_a_proxy_that_answers_badly(
    seed: int, tmp_path: Path, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, chance = lay_source(tmp_path / "source"), random.Random(seed)
    wanted = expected(tmp_path / "local", source)
    with FaultyProxy(s3_server, seed=seed, share=0.1) as proxy:
        for name, value in object_server.environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        first, url = (f"s3://{object_server.BUCKET}/{name}-{seed}" for name in ("first", "kills"))
        seconds = run(first, tmp_path / "first-cache", source)
        assert not differing(objects(first), wanted)
        come_through(url, tmp_path / "caches", source, chance, seconds)
        assert not differing(objects(url), wanted)
        assert not open_store(url).keys(".claims")
        assert proxy.faults.total() > 20
