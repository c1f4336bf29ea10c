"""A conversation: questions in, answers out, in the form that models are tuned with.

In: one question after another. Out: `Piece`s of its answer. The model reads `<|user|>` question `<|assistant|>` answer
`<|endoftext|>` of each turn so far and then `<|user|>` question `<|assistant|>`: what the tokenizer's own chat template
makes of them, but that special strings which somebody types stay text.
Invariants: answers depend on the questions, the seed and the settings; an answer that is stopped stays in the history
as far as it has come; the oldest turns go when they would leave no room for an answer.
Cost: the whole history is read again for each question, in one pass.
"""

from __future__ import annotations

from collections.abc import Generator

from corpus.generate.config import Piece, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import without_blanks
from corpus.pipeline.errors import ModelError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER


class Chat:
    """One conversation with one model."""

    def __init__(self, model: Model, config: SampleConfig, *, progress: Progress = SILENT) -> None:
        """`config.prompts` plays no part.

        Raises:
            ModelError: the tokenizer has no tokens for the two sides.

        """
        user, assistant = map(model.tokenizer.backend_tokenizer.token_to_id, (USER, ASSISTANT))
        if user is None or assistant is None:
            raise ModelError(
                f"{model.folder}: the tokenizer has no {USER} and {ASSISTANT}, so the model was never tuned to chat",
                hint="Give --model one that `corpus train --objective sft` made, or leave --chat out.",
            )
        self._user, self._assistant = user, assistant
        self._model = model
        self._config = config
        self._progress = progress
        self._room = model.context - min(config.max_new_tokens, model.context // 2)
        self._turns: list[list[int]] = []
        self._asked = 0
        self._has_told = False

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """The answer as it comes; close the generator to stop it. The last piece has a `finish`.

        Raises:
            ModelError: the model computes no numbers, or the device is full.

        """
        opening = self._opening(question)
        self._forget(len(opening))
        prompt = [token for turn in (*self._turns, opening) for token in turn]
        key = (self._asked, 0)
        self._asked += 1
        said: list[str] = []
        try:
            for piece in without_blanks(Batch(self._model, {key[0]: prompt}, [key], self._config).pieces()):
                said.append(piece.text)
                yield piece
        finally:
            if answer := "".join(said).rstrip():
                self._turns.append([*opening, *self._model.encode(answer), self._model.separator])

    def reset(self) -> None:
        """Forget all that was said; the next question is the first of a new conversation."""
        self._turns.clear()
        self._asked = 0

    def _opening(self, question: str) -> list[int]:
        """The tokens of a question with the marks of its side; of one that is too long the newest."""
        ids = self._model.encode(question)
        most = max(1, self._room - 2)
        if len(ids) > most:
            self._progress.say(f"the question has {len(ids):,} tokens; the model reads the newest {most:,} of them")
        return [self._user, *ids[-most:], self._assistant]

    def _forget(self, tokens: int) -> None:
        """Drop the oldest turns until so many more tokens fit."""
        before = len(self._turns)
        while self._turns and sum(map(len, self._turns)) + tokens > self._room:
            self._turns.pop(0)
        if len(self._turns) < before and not self._has_told:
            self._has_told = True
            self._progress.say(
                f"the conversation is longer than the model can read ({self._model.context:,} tokens): "
                "from now on the oldest questions and answers are forgotten"
            )
