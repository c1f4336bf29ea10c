"""`corpus score`: answers in, the scores of a reward model out.

In: JSON Lines, each an object with `answer` and, where there is one, `prompt`. Out: the same objects with `score`;
an answer that the model cannot read whole has the score null and `why`.
Invariants: an answer is read as `corpus pack --form ranking` has it: the separator, the question between its two
tokens, the answer, the separator; a text that spells one of these stays text; a score does not depend on the answers
beside it, but for rounding; lines keep their order.
Cost: one pass over each answer; `CHUNK` lines in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np
import torch

from corpus.pipeline.errors import DeviceError, ModelError, PromptError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import REWARD_SHIFT
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.data.passes import passes
from corpus.train.model import device as devices
from corpus.train.model import load
from corpus.train.model.architecture import DROPOUTS
from corpus.train.objective import PASS_TOKENS
from corpus.train.preferences import networks, predict
from corpus.train.preferences.batches import RankingCollator, RankingItem
from corpus.train.preferences.config import ScoreConfig, Scored

CHUNK = 512
LINE_BYTES = 16 << 20
"""Longest line."""
_DIGITS = 6
_HINT = 'Each line must be an object such as {"prompt": "...", "answer": "..."}.'


def configuration(folder: Path, flag: str) -> Any:
    """The configuration of a reward model, which `flag` named.

    Raises:
        ModelError: it is no reward model, or not a whole one.

    """
    load.files(folder, flag, scores=True)
    config = load.configuration(folder, flag)
    if not isinstance(getattr(config, REWARD_SHIFT, None), float | int):
        raise ModelError(
            f"{folder} is no reward model: its config.json has no {REWARD_SHIFT}",
            hint=f"Give {flag} a run of `corpus train --objective reward`.",
        )
    return config


class RewardModel:
    """A reward model from the folder of its run, which `flag` named, without dropout.

    Raises:
        ModelError: it is no reward model, or not a whole one.
        TokenizerError: its tokenizer cannot be read.

    """

    def __init__(self, folder: Path, *, device: str = "cpu", flag: str = "--model") -> None:
        config = configuration(folder, flag)
        self.folder, self.shift = folder, float(getattr(config, REWARD_SHIFT))
        none = {name: 0.0 for name in DROPOUTS if hasattr(config, name)}
        opened = load.open_model(folder, flag, torch.float32, kind=networks.reward_class(config), **none)
        self.network = opened.eval().to(device)
        self.context = load.context_in(config)
        self.tokenizer = load.open_tokenizer(folder)
        pad, self.separator = config.pad_token_id, self.tokenizer.eos_token_id
        if pad is None or pad == self.separator:
            raise ModelError(
                f"{folder} has no padding of its own: the end of an answer would not be read",
                hint="Set pad_token_id in its config.json to a token that no text holds.",
            )
        self.collator = RankingCollator(self.separator, pad)
        self._marks = self.tokenizer.convert_tokens_to_ids([USER, ASSISTANT])

    def items(self, prompts: Sequence[str], answers: Sequence[str]) -> list[RankingItem | None]:
        """Each answer as the network reads it; None where it is longer than the context. No prompt is empty."""
        texts = [text.strip() for text in (*prompts, *answers)]
        ids = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )["input_ids"] if texts else []  # fmt: skip
        user, assistant = self._marks
        asked = [[user, *question, assistant] if question else [] for question in ids[: len(prompts)]]
        return self._items(asked, ids[len(prompts) :])

    def _items(self, questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[RankingItem | None]:
        found: list[RankingItem | None] = []
        for question, answer in zip(questions, answers, strict=True):
            asked, given = np.array(question, np.int64), np.array([*answer, self.separator], np.int64)
            fits = self.context is None or 1 + len(asked) + len(given) <= self.context
            item = RankingItem(asked, [given], np.zeros((1, 2), np.int64), np.zeros(1))
            found.append(item if fits else None)
        return found

    def scores(
        self, prompts: Sequence[str], answers: Sequence[str], *, tokens: int = PASS_TOKENS, precision: str = "fp32"
    ) -> list[float | None]:
        """The score of each answer; None where it is longer than the context."""
        return self._scored(self.items(prompts, answers), tokens, precision)

    def scores_of_ids(
        self, questions: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, tokens: int = PASS_TOKENS,
        precision: str = "fp32",
    ) -> list[float | None]:  # fmt: skip
        """The same for ids of its tokenizer: questions with the tokens of the roles, answers without a separator."""
        return self._scored(self._items(questions, answers), tokens, precision)

    def _scored(self, items: Sequence[RankingItem | None], tokens: int, precision: str) -> list[float | None]:
        sizes = [1 + len(item.question) + len(item.answers[0]) if item else 0 for item in items]
        fitting = [at for at, size in enumerate(sizes) if size]
        found: list[float | None] = [None] * len(items)
        for places in passes([sizes[at] for at in fitting], tokens=tokens):
            own = [fitting[place] for place in places]
            batch = [item for at in own if (item := items[at])]
            for at, logit in zip(own, predict.of_items(self.network, batch, self.collator, precision), strict=True):
                found[at] = float(logit) - self.shift
        return found


class _Answer(NamedTuple):
    """A line of the input."""

    prompt: str
    answer: str
    fields: dict[str, Any]


def run(config: ScoreConfig, *, progress: Progress = SILENT, write: Callable[[str], None] = lambda _: None) -> Scored:
    """Score the answers of a file or of standard input; without `output` the lines go to `write`.

    Raises:
        PromptError: a line is no answer; its number is named.
        ModelError, TokenizerError, DeviceError, DiskError: as their names say.

    """
    watch = Stopwatch()
    device = devices.choose(config.device, config.precision)
    scores: list[float | None] = []
    with devices.memory_errors(_out_of_memory()), contextlib.ExitStack() as stack:
        model = RewardModel(config.model, device=device.kind)
        if config.output:
            file = stack.enter_context(atomic(config.output))
            write = lambda line: _write(file, line)  # noqa: E731  # the other way is a function of the caller
        stream: IO[bytes] = stack.enter_context(_open(config.input)) if config.input else sys.stdin.buffer
        lines = _answers(stream, str(config.input or "standard input"))
        tokens = device.most_rows * PASS_TOKENS
        with progress.bar("scoring", None, "answers"):
            while chunk := list(itertools.islice(lines, CHUNK)):
                many = config.batch_size or max(1, len(chunk))
                for first in range(0, len(chunk), many):
                    part = chunk[first : first + many]
                    own = model.scores(
                        [each.prompt for each in part], [each.answer for each in part], precision=device.precision,
                        tokens=tokens if config.batch_size is None else sys.maxsize,
                    )  # fmt: skip
                    for each, score in zip(part, own, strict=True):
                        write(_line(each, score))
                    scores += own
                    progress.advance(len(part))
    known = [score for score in scores if score is not None]
    return Scored(
        model=config.model, answers=len(scores), too_long=len(scores) - len(known),
        mean=round(float(np.mean(known)), _DIGITS) if known else None, device=device.describe(), seconds=watch.seconds,
    )  # fmt: skip


def _write(file: IO[bytes], line: str) -> None:
    file.write(f"{line}\n".encode())


def _line(each: _Answer, score: float | None) -> str:
    values = each.fields | {"score": None if score is None else round(score, _DIGITS)}
    return json.dumps(values | ({"why": "too_long"} if score is None else {}), ensure_ascii=False)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}", hint="Give a file of JSON Lines.") from error


def _answers(stream: IO[bytes], name: str) -> Iterator[_Answer]:
    """The answers of a stream; blank lines are skipped.

    Raises:
        PromptError: a line is no answer.

    """
    number = 0
    while raw := stream.readline(LINE_BYTES + 1):
        number += 1
        if len(raw) > LINE_BYTES:
            raise PromptError(f"{name}:{number}: the line is longer than {LINE_BYTES:,} bytes", hint=_HINT)
        if raw.isspace():
            continue
        try:
            values = json.loads(raw, parse_constant=_no_number)
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            what = "it holds half a character (a lone surrogate)"
            raise PromptError(f"{name}:{number}: {what}", hint="Write the whole character.") from error
        except (ValueError, RecursionError) as error:
            raise PromptError(f"{name}:{number}: it is not JSON: {error}", hint=_HINT) from error
        fields = values if isinstance(values, dict) else {}
        prompt, answer = fields.get("prompt"), fields.get("answer")
        if not isinstance(answer, str) or not isinstance(prompt, str | None):
            raise PromptError(f'{name}:{number}: it has no "answer", or a "prompt" that is no string', hint=_HINT)
        if taken := [key for key in ("score", "why") if key in fields]:
            raise PromptError(f"{name}:{number}: {taken[0]!r} is a key of the result", hint="Give it another name.")
        yield _Answer(prompt or "", answer, fields)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _out_of_memory() -> DeviceError:
    return DeviceError("the device has not enough memory for this model", hint="Give --batch-size 1, or --device cpu.")
