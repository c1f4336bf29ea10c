"""Prompts and worked examples from a file or a pipe, a line at a time.

In: text, one prompt a line; or JSON Lines, each a string or an object with "prompt". Out: `Prompt`s with their line
numbers, and pairs of question and answer.
Invariants: lines are UTF-8 and no longer than `LINE_BYTES`; a bad one is a PromptError with its number; blank lines are
skipped but numbered; other keys of an object are passed through unchanged.
Cost: one line in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NoReturn

from corpus.pipeline.errors import PromptError
from corpus.pipeline.text.encodings import encoding_of

LINE_BYTES = 16 << 20
"""Longest line read, in bytes."""
RESULT_KEYS = ("prompt", "text", "sample", "prompt_tokens", "tokens", "finish", "logprob", "seed")
"""Keys of a result; the prompt's other keys are added to them."""
CHOICE_KEYS = ("score", "scores")
"""Further keys of a result that was chosen from several."""
_JSON_NAMES = frozenset({".jsonl", ".ndjson", ".json"})
_PROMPT_HINT = 'Each line must be a JSON string, or an object such as {"prompt": "..."}.'
_SHOT_HINT = 'Each line must be an object such as {"prompt": "...", "answer": "..."}.'
_BLOCK_HINT = "An example is a line with the question and, below it, the answer; a blank line ends it."


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One line of a file of prompts."""

    line: int
    """Its number, from 1."""
    text: str
    rest: dict[str, Any] = field(default_factory=dict)
    """The other keys of its object."""


class PromptFile:
    """Prompts in a file, which is read as often as needed, or in a stream, which is read once."""

    def __init__(self, source: Path | IO[bytes], *, blank: bool = True, scored: bool = False) -> None:
        """`blank` allows the empty prompt, which asks for a new document; `scored` results have scores, too."""
        self.name = str(source) if isinstance(source, Path) else "standard input"
        self._source = source
        self._blank = blank
        self._taken = RESULT_KEYS + (CHOICE_KEYS if scored else ())
        self.count: int | None = None
        """Number of prompts, once `check` has counted them."""

    @property
    def is_file(self) -> bool:
        """Whether it can be read twice; standard input and a pipe with a name cannot."""
        return isinstance(self._source, Path) and self._source.is_file()

    def check(self) -> None:
        """Read all lines of a file and count the prompts; a pipe is not read.

        Raises:
            PromptError: a line is no prompt, there are no prompts, or there is no such file.

        """
        path = self._source
        if isinstance(path, Path) and (path.is_file() or path.is_dir() or not path.exists()):
            self.count = sum(1 for _ in self)

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with _open(Path(self.name)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def __iter__(self) -> Iterator[Prompt]:
        with _open(self._source) if isinstance(self._source, Path) else self._source as stream:
            lines = iter(_lines(stream, self.name))
            first = next(lines, None)
            if first is None:
                raise PromptError(f"{self.name} holds no prompts", hint="Write one prompt a line into it.")
            is_json = _is_json(self.name, first[1])
            for number, line in itertools.chain([first], lines):
                yield self._parse(number, line) if is_json else Prompt(line=number, text=line)

    def _parse(self, number: int, line: str) -> Prompt:
        value = _value(self.name, number, line, _PROMPT_HINT)
        fields = value if isinstance(value, dict) else {"prompt": value}
        text = fields.pop("prompt", None)
        if not isinstance(text, str):
            _refuse(self.name, number, 'it has no "prompt" that is a string', _PROMPT_HINT)
        if not (self._blank or text.strip()):
            _refuse(self.name, number, "its prompt is empty", "Give every line a prompt, or delete it.")
        if taken := [key for key in fields if key in self._taken]:
            _refuse(self.name, number, f"{taken[0]!r} is a key of the result", "Give that key another name.")
        return Prompt(line=number, text=text, rest=fields)


def shots(path: Path) -> list[tuple[str, str]]:
    """Worked examples: JSON Lines with "prompt" and "answer", or blocks of text, the question in the first line.

    Raises:
        PromptError: a line or a block is no example, or there are no examples.

    """
    with _open(path) as stream:
        if os.fstat(stream.fileno()).st_size > LINE_BYTES:
            raise PromptError(f"{path} is longer than any model's context", hint="Give a few short examples.")
        lines = list(_lines(stream, str(path), blank=True))
    filled = [(number, line) for number, line in lines if line.strip()]
    if not filled:
        raise PromptError(f"{path} holds no examples", hint=_BLOCK_HINT)
    if _is_json(path.name, filled[0][1]):
        return [_shot(str(path), number, line) for number, line in filled]
    return list(_blocks(str(path), lines))


def questions(stream: IO[bytes]) -> Iterator[str]:
    """The questions of a pipe, one a line.

    Raises:
        PromptError: a line is not UTF-8, or too long.

    """
    for _, line in _lines(stream, "standard input"):
        yield line.strip()


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise PromptError(f"{path}: {error.strerror}", hint="Name a file that can be read, or - for a pipe.") from error


def _lines(stream: IO[bytes], name: str, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without line ends; blank lines only with `blank`."""
    for number in itertools.count(1):
        raw = stream.readline(LINE_BYTES + 1)
        if not raw:
            return
        if len(raw) > LINE_BYTES:
            _refuse(name, number, f"it is longer than {LINE_BYTES >> 20} MiB", "Break it into lines.")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what, known = f"it is not UTF-8 (byte {error.start}: {error.reason})", encoding_of(raw)
            hint = f"Convert it with `iconv -f {known} -t UTF-8`." if known else "Convert it to UTF-8."
            raise PromptError(f"{name}, line {number}: {what}", hint=hint) from error
        line = line.removesuffix("\n").removesuffix("\r")
        if blank or line.strip():
            yield number, line


def _is_json(name: str, first: str) -> bool:
    """Whether it is JSON Lines, by the file's suffix, else by its first line."""
    ending = Path(name).suffix.lower()
    if ending in _JSON_NAMES or ending == ".txt":
        return ending != ".txt"
    try:
        return isinstance(json.loads(first), str | dict)
    except (ValueError, RecursionError):
        return False


def _value(name: str, number: int, line: str, hint: str) -> Any:
    """The value of a line of JSON; its strings can be written in UTF-8."""
    try:
        value = json.loads(line, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse(name, number, "it holds half a character (a lone surrogate)", "Write the whole character.")
    except (ValueError, RecursionError) as error:
        if line.lstrip().startswith("["):
            hint = "It looks like one JSON array: `jq -c '.[]'` makes lines of it."
        _refuse(name, number, f"it is not JSON: {error}", hint)
    return value


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _shot(name: str, number: int, line: str) -> tuple[str, str]:
    value = _value(name, number, line, _SHOT_HINT)
    question, answer = (value.get("prompt"), value.get("answer")) if isinstance(value, dict) else (None, None)
    if not isinstance(question, str) or not isinstance(answer, str) or not (question.strip() and answer.strip()):
        _refuse(name, number, 'it lacks "prompt" or "answer"', _SHOT_HINT)
    return question.strip(), answer.strip()


def _blocks(name: str, lines: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    for filled, group in itertools.groupby(lines, key=lambda line: bool(line[1].strip())):
        if filled:
            block = list(group)
            if len(block) < 2:
                _refuse(name, block[0][0], "it is a question without an answer", _BLOCK_HINT)
            yield block[0][1].strip(), "\n".join(line for _, line in block[1:]).strip()


def _refuse(name: str, number: int, what: str, hint: str) -> NoReturn:
    raise PromptError(f"{name}, line {number}: {what}", hint=hint)
