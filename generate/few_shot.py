"""Few-shot prompts: worked examples, then the prompt as the beginning of a document.

In: examples and a prompt. Out: tokens.
Invariants: an example is a document with the separator after it, as in the rows of training; the prompt is the
beginning of the next document, so the model ends its answer with the separator; special strings in them are text.
Cost: examples are encoded once; the model reads them with every prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from corpus.generate.config import Piece
from corpus.generate.engine.model import Model
from corpus.pipeline.errors import ModelError
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, USER


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a prompt is put to the model; by default unchanged."""

    begin: Callable[[str], str] | None = None
    """Makes the beginning of a document from a question; the model then writes the answer."""
    shots: tuple[str, ...] = ()
    """Documents before the prompt, each with the separator after it."""

    def encoder(self, model: Model) -> Callable[[str], list[int]]:
        """A function from a prompt to the tokens that the model reads.

        Raises:
            ModelError: the examples alone fill the context.

        """
        shots = [token for shot in self.shots for token in (*model.encode(shot), model.separator)]
        before = [*model.beginning, *shots]
        if len(before) >= model.context:
            raise ModelError(
                f"the {len(self.shots)} examples have {len(before):,} tokens, the model's context has "
                f"{model.context:,}",
                hint="Give fewer or shorter ones with --shots.",
            )
        begin = self._begin
        return lambda prompt: before + model.encode(begin(prompt))

    def _begin(self, prompt: str) -> str:
        """The document's text up to the answer.

        A blank before the answer is left to the model: in training that blank is the first character of the answer's
        first token, never a separate token.
        """
        return prompt if self.begin is None else self.begin(prompt).rstrip(" ")

    def reader(self, model: Model) -> Callable[[str, str], tuple[list[int], list[int]]]:
        """A function from a prompt and a text of the model to question and answer as a reward model reads them.

        An unchanged prompt is no question: prompt and text are one answer. Examples are left out.

        Raises:
            ModelError: the tokenizer has no tokens for the two roles.

        """
        if self.begin is None:
            return lambda prompt, text: ([], model.encode((prompt + text).strip()))
        begin, (user, assistant) = self.begin, role_tokens(model)
        return lambda prompt, text: (
            [user, *model.encode(begin(prompt).strip()), assistant],
            model.encode(text.strip()),
        )

    def answers(self, pieces: Iterable[Piece]) -> Iterable[Piece]:
        """The pieces; leading blanks of answers are dropped."""
        return pieces if self.begin is None else without_blanks(pieces)


def role_tokens(model: Model) -> tuple[int, int]:
    """The tokens before a question and before an answer.

    Raises:
        ModelError: the tokenizer has none.

    """
    user, assistant = map(model.tokenizer.backend_tokenizer.token_to_id, (USER, ASSISTANT))
    if user is None or assistant is None:
        raise ModelError(
            f"{model.folder}: the tokenizer has no {USER} and {ASSISTANT}, so the model was never tuned to chat",
            hint="Give --model one that `corpus train --objective sft` made, or leave --chat out.",
        )
    return user, assistant


PLAIN = Form()
"""The unchanged prompt, without examples."""


def answered(shots: Sequence[tuple[str, str]], begin: Callable[[str], str]) -> Form:
    """The form of questions with answers: `begin` turns a question into the text before its answer."""
    return Form(begin=begin, shots=tuple(begin(question) + answer for question, answer in shots))


def without_blanks(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces without the blanks and line breaks at the beginning of each sample."""
    begun: set[tuple[int, int]] = set()
    for piece in pieces:
        key = (piece.prompt, piece.sample)
        text = piece.text if key in begun else piece.text.lstrip()
        if text:
            begun.add(key)
        if text or piece.finish:
            yield replace(piece, text=text)
