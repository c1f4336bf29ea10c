"""`corpus sample` as a whole: what comes out of a real model, against `generate` of transformers and against itself."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corpus.generate.config import Piece, SampleConfig
from corpus.generate.engine.model import Model
from corpus.generate.stage import in_order, run, stream
from corpus.pipeline.errors import ModelError
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR, USER
from tests.support.sampling import in_numbers, random_model, save_model, script_model, texts, tokens
from tests.support.sampling_notes import Notes

PROMPTS = ("河边的柳树", "火车慢慢开动了，站台上的人", "奶奶", "图书馆九点开门。What time", "🙂")


def generated(model: Model, prompts: list[list[int]], **settings: object) -> list[list[int]]:
    """What transformers' own greedy generate writes, each prompt alone, up to the separator."""
    written = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=60,
            suppress_tokens=model.banned.tolist(),
            eos_token_id=model.separator,
            pad_token_id=1,
            **settings,
        )[0, len(prompt) :].tolist()
        written.append(list(itertools.takewhile(lambda token: token != model.separator, output)))
    return written


def encoded(model: Model, prompts: tuple[str, ...] = PROMPTS) -> list[list[int]]:
    return [model.encode(prompt) for prompt in prompts]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_what_generate_writes(penalty: float) -> None:
    model = random_model(128)
    config = SampleConfig(prompts=PROMPTS, temperature=0, max_new_tokens=60, repetition_penalty=penalty, batch_size=1)
    prompts = encoded(model)
    written = list(tokens(model, prompts, config).values())
    assert written == generated(model, prompts, repetition_penalty=penalty)
    assert len({token for ids in written for token in ids}) > 30, "the model repeats itself: this would prove little"


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_prompts_of_different_length_side_by_side_are_what_each_is_alone(penalty: float) -> None:
    model = random_model(128)
    config = SampleConfig(temperature=0, max_new_tokens=60, repetition_penalty=penalty)
    prompts = encoded(model)
    assert len({len(prompt) for prompt in prompts}) == len(prompts)
    assert list(tokens(model, prompts, config).values()) == generated(model, prompts, repetition_penalty=penalty)


def test_a_model_with_rotary_positions_and_shared_heads_is_no_different() -> None:
    model = random_model(128)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(5)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.network.config.vocab_size,
            max_position_embeddings=128,
            num_key_value_heads=2,
            initializer_range=0.4,
            **shape,
        )
    ).eval()
    model = dataclasses.replace(model, network=network)
    config = SampleConfig(temperature=0, max_new_tokens=60)
    assert list(tokens(model, encoded(model), config).values()) == generated(model, encoded(model))


def test_samples_do_not_depend_on_what_runs_beside_them() -> None:
    model = random_model(128)
    prompts = encoded(model)
    results = [
        tokens(model, prompts, SampleConfig(seed=5, num_samples=3, max_new_tokens=40, batch_size=size))
        for size in (1, 4, 15)
    ]
    assert results[0] == results[1] == results[2]
    assert len({tuple(ids) for ids in results[0].values()}) == 15, "samples are not all different"


def test_the_seed_decides() -> None:
    model = random_model(128)

    def written(seed: int, most: int = 40) -> dict[tuple[int, int], list[int]]:
        return tokens(model, encoded(model), SampleConfig(seed=seed, num_samples=2, max_new_tokens=most))

    first = written(1)
    assert first == written(1)
    assert all(first[key] != ids for key, ids in written(2).items())
    assert {key: ids[:10] for key, ids in first.items()} == written(1, most=10), "more tokens changed the first ones"


def test_without_a_seed_a_new_one_is_drawn_and_told() -> None:
    assert SampleConfig().seed != SampleConfig().seed


def test_an_empty_prompt_starts_from_the_separator() -> None:
    model = random_model(128)
    config = SampleConfig(temperature=0, max_new_tokens=20)
    assert tokens(model, [[]], config)[0, 0] == tokens(model, [[model.separator]], config)[0, 0]


