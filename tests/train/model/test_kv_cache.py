"""Keys, values and positions while a text grows past the context, against reading the window anew for every token."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Self

import pytest
import torch

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import Model
from corpus.train.model import architecture
from corpus.train.model.kv_cache import BufferedLayer, SlidingCache
from tests.support.families import save_config
from tests.support.sampling import random_model, script_model, texts, tokens

PROMPTS = ("河边的柳树", "奶奶", "昨天夜里下了一场小雨，今天早晨的空气很清新。" * 4, "火车慢慢开动了，站台", "a")


def slide_naively(model: Model, prompt: list[int], count: int) -> list[int]:
    """The rule, without a cache: a full window keeps its newest half before the next token goes in."""
    window, written = prompt[-model.context :], []
    for _ in range(count):
        with torch.no_grad():
            scores = model.network(torch.tensor([window]), use_cache=False).logits[0, -1]
        scores[model.banned] = -torch.inf
        written.append(int(scores.argmax()))
        if written[-1] == model.separator:
            return written[:-1]
        if len(window) == model.context:
            window = window[-(model.context // 2) :]
        window.append(written[-1])
    return written


@pytest.mark.parametrize("context", [2, 3, 17, 32])
def test_past_the_context_it_goes_on_with_the_newest_half(context: int) -> None:
    model = random_model(context)
    prompts = [model.encode(prompt) for prompt in PROMPTS]
    assert min(map(len, prompts)) < context < max(map(len, prompts)) or context == 2
    expected = [slide_naively(model, prompt, 70) for prompt in prompts]
    assert max(map(len, expected)) == 70
    for size in (1, len(prompts)):
        config = SampleConfig(temperature=0, max_new_tokens=70, batch_size=size)
        assert list(tokens(model, prompts, config).values()) == expected


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "mistral", "gemma3_text"])
def test_rotary_positions_windows_and_shared_heads_slide_no_differently(family: str, tmp_path: Path) -> None:
    """The cache against reading anew, alone and side by side, past the context."""
    base = random_model(17)
    network = architecture.make(
        save_config(tmp_path, family, tie_word_embeddings=False), vocab_size=base.network.config.vocab_size,
        seq_length=17, separator=base.separator, pad=base.separator, dropout=0.0, seed=5,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.4)
    model = dataclasses.replace(base, network=network)
    prompts = [model.encode(prompt) for prompt in PROMPTS[1:]]
    expected = [slide_naively(model, prompt, 40) for prompt in prompts]
    assert max(map(len, expected)) == 40
    assert len({token for ids in expected for token in ids}) > 20
    for size in (1, len(prompts)):
        config = SampleConfig(temperature=0, max_new_tokens=40, batch_size=size)
        assert list(tokens(model, prompts, config).values()) == expected


class Reads:
    """What the model was asked to read: (rows, tokens) of each call, and the cache's columns and address after it."""

    def __init__(self, model: Model) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.columns: list[int] = []
        self.places: set[int] = set()
        self._network = model.network

    def __enter__(self) -> Self:
        self._hook = self._network.register_forward_hook(self._note, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _note(self, _network: Any, args: tuple[torch.Tensor], kwargs: dict[str, Any], _output: Any) -> None:
        rows, count = args[0].shape
        self.shapes.append((rows, count))
        self.columns.append(kwargs["past_key_values"].get_seq_length())
        self.places.add(kwargs["past_key_values"].layers[0].keys.data_ptr())


def test_each_step_reads_one_token_and_each_prompt_is_read_once() -> None:
    model = script_model({10: 11, 11: 10})
    with Reads(model) as reads:
        tokens(model, [[10] * 7, [11] * 3], SampleConfig(num_samples=3, max_new_tokens=40, seed=1))
    assert reads.shapes[0] == (2, 7)
    assert set(reads.shapes[1:]) == {(6, 1)}
    assert len(reads.shapes) == 40, "the last token is not read: nothing follows it"


def test_a_slide_reads_half_a_context_and_only_for_rows_that_are_full() -> None:
    model = script_model({10: 11, 11: 10}, context=32)
    prompts = [[10] * 30, [11] * 5]
    with Reads(model) as reads:
        written = tokens(model, prompts, SampleConfig(temperature=0, max_new_tokens=90))
    assert [len(ids) for ids in written.values()] == [90, 90]
    slides = [(step, shape) for step, shape in enumerate(reads.shapes[1:]) if shape[1] > 1]
    assert {shape for _, shape in slides} == {(1, 16)}
    assert len(slides) == 6 + 4, "30 + 89 and 5 + 89 tokens were read, and past 32 each slide makes room for 16"
    assert max(reads.columns) == 32, "the cache outgrew the context"


def test_finished_rows_cost_nothing_more() -> None:
    a, b, c, d = random_model().encode("abcd")
    model = script_model({a: b, b: c, c: d, d: 0})
    with Reads(model) as reads:
        results = texts(model, SampleConfig(prompts=("a", "c", "b"), temperature=0))
    assert [text for text, _ in results.values()] == ["bcd", "d", "cd"]
    assert [rows for rows, _ in reads.shapes] == [3, 3, 2, 1]


def test_states_are_written_in_place_not_copied_for_each_token() -> None:
    model = random_model(512)
    with Reads(model) as reads:
        cache = SlidingCache(model, [[10, 11, 12]], [0])
        for _ in range(400):
            cache.step(cache.logits_bv.argmax(dim=-1))
    assert len(reads.places) < 10


def test_a_layer_holds_what_the_library_would() -> None:
    generator = torch.Generator().manual_seed(4)
    layer = BufferedLayer()
    expected = torch.empty(3, 2, 0, 4)
    for count, _ in itertools.product((1, 5, 70), range(40)):
        states = torch.rand(3, 2, count, 4, generator=generator)
        expected = torch.cat([expected, states], dim=-2)
        keys, values = layer.update(states, -states)
        assert torch.equal(keys, expected)
        assert torch.equal(values, -expected)
    layer.batch_select_indices(torch.tensor([2, 0]))
    layer.drop_oldest(3)
    expected = expected[[2, 0], :, 3:]
    fresh = BufferedLayer()
    states = torch.rand(1, 2, 6, 4, generator=generator)
    fresh.update(states, -states)
    layer.replace([1], fresh)
    expected[1, :, -6:] = states[0]
    more = torch.rand(2, 2, 1, 4, generator=generator)
    assert torch.equal(layer.update(more, -more)[0], torch.cat([expected, more], dim=-2))
    assert torch.equal(layer.values, -layer.keys)
