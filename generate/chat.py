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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.generate import best_of
from corpus.generate.best_of import Scorer
from corpus.generate.config import Choice, Piece, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import Form, role_tokens, without_blanks
from corpus.generate.stage import joined
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
        self._user, self._assistant = role_tokens(model)
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


def _as_asked(question: str) -> str:
    return f"{USER}{question}{ASSISTANT}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstQuestion(Form):
    """Each prompt is the first question of a conversation of its own."""

    begin: Callable[[str], str] | None = _as_asked

    def encoder(self, model: Model) -> Callable[[str], list[int]]:
        """A function from a question to the tokens that the model reads.

        Raises:
            ModelError: the tokenizer has no tokens for the two roles.

        """
        form = ChatForm(model)
        return lambda question: form.prompt((), question.strip())

    def reader(self, model: Model) -> Callable[[str, str], tuple[list[int], list[int]]]:
        """As `Form`."""
        form = ChatForm(model)
        return lambda question, text: (form.question(model.encode(question.strip())), model.encode(text.strip()))


class Chat:
    """One conversation with one model."""

    choice: Choice | None = None
    """Of best-of-n: the scores of the newest answer and of those that it was chosen from."""

    def __init__(
        self, model: Model, config: SampleConfig, *, scorer: Scorer | None = None, progress: Progress = SILENT
    ) -> None:
        """`config.prompts` is ignored; `scorer` goes with `config.best_of`.

        Raises:
            ModelError: the tokenizer has no tokens for the two roles.

        """
        self._form = ChatForm(model)
        self._model = model
        self._config = config
        best_of.check(config, scorer)
        self._scorer = scorer
        self._progress = progress
        self._room = model.context - min(config.max_new_tokens, model.context // 2) - len(model.beginning)
        self._turns: list[list[int]] = []
        self._asked = 0
        self._has_warned = False

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """The answer, streamed; close the generator to stop it. The last piece has a `finish`.

        The best of several answers comes as one piece, when all are written.

        Raises:
            ModelError: the model returned NaN or infinity.
            DeviceError: the device is out of memory.

        """
        self.choice = None
        opening = self._opening(question)
        self._drop_turns(len(opening))
        prompt = [token for turn in (self._model.beginning, *self._turns, opening) for token in turn]
        key = (self._asked, 0)
        self._asked += 1
        written: list[str] = []
        try:
            for piece in self._best(key[0], prompt) if self._scorer else self._pieces(prompt, [key]):
                written.append(piece.text)
                yield piece
        finally:
            if (answer := "".join(written)).rstrip():
                self._turns.append(self._form.turn(opening, answer))

    def _pieces(self, prompt: list[int], keys: Sequence[tuple[int, int]]) -> Iterator[Piece]:
        """Pieces of answers to one prompt, `batch_size` answers at a time."""
        for first in range(0, len(keys), self._config.batch_size):
            own = keys[first : first + self._config.batch_size]
            yield from without_blanks(Batch(self._model, {own[0][0]: prompt}, own, self._config).pieces())

    def _best(self, number: int, prompt: list[int]) -> Iterator[Piece]:
        """The best of several answers. The reward model reads the conversation that the model reads."""
        if self._scorer is None:
            return
        found = joined(self._pieces(prompt, [(number, sample) for sample in range(self._config.drawn)]), SILENT)
        asked = prompt[len(self._model.beginning) :]
        read = [(asked, self._model.encode(found[key][0].strip())) for key in sorted(found)]
        (self.choice,) = best_of.choose(read, self._scorer, many=self._config.drawn)
        text, finish = found[number, self.choice.sample]
        yield Piece(prompt=number, sample=self.choice.sample, text=text, finish=finish)

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
