"""The dispatcher on a cluster that does not exist: whatever fails, each piece's result comes once and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.pipeline.workspace.ledger import LEDGER
from tests.experiments.cluster import simulate
from tests.support.cluster import Faults

NONE = Faults(stragglers=0, slow_nodes=0, deaths=0, node_hours=1e9)
ALL = Faults(seed=4, stragglers=0.02, straggling=100, slow_nodes=0.2, deaths=0.1, node_hours=0.1)
FAULTS = {
    "stragglers": Faults(seed=1, stragglers=0.02, straggling=100, slow_nodes=0.2, deaths=0, node_hours=1e9),
    "dead workers": Faults(seed=2, stragglers=0, deaths=0.2, node_hours=1e9),
    "lost nodes": Faults(seed=3, stragglers=0, deaths=0, node_hours=0.1),
    "all": ALL,
}
SEEN = {
    "stragglers": ["stragglers", "cancelled"], "dead workers": ["dead workers"],
    "lost nodes": ["dead nodes", "nodes cut off", "late"],
    "all": ["stragglers", "cancelled", "dead workers", "dead nodes", "nodes cut off", "late"],
}  # fmt: skip
"""What must have happened, so that the test shows something."""


@pytest.mark.parametrize("name", FAULTS)
def test_each_piece_comes_once_and_in_order_whatever_fails(name: str) -> None:
    found = simulate(3_000, 50, FAULTS[name], None, per_node=5)  # which compares the results with the pieces
    assert all(found.get(what, 0) > 0 for what in SEEN[name]), found
    assert found["makespan_s"] < 15 * found["ideal_s"]
    assert found["dispatch_s"] < 3  # some 0.1 s, if nothing is quadratic


def test_the_ledger_is_that_of_a_cluster_without_faults(tmp_path: Path) -> None:
    for name, faults in {"none": NONE, "all": ALL}.items():
        simulate(300, 20, faults, tmp_path / name, per_node=2)
    ledgers = {path.read_bytes() for path in tmp_path.glob(f"*/documents/*/{LEDGER}")}
    assert len(ledgers) == 1
