"""A share of an export: jobs leave what one run leaves; formats of one file for all pieces are put together last."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.pipeline.errors import BusyError, ExportError
from corpus.pipeline.export import stage as export
from corpus.pipeline.export.stage import ExportConfig
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.lock import locked
from corpus.pipeline.workspace.share import Share
from tests.support import exported
from tests.support.records import Shared
from tests.support.shares import emptied, leave_what_one_run_leaves


@pytest.fixture(scope="session")
def laid(shared: Shared) -> Workspace:
    """The workspace to export from; to be read."""
    return Workspace(shared("exported", exported.lay) / "workspace")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("llmc", (2,)),
        pytest.param("nanogpt", (1, 5), marks=SLOW),
        pytest.param("megatron", (3, 40), marks=SLOW),
        pytest.param("mds", (2,), marks=SLOW),
        pytest.param("parquet", (2, 40), marks=SLOW),
    ],
)
def test_shares_leave_what_one_run_leaves(laid: Workspace, tmp_path: Path, name: str, counts: tuple[int, ...]) -> None:
    place = tmp_path / "out"
    config = ExportConfig(name, place, workers=1, unit_characters=3_000)
    leave_what_one_run_leaves(
        place, lambda share: workflow.export(Workspace(laid.root), share, config),
        lambda: export.run(config, Workspace(laid.root)), lambda: emptied(place), seed=len(name), counts=counts,
    )  # fmt: skip
    assert not (place / "pieces").exists()


def test_a_folder_is_shared_by_jobs_of_one_export(laid: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "out"
    config = ExportConfig("jsonl", place, workers=1, splits=("validation",))
    report = workflow.export(Workspace(laid.root), Share(1, 2), config)
    assert report.pieces > report.made
    with locked(place, "export", hint=""), pytest.raises(BusyError):
        export.run(config, Workspace(laid.root))
    with pytest.raises(ExportError, match="in another format"):
        workflow.export(Workspace(laid.root), Share(2, 2), ExportConfig("parquet", place, splits=("validation",)))
    export.run(config, Workspace(laid.root))
    assert workflow.export(Workspace(laid.root), Share(2, 2), config).finished
