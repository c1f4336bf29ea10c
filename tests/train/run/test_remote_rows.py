"""Training on rows that are elsewhere: the run of local rows, fetched once and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.errors import ObjectMissingError, StoreError, WorkspaceError
from corpus.pipeline.inspect import status, verify
from corpus.pipeline.store import Retry, Store, open_store
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from tests.support import object_server
from tests.support.faults import FaultyProxy
from tests.support.packed import contents, lay_all
from tests.support.runs import SETTINGS, Recorder, history

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def local(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Report]:
    """Rows on this machine, and a run on them."""
    workspace = lay_all(Workspace(tmp_path_factory.mktemp("local") / "workspace"))
    return workspace, run(TrainConfig(**SETTINGS), workspace)


def uploaded(workspace: Workspace, place: str) -> Store:
    """A store with the files of a workspace."""
    store = open_store(place, retry=Retry(sleep=lambda _: None))
    for name, data in contents(workspace).items():
        store.write(name, data)
    return store


def config(place: str, tmp_path: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**SETTINGS | {"rows": place, "cache": tmp_path / "cache"} | changes)


def test_the_run_is_that_of_local_rows(local: tuple[Workspace, Report], workspace: Workspace, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/rows"
    store = uploaded(local[0], place)
    recorder = Recorder()
    report = run(config(place, tmp_path), workspace, progress=recorder)
    assert f"from {place}" in recorder.said[0]
    assert report.ledger == local[1].ledger
    assert history(report.folder) == history(local[1].folder)
    assert {path.name for path in workspace.root.iterdir()} == {"models"}
    (row,) = status.survey(workspace)
    assert (row.state, row.why) == (
        "finished", "its rows are not in this workspace: they were read by --rows, or deleted",
    )  # fmt: skip
    assert verify.run(workspace).stages == 1
    for name in contents(local[0]):
        if name.endswith(".arrow"):
            store.delete(name)
    again = run(config(place, tmp_path, resume=False, max_steps=1), workspace, progress=recorder)
    assert again.ledger.counts["steps"] == 1  # from the cache
    assert sum("fetching" in line for line in recorder.said) == 1


def test_what_is_not_at_the_url_is_named(local: tuple[Workspace, Report], workspace: Workspace, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}"
    with pytest.raises(WorkspaceError, match=f"^{place} holds no packed rows of a known dataset$"):
        run(config(place, tmp_path), workspace)
    store = uploaded(local[0], place)
    with pytest.raises(ObjectMissingError, match=r"/packed/baike2018qa/ledger\.json is not there") as caught:
        run(config(place, tmp_path, datasets=("baike2018qa",)), workspace)
    assert "packed/baike2018qa/" in caught.value.hint
    with pytest.raises(StoreError, match=r"^--dataset \.\./x is no name"):
        run(config(place, tmp_path, datasets=("../x",)), workspace)
    with pytest.raises(StoreError, match=r"the rows have [\d,]+ bytes, and each step reads rows of all files"):
        run(config(place, tmp_path, cache_bytes=100), workspace)
    store.write("packed/demo/ledger.json", b"{}")
    with pytest.raises(StoreError, match=r"/packed/demo/ledger\.json is no ledger"):
        run(config(place, tmp_path), workspace)
    store.delete("tokenizer/ledger.json")
    with pytest.raises(ObjectMissingError, match=r"/tokenizer/ledger\.json is not there"):
        run(config(place, tmp_path, datasets=("wiki2019zh",)), workspace)


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_rows_in_a_bucket_behind_faults(
    local: tuple[Workspace, Report], workspace: Workspace, tmp_path: Path, s3_server: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = f"s3://{object_server.BUCKET}/{tmp_path.name}"
    with FaultyProxy(s3_server, seed=7) as proxy:
        for name, value in object_server.environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        uploaded(local[0], place)
        report = run(config(place, tmp_path), workspace)
        assert {"503", "500", "500 afterwards", "cut", "late"} == set(proxy.faults)
    assert report.ledger == local[1].ledger
    assert history(report.folder) == history(local[1].folder)
