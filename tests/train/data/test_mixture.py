"""Mixing datasets by weight: shares of tokens, a cap on repeats, an order that any step is found in at once."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.pipeline.errors import TrainError
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.data.mixture import Share, delivered, parts, shares
from corpus.train.data.sampler import Order, ShuffleGroup
from corpus.train.data.schedule import Steps
from corpus.train.presets import PRESETS
from corpus.train.run.stage import run
from tests.support.packed import lay_all, lay_packed, lay_tokenizer, random_segments


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """A narrow `tiny`, as in the tests of the whole stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], layers=1, width=32, heads=2))
        yield


def taken(*found: Share) -> list[int]:
    return [share.taken for share in found]


def make(weights: tuple[float, ...] | None, *, total: int, cap: float | None = None) -> list[Share]:
    """Two datasets: 100 rows of 10 tokens, 50 rows of 40."""
    return shares(("a", "b"), (100, 50), (1000, 2000), weights, total=total, max_repeats=cap)


def test_weights_are_shares_of_tokens() -> None:
    assert taken(*make((1, 1), total=100)) == [80, 20]  # 800 tokens each
    assert taken(*make((0.25, 0.75), total=70)) == [40, 30]  # 400 and 1200
    assert [share.asked for share in make((3, 1), total=10)] == [0.75, 0.25]


def test_without_weights_each_row_comes_equally_often() -> None:
    assert taken(*make(None, total=300)) == [200, 100]
    assert [round(share.asked, 3) for share in make(None, total=300)] == [0.333, 0.667]


def test_the_cap_gives_the_place_to_others_and_then_ends_the_run() -> None:
    assert taken(*make((0.9, 0.1), total=200, cap=1.5)) == [150, 50]
    assert taken(*make((0.9, 0.1), total=1000, cap=1.5)) == [150, 75]


@pytest.mark.parametrize("total", [1, 2, 3, 7, 99, 101])
def test_no_row_is_lost_in_rounding(total: int) -> None:
    assert sum(taken(*make((0.3, 0.7), total=total))) == total


def order(found: list[ShuffleGroup], *, batch_size: int = 8, rank: int = 0, world: int = 1) -> Order:
    steps = Steps(batch_size=batch_size, total=sum(part.taken for part in found))
    return Order(parts=found, steps=steps, micro_batch_size=4, seed=3, rank=rank, world=world)


MIXED = [ShuffleGroup(10, 37), ShuffleGroup(100, 60), ShuffleGroup(7, 7)]


def test_each_part_gives_what_it_should_and_repeats_are_apart() -> None:
    mixed = order(MIXED)
    seen = np.concatenate([mixed.step(number) for number in range(mixed.steps.count)])
    assert len(seen) == 104
    counts = Counter(seen.tolist())
    assert sum(counts[row] for row in range(10)) == 37
    assert {counts[row] for row in range(10)} == {3, 4}
    assert sum(counts[row] for row in range(10, 110)) == 60
    assert max(counts[row] for row in range(10, 110)) == 1
    assert all(counts[row] == 1 for row in range(110, 117))
    for block in range(4):
        begin, end = mixed.block_begin(block), mixed.block_begin(block + 1)
        assert max(Counter(row for row in seen[begin:end].tolist() if row < 10).values()) == 1


def test_every_block_has_its_share() -> None:
    mixed = order(MIXED)
    middles = [sum(10 <= row < 110 for row in mixed.block(block).tolist()) for block in range(3)]
    assert max(middles) - min(middles) <= 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_step_is_found_at_once_and_shared_alike(world: int) -> None:
    whole = [order(MIXED).step(number).tolist() for number in range(13)]
    assert order(MIXED).step(11).tolist() == whole[11]
    ranks = [order(MIXED, rank=rank, world=world) for rank in range(world)]
    for number in range(13):
        rows = [row for each in ranks for one in each.passes(number) for row in one]
        assert sorted(rows) == sorted(whole[number])


def test_a_step_far_away_in_a_mixture() -> None:
    far = order([ShuffleGroup(10, 37 * 10**9), ShuffleGroup(100, 60 * 10**9)])
    block = far.block_at(90 * 10**9)
    assert far.block_begin(block) <= 90 * 10**9 < far.block_begin(block + 1)
    assert len(far.step(10**9)) == 8


def test_small_steps_fill_their_passes_first() -> None:
    steps = Steps(batch_size=32, total=200, ramp_from=4, ramp_rows=60)
    ramped = Order(parts=[ShuffleGroup(50, 200)], steps=steps, micro_batch_size=4, seed=1)
    assert ramped.accumulation == 8
    assert [len(one) for one in ramped.passes(0)] == [4] + [0] * 7
    assert all(len(ramped.passes(number)) == 8 for number in range(steps.count))
    seen = [row for number in range(steps.count) for one in ramped.passes(number) for row in one]
    assert Counter(seen) == Counter(dict.fromkeys(range(50), 4))


