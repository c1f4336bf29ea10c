"""Stages on Ray, on this machine and on several nodes: the same bytes, and what happens when something dies."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline import engine, workflows
from corpus.pipeline.dedup import DedupConfig
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.engine.ray_engine import RESULT_BYTES, RayEngine
from corpus.pipeline.errors import ShapeError, WorkerError
from corpus.pipeline.export import stage as export
from corpus.pipeline.workers import run_pieces, running_on
from corpus.pipeline.workspace.layout import Workspace
from tests.support import ray_pieces
from tests.support.outputs import outputs

pytestmark = [
    pytest.mark.ray, pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: make ray installs it"),
]  # fmt: skip


@pytest.fixture(scope="module")
def one_machine() -> Iterator[RayEngine]:
    """Ray with two slots on this machine."""
    made = RayEngine(None, workers=2)
    made.join()
    with running_on(made):
        yield made
    made.close()


def spilled() -> list[str]:
    """Objects that Ray has written to the disk, in any session that is here."""
    return [str(path) for path in Path("/tmp/ray").glob("session_*/ray_spilled_objects*/*")]


def whole_way(workspace: Workspace, place: Path) -> None:
    """The stages whose pieces an engine runs, on the built-in dataset."""
    items = workspace.root.parent / "items.jsonl"
    items.write_text('{"question": "长江全长六千三百多公里，是亚洲第一长河，也是世界第三长河。"}\n', encoding="utf-8")
    workflows.ingest(workspace, datasets=["demo"], against=[items], workers=2)
    with workspace.writing("dedup"):
        dedup.run(DedupConfig(workers=2, threshold=0.8), workspace)
    workflows.pack(workspace, datasets=["demo"], workers=2, seq_length=128)
    export.run(export.ExportConfig(format="jsonl", place=place, workers=2), workspace)


def test_each_stage_writes_the_same_bytes_and_nothing_is_spilled(one_machine: RayEngine, tmp_path: Path) -> None:
    before = spilled()
    for name in ("ray", "local"):
        (tmp_path / name).mkdir()
    whole_way(Workspace(tmp_path / "ray" / "workspace"), tmp_path / "ray" / "export")
    largest = one_machine.largest_result
    with running_on(Here()):
        whole_way(Workspace(tmp_path / "local" / "workspace"), tmp_path / "local" / "export")
    for place in ("workspace", "export"):
        assert outputs(tmp_path / "ray" / place) == outputs(tmp_path / "local" / place)
    assert 0 < largest <= RESULT_BYTES
    assert spilled() == before


class Here:
    """The reference: pieces one after another in this process."""

    slots = 1

    def run(self, function: Any, pieces: Any) -> Any:
        yield from map(function, pieces)


def test_results_are_in_order_and_a_killed_worker_has_its_piece_tried_again(
    one_machine: RayEngine, tmp_path: Path
) -> None:
    work = partial(ray_pieces.killed_once, folder=tmp_path, last=1)
    assert list(run_pieces(work, iter(range(12)), workers=2)) == list(range(12))
    assert len(list(tmp_path.glob("3.*"))) == 2
    assert list(run_pieces(ray_pieces.squared, range(50), workers=2)) == [piece * piece for piece in range(50)]


def test_piece_whose_workers_all_die_ends_the_command(one_machine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="lost"):
        list(run_pieces(partial(ray_pieces.killed_once, folder=tmp_path, last=9), range(6), workers=2))
    assert len(list(tmp_path.glob("3.*"))) == 4


def test_error_of_a_piece_comes_as_it_is_and_is_not_tried_again(one_machine: RayEngine, tmp_path: Path) -> None:
    results = run_pieces(partial(ray_pieces.refused, folder=tmp_path), range(9), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ShapeError) as caught:
        next(results)
    assert (caught.value.message, caught.value.hint) == ("records of another shape", "Look at them.")
    assert (tmp_path / "tries").read_text() == "x"
    assert list(run_pieces(ray_pieces.squared, [5], workers=2)) == [25]  # Ray goes on


def test_unknown_engine_and_an_address_without_one_are_refused() -> None:
    with pytest.raises(ValueError, match="--engine must be one of local, ray"), engine.using("dask"):
        pass
    with pytest.raises(ValueError, match="--address"), engine.using("local", address="127.0.0.1:6379"):
        pass
