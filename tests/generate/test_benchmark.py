"""`corpus sample --timings`: what is measured is what it says, counted in the passes that the network really makes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from corpus.generate.benchmark import Timings, measure, picture
from corpus.generate.config import TimingsConfig
from corpus.generate.engine.model import Model
from tests.support.sampling import random_model, script_model

CONFIG = TimingsConfig(repeats=2, batch_size=5, tokens=6)


@pytest.fixture(scope="module")
def timings() -> Timings:
    return measure(CONFIG, random_model(64))


def test_positions_rise_to_the_context() -> None:
    assert TimingsConfig().positions_of(1024) == (64, 128, 256, 384, 512, 640, 768, 896, 1024)
    assert TimingsConfig().positions_of(2) == (2,)
    assert TimingsConfig(positions=(2, 50, 70)).positions_of(64) == (2, 50)
    assert TimingsConfig(batch_size=1).batch_sizes == (1,)
    assert TimingsConfig(batch_size=16).batch_sizes == (1, 4, 16)
    assert TimingsConfig(batch_size=20).batch_sizes == (1, 4, 16, 20)


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--repeats", {"repeats": 0}),
        ("--batch-size", {"batch_size": 0}),
        ("--max-new-tokens", {"tokens": 0}),
        ("--positions", {"positions": (1, 5)}),
        ("--positions", {"positions": (5, 5)}),
    ],
)
def test_a_wrong_value_names_its_flag(flag: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{flag} "):
        TimingsConfig(**values)


def test_keys_and_values_are_counted_to_the_byte(timings: Timings) -> None:
    assert [point.position for point in timings.points] == [4, 8, 16, 24, 32, 40, 48, 56, 64]
    shape = random_model(64).network.config
    for point in timings.points:
        assert point.kept_bytes == 2 * shape.n_layer * point.position * shape.n_embd * 4
        assert 0 < point.cached_s < 60
        assert 0 < point.recomputed_s < 60
    assert [row.batch_size for row in timings.throughput] == [1, 4, 5]


def passes(model: Model) -> tuple[list[tuple[int, int, bool]], Any]:
    """Rows, tokens and use of the cache of every pass from now on, and what ends the watching."""
    seen: list[tuple[int, int, bool]] = []

    def watch(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((*arguments[0].shape, named["use_cache"]))

    return seen, model.network.register_forward_pre_hook(watch, with_kwargs=True)


def test_with_the_cache_each_token_is_read_once_and_without_it_the_whole_text() -> None:
    model = random_model(64)
    seen, watching = passes(model)
    measure(dataclasses.replace(CONFIG, positions=(3, 30, 64), batch_size=1), model)
    watching.remove()
    assert [tokens for rows, tokens, cached in seen if not cached] == [3, 30, 64] * CONFIG.repeats
    warming = 8
    kept = [tokens for rows, tokens, cached in seen if cached]
    assert kept[: warming + 64 * CONFIG.repeats] == [1] * (warming + 64 * CONFIG.repeats)


def test_samples_that_would_end_are_kept_going() -> None:
    size = random_model().network.config.vocab_size
    model = script_model(dict.fromkeys(range(size), 0))  # a separator after every token
    seen, watching = passes(model)
    measure(dataclasses.replace(CONFIG, positions=(2,), batch_size=4, repeats=1), model)
    watching.remove()
    assert [rows for rows, tokens, cached in seen if rows == 4] == [4] * CONFIG.tokens


def test_what_is_written_names_the_machine_and_no_place(timings: Timings) -> None:
    written = json.loads(json.dumps(timings.to_dict()))
    assert written["machine"]["device"].startswith("cpu")
    assert written["machine"]["context"] == 64
    assert len(written["points"]) == 9
    assert "/" not in json.dumps(written)


def test_the_picture_is_the_same_for_the_same_numbers(timings: Timings) -> None:
    drawn = picture(timings)
    assert drawn.startswith(b"\x89PNG")
    assert drawn == picture(timings)
    unknown = tuple(
        dataclasses.replace(point, cached_peak_bytes=None, recomputed_peak_bytes=None) for point in timings.points
    )
    assert picture(dataclasses.replace(timings, points=unknown)) != drawn