def test_special_strings_in_a_prompt_are_text() -> None:
    model = random_model()
    text = f"他写下{SEPARATOR}和{USER}。"
    ids = model.encode(text)
    assert not set(ids) & set(model.tokenizer.all_special_ids)
    assert model.tokenizer.decode(ids) == text
    assert model.separator in model.tokenizer(text)["input_ids"], "the tokenizer would have made a special token of it"


def test_special_tokens_and_ids_without_a_token_never_come() -> None:
    model = random_model(512)
    config = SampleConfig(seed=1, num_samples=16, max_new_tokens=150, temperature=100.0, top_k=0)
    seen = {token for ids in tokens(model, [[10]], config).values() for token in ids}
    banned = set(model.banned.tolist())
    assert len(banned) == 3 + 5
    assert not seen & banned
    assert len(seen) > 300, "hardly any token came: this would prove little"


def test_a_sample_ends_at_the_separator() -> None:
    a, b, c = random_model().encode("abc")
    model = script_model({a: b, b: c, c: 0})
    text, finish = texts(model, SampleConfig(prompts=("a",), temperature=0))[0, 0]
    assert text == "bc"
    assert (finish.reason, finish.prompt_tokens, finish.tokens) == ("separator", 1, 3)
    assert finish.logprob == pytest.approx(0, abs=1e-3)
    assert finish.seconds > 0
    assert finish.tokens_per_second == pytest.approx(3 / finish.seconds)


def test_a_sample_ends_at_the_most_tokens() -> None:
    a, b = random_model().encode("ab")
    text, finish = texts(script_model({a: b, b: a}), SampleConfig(prompts=("a",), temperature=0, max_new_tokens=5))[
        0, 0
    ]
    assert (text, finish.reason, finish.tokens) == ("babab", "length", 5)


def test_a_sample_ends_at_a_stop_string_across_tokens() -> None:
    a, b, c, d = random_model().encode("abcd")
    model = script_model({a: b, b: c, c: d, d: a})
    config = SampleConfig(prompts=("a",), temperature=0, stop=("xyz", "dab"))
    pieces = list(stream(model, config))
    assert [piece.text for piece in pieces] == ["b", "c", ""], "text that may begin a stop string was printed"
    assert pieces[-1].finish is not None
    assert (pieces[-1].finish.reason, pieces[-1].finish.tokens) == ("stop", 5)


def test_text_held_back_for_a_stop_string_comes_at_the_end() -> None:
    a, b, c = random_model().encode("abc")
    ended = texts(script_model({a: b, b: c, c: 0}), SampleConfig(prompts=("a",), temperature=0, stop=("bcd",)))[0, 0]
    assert (ended[0], ended[1].reason) == ("bc", "separator")
    cut = texts(
        script_model({a: b, b: c}), SampleConfig(prompts=("a",), temperature=0, stop=("bcd",), max_new_tokens=2)
    )[0, 0]
    assert (cut[0], cut[1].reason) == ("bc", "length")


def byte_script(data: bytes, last: int) -> Model:
    """Writes these bytes after `a`, a token each, and then `last`."""
    tokenizer = random_model().tokenizer
    ids = [*tokenizer.encode("a"), *(token for byte in data for token in _byte(byte)), last]
    assert len(set(ids)) == len(ids)
    return script_model(dict(itertools.pairwise(ids)))


