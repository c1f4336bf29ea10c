"""The requests of OpenAI's protocol: the JSON of a body in, settings of the sampler out.

Invariants: a field that would change the answer is obeyed or refused by name, never ignored; so is an unknown one.
Only fields that say who asks, or how OpenAI keeps the books, are ignored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from corpus.generate.config import SampleConfig, fresh_seed

T = TypeVar("T")
D = TypeVar("D")

MOST_STOPS = 16
MOST_STOP_CHARACTERS = 256
MOST_CHOICES = 128
_MOST = (1 << 31) - 1
_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})
_IGNORED = frozenset({
    "model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options",
    "prompt_cache_retention", "verbosity",
})  # fmt: skip
_SAMPLING = frozenset({
    "max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop", "seed", "n", "stream", "logprobs",
})  # fmt: skip
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,), "echo": (False,), "suffix": ("",), "logit_bias": ({},), "presence_penalty": (0,),
    "frequency_penalty": (0,), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "functions": ([],), "function_call": ("none", "auto"), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "reasoning_effort": ("none",),
}  # fmt: skip
"""Fields that are not supported, each with the values, beside null, that ask for nothing."""


class RequestError(Exception):
    """A request that is refused: the status, and the error of OpenAI's protocol."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, kind: str = "invalid_request_error",
        code: str | None = None, retry_after_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.error = {"message": message, "type": kind, "param": param, "code": code}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What both kinds of requests may say."""

    model: str | None
    n: int
    max_tokens: int | None
    """None: as many as `corpus sample` writes, or as the context holds."""
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int
    stream: bool
    include_usage: bool
    likeliest: int | None
    """How many likeliest tokens are reported for each token; None: no log-probabilities."""

    def sampling(self, max_new_tokens: int) -> SampleConfig:
        """The settings of the sampler."""
        return SampleConfig(
            max_new_tokens=max_new_tokens, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k,
            repetition_penalty=self.repetition_penalty, stop=self.stop, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A request to continue texts."""

    settings: Settings
    prompts: tuple[str | tuple[int, ...], ...]
    """Texts, or tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """A request to answer the last question of a conversation."""

    settings: Settings
    turns: tuple[tuple[str, str], ...]
    """Earlier questions with their answers."""
    question: str


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        RequestError: it holds no JSON object.

    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON in UTF-8: {error}", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise RequestError("the body must be a JSON object", code="invalid_json")
    return fields


def completion(fields: Mapping[str, Any]) -> Completion:
    """A body of /v1/completions.

    Raises:
        RequestError: a field is unknown, malformed or not supported.

    """
    _check_names(fields, {"prompt"})
    return Completion(
        settings=_settings(fields, _one(fields, "logprobs", _whole(0, 5), None), fields.get("max_tokens")),
        prompts=_prompts(fields.get("prompt")),
    )


def conversation(fields: Mapping[str, Any]) -> Conversation:
    """A body of /v1/chat/completions.

    Raises:
        RequestError: a field is unknown, malformed or not supported.

    """
    _check_names(fields, {"messages", "max_completion_tokens", "top_logprobs"})
    wanted = _one(fields, "logprobs", _truth, False)
    top = _one(fields, "top_logprobs", _whole(0, 20), None)
    if top is not None and not wanted:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    limits = [fields[name] for name in ("max_completion_tokens", "max_tokens") if fields.get(name) is not None]
    if limits[1:] and limits[0] != limits[1]:
        raise RequestError("max_tokens and max_completion_tokens contradict each other", param="max_tokens")
    turns, question = _turns(fields.get("messages"))
    settings = _settings(fields, (top or 0) if wanted else None, limits[0] if limits else None)
    return Conversation(settings=settings, turns=turns, question=question)


def _settings(fields: Mapping[str, Any], likeliest: int | None, max_tokens: Any) -> Settings:
    stream = _one(fields, "stream", _truth, False)
    options = fields.get("stream_options")
    if options is not None and not (stream and isinstance(options, dict) and set(options) <= _STREAM_OPTIONS):
        raise RequestError(
            'stream_options must be {"include_usage": true or false}, with stream: true', param="stream_options"
        )
    usual = SampleConfig()
    seed = _one(fields, "seed", _whole(0, (1 << 63) - 1), None)
    return Settings(
        model=_one(fields, "model", _string, None),
        n=_one(fields, "n", _whole(1, MOST_CHOICES), 1),
        max_tokens=_one({"max_tokens": max_tokens}, "max_tokens", _whole(1, _MOST), None),
        temperature=_one(fields, "temperature", _number(2, least=0.001, zero=True), usual.temperature),
        top_p=_one(fields, "top_p", _number(1), usual.top_p),
        top_k=_one(fields, "top_k", _whole(0, _MOST), usual.top_k),
        repetition_penalty=_one(fields, "repetition_penalty", _number(10), usual.repetition_penalty),
        stop=_one(fields, "stop", _stops, ()),
        seed=fresh_seed() if seed is None else seed,
        stream=stream,
        include_usage=_one(options or {}, "include_usage", _truth, False),
        likeliest=likeliest,
    )


def _check_names(fields: Mapping[str, Any], own: set[str]) -> None:
    for name, value in fields.items():
        if name in _SAMPLING or name in own or name in _IGNORED or value is None:
            continue
        if name not in _NEUTRAL:
            raise RequestError(f"unknown field: {name[:80]}", param=name[:80], code="unknown_parameter")
        if value not in _NEUTRAL[name]:
            raise RequestError(f"{name} is not supported", param=name, code="unsupported_parameter")


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if all(isinstance(each, str) for each in value):
            return tuple(value)
        if _are_tokens(value):
            return (tuple(value),)
        if all(isinstance(each, list) and each and _are_tokens(each) for each in value):
            return tuple(map(tuple, value))
    raise RequestError("prompt must be a text, a list of texts, or tokens", param="prompt")


def _are_tokens(values: Sequence[Any]) -> bool:
    return all(type(each) is int and each >= 0 for each in values)


def _turns(messages: Any) -> tuple[tuple[tuple[str, str], ...], str]:
    """Earlier questions with their answers, and the last question."""
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of messages", param="messages")
    texts = []
    for number, (message, role) in enumerate(zip(messages, itertools.cycle(("user", "assistant")), strict=False)):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise RequestError(f"{place} must be an object with role and content", param=place)
        if message.get("role") in {"system", "developer"}:
            raise RequestError(
                f"{place}: the chat form has questions and answers only; put instructions into the question",
                param=f"{place}.role", code="unsupported_role",
            )  # fmt: skip
        if message.get("role") != role:
            raise RequestError(
                f"{place}.role must be {role}: questions of the user and answers of the assistant alternate, "
                "and the first and the last message are the user's",
                param=f"{place}.role",
            )
        texts.append(_content(message.get("content"), f"{place}.content"))
    if len(texts) % 2 == 0:
        raise RequestError("the last message must be the user's", param="messages")
    return tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1]


def _content(value: Any, place: str) -> str:
    if isinstance(value, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in value
    ):
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{place} must be a text that is not blank", param=place)
    return value


# --- kinds of values: each gives the value, or a ValueError that says what it wants -----------------------------------


def _one(fields: Mapping[str, Any], name: str, kind: Callable[[Any], T], default: D) -> T | D:
    """The value of a field, or the default where it is null or absent."""
    value = fields.get(name)
    if value is None:
        return default
    try:
        return kind(value)
    except ValueError as error:
        raise RequestError(f"{name} must be {error}", param=name) from error


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def take(value: Any) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise ValueError(f"a whole number from {least} to {most}")

    return take


def _number(most: float, *, least: float = 0, zero: bool = False) -> Callable[[Any], float]:
    """A number up to `most`, and either from `least` on or above 0; `zero` allows 0, too."""

    def take(value: Any) -> float:
        if type(value) in {int, float} and ((zero and value == 0) or (value > 0 and least <= value <= most)):
            return float(value)
        raise ValueError(f"{'0, or ' if zero else ''}a number {f'from {least}' if least else 'above 0'} to {most}")

    return take


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and len(texts) <= MOST_STOPS:
        lengths = [len(text) if isinstance(text, str) else 0 for text in texts]
        if all(1 <= length <= MOST_STOP_CHARACTERS for length in lengths):
            return tuple(texts)
    raise ValueError(f"a text or up to {MOST_STOPS} texts of 1 to {MOST_STOP_CHARACTERS} characters")
