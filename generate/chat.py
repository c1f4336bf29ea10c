"""A conversation: questions in, answers out, in the chat form of instruction tuning.

In: one question after another. Out: `Piece`s of its answer. The model reads `<|user|>` question `<|assistant|>` answer
`<|endoftext|>` of each earlier turn and then `<|user|>` question `<|assistant|>`, as the tokenizer's chat template
gives, except that special strings typed by a user stay text.
Invariants: answers depend on the questions, the seed and the settings; the written part of a stopped answer stays in
the history; the oldest turns are dropped when they would leave no room for an answer.
Cost: the whole history is read again for each question, in one pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from corpus.generate.config import Piece, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import without_blanks
from corpus.pipeline.errors import ModelError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER
from corpus.pipeline.workspace.ledger import read_ledger


class ChatForm:
    """The chat form in a model's tokens."""

    def __init__(self, model: Model) -> None:
        """Find the tokens of the two roles.

        Raises:
            ModelError: the tokenizer has none.

        """
        user, assistant = map(model.tokenizer.backend_tokenizer.token_to_id, (USER, ASSISTANT))
        if user is None or assistant is None:
            raise ModelError(
                f"{model.folder}: the tokenizer has no {USER} and {ASSISTANT}, so the model was never tuned to chat",
                hint="Give --model one that `corpus train --objective sft` made, or leave --chat out.",
            )
        self._user, self._assistant = user, assistant
        self._model = model

    def question(self, ids: Sequence[int]) -> list[int]:
        """A question's tokens between those of the roles; the model writes the answer after them."""
        return [self._user, *ids, self._assistant]

    def turn(self, question: Sequence[int], answer: str) -> list[int]:
        """A question in this form with its answer."""
        return [*question, *self._model.encode(answer.rstrip()), self._model.separator]

    def prompt(self, turns: Iterable[tuple[str, str]], question: str) -> list[int]:
        """What the model reads before it answers the question: earlier questions with their answers, and the question.

        An earlier question without an answer is left out, as `Chat` does.
        """
        encode = self._model.encode
        before = [self.turn(self.question(encode(asked)), answer) for asked, answer in turns if answer.rstrip()]
        return [*self._model.beginning, *itertools.chain(*before), *self.question(encode(question))]


def is_untuned(folder: Path) -> bool:
    """Whether the ledger of a run says that its model was trained on text alone."""
    ledger = read_ledger(folder) or read_ledger(folder.parent)
    return ledger is not None and ledger.stage == "train" and ledger.config.get("objective", "text") == "text"


class Chat:
    """One conversation with one model."""

    def __init__(self, model: Model, config: SampleConfig, *, progress: Progress = SILENT) -> None:
        """`config.prompts` is ignored.

        Raises:
            ModelError: the tokenizer has no tokens for the two roles.

        """
        self._form = ChatForm(model)
        self._model = model
        self._config = config
        self._progress = progress
        self._room = model.context - min(config.max_new_tokens, model.context // 2) - len(model.beginning)
        self._turns: list[list[int]] = []
        self._asked = 0
        self._has_warned = False

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """The answer, streamed; close the generator to stop it. The last piece has a `finish`.

        Raises:
            ModelError: the model returned NaN or infinity.
            DeviceError: the device is out of memory.

        """
        opening = self._opening(question)
        self._drop_turns(len(opening))
        prompt = [token for turn in (self._model.beginning, *self._turns, opening) for token in turn]
        key = (self._asked, 0)
        self._asked += 1
        written: list[str] = []
        try:
            for piece in without_blanks(Batch(self._model, {key[0]: prompt}, [key], self._config).pieces()):
                written.append(piece.text)
                yield piece
        finally:
            if (answer := "".join(written)).rstrip():
                self._turns.append(self._form.turn(opening, answer))

    def reset(self) -> None:
        """Clear the history; the next question starts a new conversation."""
        self._turns.clear()
        self._asked = 0

    def _opening(self, question: str) -> list[int]:
        """The tokens of a question between the role tokens; a question that is too long loses its beginning."""
        ids = self._model.encode(question)
        most = max(1, self._room - 2)
        if len(ids) > most:
            self._progress.say(f"the question has {len(ids):,} tokens; the model reads the newest {most:,} of them")
        return self._form.question(ids[-most:])

    def _drop_turns(self, tokens: int) -> None:
        """Drop the oldest turns until this many tokens fit."""
        before = len(self._turns)
        while self._turns and sum(map(len, self._turns)) + tokens > self._room:
            self._turns.pop(0)
        if len(self._turns) < before and not self._has_warned:
            self._has_warned = True
            self._progress.say(
                f"the conversation is longer than the model's context of {self._model.context:,} tokens: "
                "from now on the oldest questions and answers are dropped"
            )