def _byte(byte: int) -> list[int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [int(random_model().tokenizer.convert_tokens_to_ids(bytes_to_unicode()[byte]))]


def test_no_piece_is_half_a_character() -> None:
    model = byte_script("春🙂".encode(), last=0)
    pieces = list(stream(model, SampleConfig(prompts=("a",), temperature=0)))
    assert [piece.text for piece in pieces] == ["春", "🙂", ""]


def test_a_character_that_the_limit_cuts_is_not_printed() -> None:
    model = byte_script("春🙂".encode(), last=0)
    config = SampleConfig(prompts=("a",), temperature=0, max_new_tokens=5)
    assert texts(model, config)[0, 0][0] == "春"


def test_a_character_that_the_model_leaves_broken_is_shown_as_such() -> None:
    model = byte_script("春🙂".encode()[:5], last=0)
    assert texts(model, SampleConfig(prompts=("a",), temperature=0))[0, 0][0] == "春\N{REPLACEMENT CHARACTER}"


def test_the_log_probability_is_the_models_own() -> None:
    model = random_model(128)
    config = SampleConfig(
        prompts=PROMPTS, num_samples=3, seed=3, max_new_tokens=60, temperature=1.5, top_k=50, repetition_penalty=1.2
    )
    results = texts(in_numbers(model), config)
    assert {finish.reason for _, finish in results.values()} == {"length", "separator"}
    for (number, _), (text, finish) in results.items():
        prompt = model.encode(PROMPTS[number])
        written = [int(token) for token in text.split()] + [model.separator] * (finish.reason == "separator")
        assert finish.tokens == len(written)
        with torch.no_grad():
            logits_tv = model.network(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
        expected = logits_tv.log_softmax(-1)[torch.arange(len(written)), torch.tensor(written)].sum().item()
        assert finish.logprob == pytest.approx(expected, rel=1e-4)


def test_a_prompt_longer_than_the_context_is_told() -> None:
    model = random_model(32)
    long = "昨天夜里下了一场小雨，" * 20
    notes = Notes()
    config = SampleConfig(prompts=("短", long), temperature=0, max_new_tokens=2)
    list(stream(model, config, progress=notes))
    count = len(model.encode(long))
    assert f"prompt 2 has {count} tokens; the model reads the newest 32 of them" in notes.lines
    assert any("continues from the newest 16" in line for line in notes.lines)


def test_nothing_is_told_while_all_fits() -> None:
    notes = Notes()
    list(stream(random_model(128), SampleConfig(prompts=("短",), max_new_tokens=20, seed=1), progress=notes))
    assert notes.lines == []


def test_pieces_come_in_order_for_a_terminal() -> None:
    model = random_model(128)
    config = SampleConfig(prompts=PROMPTS[:3], num_samples=2, max_new_tokens=15, seed=2, batch_size=4)
    mixed = list(stream(model, config))
    sorted_pieces = list(in_order(iter(mixed), config))
    keys = [(piece.prompt, piece.sample) for piece in sorted_pieces]
    assert keys == sorted(keys) != [(piece.prompt, piece.sample) for piece in mixed]
    for key in set(keys):
        assert _only(sorted_pieces, key) == _only(mixed, key)


def _only(pieces: list[Piece], key: tuple[int, int]) -> list[str]:
    return [piece.text for piece in pieces if (piece.prompt, piece.sample) == key]


def test_the_first_sample_in_order_comes_as_it_is_written() -> None:
    model = random_model(128)
    config = SampleConfig(prompts=("河边", "奶奶"), max_new_tokens=30, seed=2)
    taken = 0

    def counted() -> object:
        nonlocal taken
        for piece in stream(model, config):
            taken += 1
            yield piece

    next(in_order(counted(), config))  # type: ignore[arg-type]
    assert taken <= 2


def test_run_gives_all_samples_in_order(tmp_path: Path) -> None:
    save_model(tmp_path, context=64)
    config = SampleConfig(prompts=("河边", "奶奶"), num_samples=2, max_new_tokens=10, seed=9, batch_size=3)
    samples = run(config, tmp_path, device="cpu")
    assert [(sample.prompt, sample.sample) for sample in samples] == [
        ("河边", 0),
        ("河边", 1),
        ("奶奶", 0),
        ("奶奶", 1),
    ]
    assert {sample.seed for sample in samples} == {9}
    assert [sample.text for sample in samples] == [text for text, _ in texts(random_model(64), config).values()]


def test_a_model_that_computes_no_numbers_is_named() -> None:
    a, b = random_model().encode("ab")
    model = script_model({a: b})
    with torch.no_grad():
        model.network.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="returned NaN or infinity") as failure:
        list(stream(dataclasses.replace(model), SampleConfig(prompts=("a",))))
    assert "--model" in failure.value.hint
