"""What is written, in the JSON of OpenAI's protocol: whole answers, and the chunks of a stream.

Beside the protocol's fields an answer has `seed`, which reproduces it, and each finished choice `ended_by`:
`separator` (the model ended the document), `stop`, `length`, `time` or `shutdown`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from corpus.generate.engine.batch import Scores
from corpus.generate.engine.model import Model
from corpus.generate.serve.scheduler import End, Part


@dataclass(kw_only=True)
class Choice:
    """One text as far as it is written."""

    text: str = ""
    tokens: int = 0
    end: End | None = None
    scores: list[tuple[int, int, Scores]] = field(default_factory=list)
    """For each token its place in the text, itself and its log-probabilities."""


class Answer:
    """The answer to one request: takes parts, gives JSON."""

    def __init__(
        self, model: Model, name: str, *, form: Literal["text", "chat"], choices: int, prompt_tokens: int, seed: int,
        include_usage: bool = False,
    ) -> None:  # fmt: skip
        self.choices = [Choice() for _ in range(choices)]
        self.prompt_tokens = prompt_tokens
        self._model = model
        self._is_chat = form == "chat"
        self._include_usage = include_usage
        self._head = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": name,
            "seed": seed,
        }

    @property
    def is_finished(self) -> bool:
        """Whether all choices have ended."""
        return all(choice.end for choice in self.choices)

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }

    def add(self, part: Part) -> Part:
        """Take a part; what it adds to the answer, in which a chat's answer does not begin with blanks."""
        choice = self.choices[part.choice]
        text = part.text if choice.text or not self._is_chat else part.text.lstrip()
        if part.scores is not None and part.token is not None and part.token != self._model.separator:
            choice.scores.append((len(choice.text), part.token, part.scores))
        choice.text += text
        choice.tokens = part.tokens
        choice.end = part.end
        return Part(part.choice, text, part.token, part.tokens, part.scores, part.end)

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        choices = [
            self._choice(index, choice.end, choice.scores)
            | ({"message": {"role": "assistant", "content": choice.text}} if self._is_chat else {"text": choice.text})
            for index, choice in enumerate(self.choices)
        ]
        kind = "chat.completion" if self._is_chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage}

    def opening(self) -> Iterator[dict[str, Any]]:
        """The chunks before the first text."""
        if self._is_chat:
            for index in range(len(self.choices)):
                yield self._chunk([self._choice(index, None, ()) | _delta({"role": "assistant", "content": ""})])

    def chunks(self, part: Part) -> Iterator[dict[str, Any]]:
        """Add a part; its chunks."""
        known = len(self.choices[part.choice].scores)
        added = self.add(part)
        scores = self.choices[part.choice].scores[known:]
        if added.text or scores:
            choice = self._choice(part.choice, None, scores)
            yield self._chunk([choice | (_delta({"content": added.text}) if self._is_chat else {"text": added.text})])
        if added.end:
            yield self._chunk(
                [self._choice(part.choice, added.end, ()) | (_delta({}) if self._is_chat else {"text": ""})]
            )

    def closing(self) -> Iterator[dict[str, Any]]:
        """The chunk after the last text."""
        if self._include_usage:
            yield self._chunk([]) | {"usage": self.usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        chunk = {**self._head, "object": kind, "choices": choices}
        return chunk | {"usage": None} if self._include_usage else chunk

    def _choice(self, index: int, end: End | None, scores: Sequence[tuple[int, int, Scores]]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": None, "logprobs": None}
        if end:
            choice |= {"finish_reason": "stop" if end in {"separator", "stop"} else "length", "ended_by": end}
        if scores:
            choice["logprobs"] = self._chat_logprobs(scores) if self._is_chat else self._text_logprobs(scores)
        return choice

    def _chat_logprobs(self, scores: Sequence[tuple[int, int, Scores]]) -> dict[str, Any]:
        content = [
            self._entry(token, each.logprob) | {"top_logprobs": [self._entry(*pair) for pair in each.likeliest]}
            for _, token, each in scores
        ]
        return {"content": content, "refusal": None}

    def _text_logprobs(self, scores: Sequence[tuple[int, int, Scores]]) -> dict[str, Any]:
        return {
            "tokens": [self._name(token) for _, token, _ in scores],
            "token_logprobs": [each.logprob for _, _, each in scores],
            "top_logprobs": [
                {self._name(token): logprob for token, logprob in each.likeliest} for _, _, each in scores
            ],
            "text_offset": [offset for offset, _, _ in scores],
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._model.vocabulary.bytes_of(token)
        return {"token": self._name(token), "logprob": logprob, "bytes": list(data)}

    def _name(self, token: int) -> str:
        """A token's text; one that is no whole text by its bytes, as OpenAI writes it; a special one by its name."""
        data = self._model.vocabulary.bytes_of(token)
        if not data:
            return str(self._model.tokenizer.convert_ids_to_tokens(token))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _delta(content: dict[str, str]) -> dict[str, Any]:
    return {"delta": content}
