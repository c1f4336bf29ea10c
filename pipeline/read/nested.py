"""Parsing records of users' own datasets: nested fields, conversations, splits in a field.

In: the bytes of records, and a shape with dotted names, the form `chat` or `ranking`, or a split field. Out: what
`parse.parser` gives; for the form `chat` the parts of a record are its turns, question and answer in alternation, for
`ranking` the turns of its prompt, which ends with a question, and then the answers, best first.
Invariants: every record comes out once, as fields or with a reason; fields that are not in the text are kept as `meta`.
A conversation begins with a question and ends with an answer: what the assistant says before the first question and a
question without an answer are left out, neighbouring turns of one side are joined, and a system prompt goes before the
first question. The role `answer` is one more turn of the assistant, at the end.
Cost: each record is parsed twice, once to find keys that stand twice: about 50,000 records a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from corpus.pipeline.manifest import Shape
from corpus.pipeline.manifest.schema import NESTED
from corpus.pipeline.read.spans import Parsed, Reject
from corpus.pipeline.read.splits import SPLIT_NAMES
from corpus.pipeline.templates import parts_of

ROLES = {
    "user": "user", "human": "user", "prompter": "user", "question": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "bing": "assistant", "bard": "assistant", "answer": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
"""Who speaks, by the names in use: OpenAI's `role`, ShareGPT's `from`."""
_MISSING = object()


class _ShapeError(Exception):
    """A record is not of the shape: reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def nested_parser(shape: Shape) -> Callable[[list[tuple[int, bytes]]], Parsed]:
    """A function that parses blocks of (byte offset, record) of one shape."""
    varies = shape.form in NESTED
    parts = tuple(shape.roles.values()) if varies else parts_of(shape)
    optional = {shape.roles.get(role) for role in (("detail",) if shape.form == "question" else ("title", "detail"))}

    def one(offset: int, raw: bytes, parsed: Parsed) -> None:
        record = _loaded(raw)
        prompts = 0
        if shape.form == "ranking":
            texts, prompts = _ranking(record, shape)
        else:
            texts = _turns(record, shape) if varies else _texts(record, parts, optional)
        ids = [_typed(record, name, shape.fields[name]) for name in shape.id_fields]
        split = _split(record, shape.split_field) if shape.split_field else ""
        for name in parts:
            _delete(record, name)
        try:
            meta = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        except (RecursionError, ValueError) as error:
            raise _ShapeError("malformed_json", str(error)) from error
        parsed.offsets.append(offset)
        parsed.names.append("-".join(map(str, ids)))
        parsed.texts.extend(texts)
        parsed.metas.append(meta)
        parsed.raws.append(raw)
        if varies:
            parsed.sizes.append(len(texts))
        if shape.form == "ranking":
            parsed.prompts.append(prompts)
        if shape.split_field:
            parsed.splits.append(split)

    def parse(records: list[tuple[int, bytes]]) -> Parsed:
        parsed = Parsed()
        for offset, raw in records:
            try:
                one(offset, raw, parsed)
            except _ShapeError as error:
                parsed.rejects.append(Reject(offset, error.reason, error.detail, raw))
        return parsed

    return parse


