"""Bodies of requests: what they become, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from corpus.generate.config import SampleConfig
from corpus.generate.serve.protocol import RequestError, completion, conversation, parse

ASK = {"role": "user", "content": "问"}
ANSWER = {"role": "assistant", "content": "答"}


def test_a_completion_has_the_defaults_of_corpus_sample() -> None:
    asked = completion({"prompt": "春"})
    settings = asked.settings
    assert asked.prompts == ("春",)
    assert settings.sampling(7) == SampleConfig(max_new_tokens=7, seed=settings.seed)
    assert (settings.n, settings.max_tokens, settings.stream, settings.likeliest) == (1, None, False, None)
    assert completion({"prompt": "春"}).settings.seed != settings.seed


def test_every_setting_reaches_the_sampler() -> None:
    asked = completion({
        "prompt": ["春", "夏"], "max_tokens": 9, "temperature": 0.5, "top_p": 0.4, "top_k": 3,
        "repetition_penalty": 1.5, "stop": ["。", "\n"], "seed": 0, "n": 2, "logprobs": 0, "stream": True,
        "stream_options": {"include_usage": True}, "user": "me", "suffix": None, "echo": False,
        "presence_penalty": 0.0, "logit_bias": {},
    })  # fmt: skip
    assert asked.settings.sampling(9) == SampleConfig(
        max_new_tokens=9, temperature=0.5, top_p=0.4, top_k=3, repetition_penalty=1.5, stop=("。", "\n"), seed=0
    )
    assert (asked.settings.n, asked.settings.max_tokens, asked.settings.likeliest) == (2, 9, 0)
    assert asked.settings.stream
    assert asked.settings.include_usage


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("", ("",)), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)  # fmt: skip
def test_prompts_are_texts_or_tokens(prompt: Any, expected: Any) -> None:
    assert completion({"prompt": prompt}).prompts == expected


@pytest.mark.parametrize("prompt", [None, [], 1, [1, "a"], [[1], []], [-1], [True], [1.5], {"a": 1}, [["a"]]])
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(RequestError, match="prompt must be"):
        completion({"prompt": prompt})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", [0, -1, 1.5, "9", True, 1 << 40]),
        ("temperature", [-0.1, 2.5, "1", True, 1e-9, [1]]),
        ("top_p", [0, 1.1, -1, "a"]),
        ("top_k", [-1, 1.0, True]),
        ("repetition_penalty", [0, -1, 11]),
        ("stop", ["", [""], [1], 3, ["a"] * 17, "a" * 257]),
        ("seed", [-1, 1 << 63, 1.0, "7"]),
        ("n", [0, 129, "1"]),
        ("stream", [1, "true"]),
        ("logprobs", [6, -1, True]),
        ("model", [1]),
        ("stream_options", [{"include_usage": True}, []]),
        ("echo", [True]),
        ("best_of", [2]),
        ("presence_penalty", [0.5]),
        ("logit_bias", [{"5": -100}]),
        ("suffix", ["end"]),
        ("tools", [[{"type": "function"}]]),
        ("response_format", [{"type": "json_object"}]),
        ("min_p", [0.1]),
    ],
)  # fmt: skip
def test_values_that_cannot_be_obeyed_are_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(RequestError) as caught:
            completion({"prompt": "春", field: value})
        assert caught.value.status == 400
        assert caught.value.error["param"] == field, value
        assert field in str(caught.value)
        completion({"prompt": "春", field: None} if field != "min_p" else {"prompt": "春"})


def test_a_conversation_is_turns_and_a_question() -> None:
    parts = [{"type": "text", "text": "问"}, {"type": "text", "text": "题"}]
    asked = conversation({"messages": [ASK, ANSWER, {"role": "user", "content": parts}]})
    assert (asked.turns, asked.question) == ((("问", "答"),), "问题")
    assert asked.settings.likeliest is None
    assert conversation({"messages": [ASK], "logprobs": True}).settings.likeliest == 0
    assert conversation({"messages": [ASK], "logprobs": True, "top_logprobs": 20}).settings.likeliest == 20
    assert conversation({"messages": [ASK], "max_completion_tokens": 5, "max_tokens": 5}).settings.max_tokens == 5
    assert conversation({"messages": [ASK], "max_completion_tokens": 6}).settings.max_tokens == 6


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["问"]}, "messages[0]"),
        ({"messages": [ASK, ASK]}, "messages[1].role"),
        ({"messages": [ANSWER]}, "messages[0].role"),
        ({"messages": [ASK, ANSWER]}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}, ASK]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [ASK], "top_logprobs": 3}, "top_logprobs"),
        ({"messages": [ASK], "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"messages": [ASK], "max_completion_tokens": -4}, "max_tokens"),
        ({"messages": [ASK], "prompt": "a"}, "prompt"),
    ],
)  # fmt: skip
def test_other_conversations_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        conversation(fields)
    assert caught.value.error["param"] == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[" * 5000])
def test_a_body_is_a_json_object(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse(body)
    assert caught.value.error["code"] == "invalid_json"
