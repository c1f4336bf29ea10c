"""Training by blocks of shards: the same curve from a disk and through a cache that holds a part of the rows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.errors import DamageError, StoreError
from corpus.pipeline.store import Retry, Store, open_store
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report
from corpus.train.config import TrainConfig
from corpus.train.run import dry_run
from corpus.train.run.stage import run
from tests.support.packed import contents, lay_all
from tests.support.runs import SETTINGS, history

pytestmark = pytest.mark.usefixtures("narrow")
BLOCKS: dict[str, Any] = SETTINGS | {"shuffle": "block", "shuffle_block": 2, "batch_size": 4}
SHARD_ROWS = 3
DIGEST = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def local(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Report]:
    """Rows in shards of three on this machine, and a run on them."""
    root = tmp_path_factory.mktemp("local") / "workspace"
    workspace = lay_all(Workspace(root), shard_rows=SHARD_ROWS)
    return workspace, run(TrainConfig(**BLOCKS), workspace)


@pytest.fixture
def place(local: tuple[Workspace, Report], tmp_path: Path) -> str:
    """A store with these rows."""
    url = f"memory://{tmp_path.name}/rows"
    store = open_store(url, retry=Retry(sleep=lambda _: None))
    for name, data in contents(local[0]).items():
        store.write(name, data)
    return url


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[list[int]]:
    """The bytes that the files of the cache take, measured all the time, half-written ones included."""
    sizes, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            total = 0
            for path in (tmp_path / "cache").glob("*"):
                try:
                    total += path.stat().st_size if DIGEST.search(path.name) else 0
                except FileNotFoundError:
                    continue
            sizes.append(total)
            time.sleep(0.001)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield sizes
    over.set()
    thread.join()


def least_bytes(place: str, tmp_path: Path) -> int:
    """The bound of which a too small one is told."""
    with pytest.raises(StoreError, match=r"^--cache-bytes 24000: two blocks of 2 shards") as caught:
        run(TrainConfig(**BLOCKS, rows=place, cache=tmp_path / "other", cache_bytes=24_000), Workspace(tmp_path / "w"))
    return int(caught.value.hint.split()[2])


def test_a_cache_of_a_part_of_the_rows_gives_the_curve_of_local_rows(
    local: tuple[Workspace, Report], place: str, workspace: Workspace, tmp_path: Path, watched: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bound = least_bytes(place, tmp_path)
    all_bytes = sum(len(data) for name, data in contents(local[0]).items() if not name.endswith("ledger.json"))
    fetched = list[str]()
    copy = Store.local_copy

    def slow_copy(self: Store, key: str, path: Path, **others: Any) -> None:
        time.sleep(0.02)
        fetched.append(key)
        copy(self, key, path, **others)

    monkeypatch.setattr(Store, "local_copy", slow_copy)
    report = run(TrainConfig(**BLOCKS, rows=place, cache=tmp_path / "cache", cache_bytes=bound), workspace)
    assert report.ledger == local[1].ledger
    assert history(report.folder) == history(local[1].folder)
    assert max(watched) <= bound < all_bytes
    shards = [name for name in fetched if "/train/" in name and name.endswith(".arrow")]
    assert len(set(shards)) == 14
    assert len(shards) > 14  # the second epoch fetches again what was deleted


def test_a_run_resumes_in_the_same_order(
    local: tuple[Workspace, Report], place: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BLOCKS | {"rows": place, "cache": tmp_path / "cache", "cache_bytes": least_bytes(place, tmp_path)}
    store = open_store(place)
    lost = "packed/demo/train/data-00003.arrow"
    data = store.read(lost)
    store.write(lost, data[:-1] + b"x")
    monkeypatch.setattr("corpus.pipeline.store.retry.Retry.wait", lambda *_: None)
    with pytest.raises(StoreError, match=rf"{lost}: it has other bytes than expected"):
        run(TrainConfig(**settings), workspace)
    assert list(workspace.models.glob("*/checkpoint-*"))
    store.write(lost, data)
    report = run(TrainConfig(**settings), workspace)
    assert report.details["resumed_from"] > 0
    assert history(report.folder) == history(local[1].folder)


def test_processes_that_make_batches_wait_for_shards(
    local: tuple[Workspace, Report], place: str, workspace: Workspace, tmp_path: Path
) -> None:
    report = run(TrainConfig(**BLOCKS, rows=place, cache=tmp_path / "cache", workers=2), workspace)
    assert history(report.folder) == history(local[1].folder)


def test_the_order_is_part_of_the_run(local: tuple[Workspace, Report]) -> None:
    assert local[1].ledger.config["shuffle_block"] == 2
    names = {
        dry_run.run(TrainConfig(**SETTINGS | changes), local[0]).run
        for changes in ({}, {"shuffle": "block"}, {"shuffle": "block", "shuffle_block": 2})
    }
    assert len(names) == 3


def test_tokens_are_those_of_the_opened_rows(local: tuple[Workspace, Report]) -> None:
    full = dry_run.run(TrainConfig(**SETTINGS), local[0])
    assert dry_run.run(TrainConfig(**BLOCKS), local[0]).mixture == full.mixture


def test_shards_that_are_not_what_the_ledger_counts_are_named(workspace: Workspace) -> None:
    lay_all(workspace)
    with pytest.raises(DamageError, match=r"train/data-00000\.arrow does not say how many rows"):
        run(TrainConfig(**BLOCKS), workspace)