@pytest.mark.parametrize("weighted", [True, False])
def test_what_is_delivered_is_what_a_count_says(weighted: bool) -> None:
    tokens = np.random.default_rng(5).integers(1, 50, 17)
    found = shares(
        ("a", "b"), (10, 7), (int(tokens[:10].sum()), int(tokens[10:].sum())), (2, 1) if weighted else None, total=40,
        max_repeats=None,
    )  # fmt: skip
    mixed = order(parts(found, weighted=weighted), batch_size=6)
    for step in range(mixed.steps.count + 1):
        rows = [row for number in range(step) for row in mixed.step(number).tolist()]
        given = delivered(mixed, found, tokens, step)
        assert [given[name]["rows"] for name in "ab"] == [sum(row < 10 for row in rows), sum(row >= 10 for row in rows)]
        assert given["a"]["tokens"] == sum(int(tokens[row]) for row in rows if row < 10)
        assert given["b"]["tokens"] == sum(int(tokens[row]) for row in rows if row >= 10)


SETTINGS: dict[str, Any] = {
    "model": "tiny", "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "log_steps": 2, "save_steps": 4,
    "threads": 1, "datasets": ("demo=0.75", "wiki2019zh=0.25"), "max_steps": 12,
}  # fmt: skip


def test_a_weighted_run_tells_what_was_asked_and_given(workspace: Workspace) -> None:
    report = run(TrainConfig(**SETTINGS), lay_all(workspace, rows=30))
    mixture = report.ledger.counts["mixture"]
    assert {name: each["asked"] for name, each in mixture.items()} == {"demo": 0.75, "wiki2019zh": 0.25}
    assert mixture["demo"]["share"] == pytest.approx(0.75, abs=0.03)
    assert mixture["demo"]["epochs"] == pytest.approx(72 / 30, abs=0.2)
    assert sum(each["tokens"] for each in mixture.values()) == report.ledger.counts["tokens"]
    stored = json.loads((report.folder / "checkpoint-8" / "mixture.json").read_text())
    assert stored["asked"] == {"demo": 0.75, "wiki2019zh": 0.25}
    assert sum(each["rows"] for each in stored["delivered"].values()) == 64
    assert "| demo | 75.00% |" in (report.folder / "README.md").read_text()


def test_the_cap_is_said(workspace: Workspace) -> None:
    lay_tokenizer(workspace)
    for name, rows in (("demo", 4), ("wiki2019zh", 40)):
        lay_packed(workspace, name, {"train": random_segments(rows, seed=rows)})
    report = run(TrainConfig(**SETTINGS), workspace)
    assert report.ledger.counts["mixture"]["demo"]["rows"] == 16
    assert any("demo: seen 4 times" in note for note in report.notes)


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_ramp_sees_the_same_rows_in_more_steps(workspace: Workspace) -> None:
    lay_all(workspace)
    config = TrainConfig(**SETTINGS | {"datasets": (), "max_steps": None, "ramp_from": 2, "ramp_tokens": 24 * 48})
    report = run(config, workspace)
    assert report.ledger.counts["rows"] == 40
    assert report.ledger.counts["steps"] > 5
    lines = [line for line in curve(report.folder) if "loss" in line]
    assert [line["rows"] for line in lines] == sorted({line["rows"] for line in lines})
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_best_model_is_kept_and_a_hopeless_run_ends_early(workspace: Workspace) -> None:
    lay_all(workspace, rows=6)
    config = TrainConfig(
        **SETTINGS | {"datasets": (), "max_steps": 400, "eval_steps": 10, "early_stop": 2, "save_steps": 10, "run": "x"}
    )
    report = run(config, workspace)
    counts = report.ledger.counts
    scores = [line for line in curve(report.folder) if "bits_per_character" in line]
    means = [line["bits_per_character"] for line in scores]
    best = means.index(min(means))
    assert counts["steps"] == scores[-1]["step"] < 400
    assert len(means) - 1 - best == 2
    assert counts["best"]["step"] == scores[best]["step"]
    assert (report.folder / "best" / "model.safetensors").read_bytes() != (
        report.folder / "model.safetensors"
    ).read_bytes()
    assert any("stopped early" in note for note in report.notes)
    assert run(config, workspace).skipped


def test_early_stop_without_validation_is_refused(workspace: Workspace) -> None:
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"train": random_segments(8, seed=1)})
    with pytest.raises(TrainError, match="--early-stop needs validation rows"):
        run(TrainConfig(**SETTINGS | {"datasets": (), "early_stop": 1}), workspace)


def test_a_weight_for_a_dataset_without_training_rows_is_refused(workspace: Workspace) -> None:
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"train": random_segments(8, seed=1)})
    lay_packed(workspace, "wiki2019zh", {"validation": random_segments(2, seed=2)})
    with pytest.raises(TrainError, match="wiki2019zh has a weight and no training rows"):
        run(TrainConfig(**SETTINGS), workspace)