def _loaded(raw: bytes) -> dict[str, Any]:
    """The record, an object without a key that stands twice."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in found if keys.count(key) > 1)
        return found

    try:
        orjson.loads(raw)  # refuses what json reads: NaN, lone surrogates
        record = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError, TypeError) as error:
        if str(error).startswith("Not enough memory"):  # orjson raises the same exception as for malformed text
            raise MemoryError(str(error)) from error
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as broken:
            raise _ShapeError("not_utf8", f"byte {broken.start}: {broken.reason}") from error
        raise _ShapeError("malformed_json", str(error)) from error
    if type(record) is not dict:
        raise _ShapeError("wrong_type", f"the record is {type(record).__name__}, not an object")
    if twice:
        raise _ShapeError("duplicate_key", f"{twice[0]!r} stands more than once")
    return record


def value_at(record: Any, name: str) -> Any:
    """The value at a dotted name: a key of the record, or a path of keys and positions; None without such a field.

    >>> value_at({"a": {"b": [{"c": 1}]}}, "a.b.0.c")
    1
    """
    found = _find(record, name)
    return None if found is _MISSING else found


def _find(record: Any, name: str) -> Any:
    if type(record) is dict and name in record:
        return record[name]
    value = record
    for step in name.split("."):
        if type(value) is dict and step in value:
            value = value[step]
        elif type(value) is list and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _delete(record: dict[str, Any], name: str) -> None:
    """Remove a field whose text is in the document."""
    if name in record:
        del record[name]
        return
    path, _, key = name.rpartition(".")
    holder = value_at(record, path) if path else None
    if type(holder) is dict:
        holder.pop(key, None)


def _there(record: dict[str, Any], name: str) -> Any:
    """The value of a field that must be there, of any type."""
    value = _find(record, name)
    if value is _MISSING:
        raise _ShapeError("missing_field", f"{name!r} is missing; found {', '.join(map(repr, record)) or 'none'}")
    return value


def _typed(record: dict[str, Any], name: str, kind: type) -> Any:
    """The value of a field that must be there."""
    value = _there(record, name)
    if type(value) is not kind and not (kind is object and type(value) in {str, int}):
        wanted = "str or int" if kind is object else kind.__name__
        raise _ShapeError("wrong_type", f"{name!r} is {type(value).__name__}, not {wanted}")
    return value


def _texts(record: dict[str, Any], parts: tuple[str, ...], optional: set[str | None]) -> list[str]:
    """The parts of the text; an optional one that is null or missing is empty."""
    return ["" if name in optional and value_at(record, name) is None else _typed(record, name, str) for name in parts]


def _split(record: dict[str, Any], name: str) -> str:
    if value_at(record, name) is None:
        return ""
    value = _typed(record, name, str)
    split = SPLIT_NAMES.get(value.strip().lower())
    if split is None:
        raise _ShapeError("wrong_type", f"{name!r} is {value[:40]!r}, not {', '.join(SPLIT_NAMES)}")
    return split


def _turns(record: dict[str, Any], shape: Shape) -> list[str]:
    """Questions and answers in alternation."""
    sides = _sides(record, shape, _typed(record, shape.roles["turns"], list), shape.roles["turns"])
    if len(sides) % 2:
        sides.pop()
    if not sides:
        raise _ShapeError("missing_field", f"{shape.roles['turns']!r} has no question with an answer")
    return sides


def _sides(record: dict[str, Any], shape: Shape, turns: list[Any], name: str) -> list[str]:
    """What user and assistant say in alternation, from the first question on, in the turns of a field."""
    said = [(*_turn(each, f"{name}.{at}"),) for at, each in enumerate(turns)]
    if "system" in shape.roles:
        system = value_at(record, shape.roles["system"])
        said = [("system", system), *said] if type(system) is str and system.strip() else said
    if "answer" in shape.roles:
        said.append(("assistant", _typed(record, shape.roles["answer"], str)))
    opening = "\n".join(text for role, text in said if role == "system" and text.strip())
    sides: list[tuple[str, str]] = []
    for role, text in said:
        if role == "system" or (not sides and role == "assistant"):
            continue
        if sides and sides[-1][0] == role:
            sides[-1] = (role, f"{sides[-1][1]}\n{text}")
        else:
            sides.append((role, text))
    texts = [text for _, text in sides]
    return [f"{opening}\n{texts[0]}", *texts[1:]] if opening and texts else texts


def _ranking(record: dict[str, Any], shape: Shape) -> tuple[list[str], int]:
    """The turns of the prompt and the answers, and how many of these are the prompt's."""
    roles, prompt = shape.roles, list[str]()
    opening, name = _opening(record, roles)
    if opening is not None:
        prompt = _sides(record, shape, opening, name)
        if len(prompt) % 2 == 0:
            raise _ShapeError("missing_field", f"{name!r} has no question before the answer")
    elif "prompt" in roles:
        prompt = [_typed(record, roles["prompt"], str)]
        system = value_at(record, roles["system"]) if "system" in roles else None
        prompt = [f"{system}\n{prompt[0]}"] if type(system) is str and system.strip() else prompt
    if "ranking" in roles:
        given = list(enumerate(_typed(record, roles["ranking"], list)))
        answers = [_answer(each, f"{roles['ranking']}.{at}") for at, each in given]
    else:
        answers = [_answer(_there(record, roles[role]), roles[role]) for role in ("chosen", "rejected")]
    if len(answers) < 2:
        raise _ShapeError("missing_field", f"{roles['ranking']!r} holds {len(answers)} answers, and two make a ranking")
    return [*prompt, *answers], len(prompt)


def _opening(record: dict[str, Any], roles: Mapping[str, str]) -> tuple[list[Any] | None, str]:
    """The turns before the answers, and their field; None without such turns.

    Without a role for them they are what a better and a worse conversation have in common.
    """
    if "turns" in roles:
        return _typed(record, roles["turns"], list), roles["turns"]
    if "prompt" in roles or "ranking" in roles:
        return None, ""
    better, worse = ([*each[:-1]] if type(each) is list else [] for each in
                     (_there(record, roles[role]) for role in ("chosen", "rejected")))  # fmt: skip
    if better != worse:
        what = f"{roles['chosen']!r} and {roles['rejected']!r} differ before their last turn"
        raise _ShapeError("wrong_type", what)
    return better or None, roles["chosen"]


def _answer(value: Any, where: str) -> str:
    """An answer: a string, a turn of the assistant, or a conversation that ends with one."""
    if type(value) is list and value:
        value = value[-1]
    if type(value) is dict:
        role, text = _turn(value, where)
        if role != "assistant":
            raise _ShapeError("wrong_type", f"{where!r} ends with a turn of the {role}, not of the assistant")
        return text
    if type(value) is not str:
        raise _ShapeError("wrong_type", f"{where!r} is {type(value).__name__}, not str")
    return value


def role_of(turn: Mapping[str, Any]) -> str | None:
    """Who says a turn, `user`, `assistant` or `system`; None for another speaker."""
    speaker = turn.get("from") if turn.get("role") is None else turn["role"]
    return ROLES.get(speaker.strip().lower()) if type(speaker) is str else None


def text_of(turn: Mapping[str, Any]) -> Any:
    """What is said in a turn, as the record has it."""
    return turn.get("value") if turn.get("content") is None else turn["content"]


def _turn(each: Any, where: str) -> tuple[str, str]:
    """Who speaks, and the text."""
    if type(each) is not dict:
        raise _ShapeError("wrong_type", f"{where!r} is {type(each).__name__}, not an object")
    text = text_of(each)
    if type(text) is list:  # OpenAI's content parts
        text = "".join(part["text"] if type(part) is dict and type(part.get("text")) is str else "\0" for part in text)
        text = None if "\0" in text else text
    role = role_of(each)
    if role is None:
        speaker = each.get("from") if each.get("role") is None else each["role"]
        raise _ShapeError("wrong_type", f"{where!r} is said by {str(speaker)[:40]!r}, not by user, assistant or system")
    if type(text) is not str:
        raise _ShapeError("wrong_type", f"{where!r} has no text")
    return role, text
