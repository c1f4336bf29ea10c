"""A context and an answer as tokens: what a model reads, and what is scored after it.

In: texts, and the tokenizer of a model's folder. Out: two lists of ids.
Invariants: no token spans a context and an answer: where the encoding of both together does not split between them,
they are encoded apart, and counted; special strings in a text are text; a document begins with what the tokenizer puts
before a text, an empty context is that or the separator; what is longer than the model's context loses tokens on the
left, an answer that alone is longer loses them on the right, and both are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from corpus.train.evaluation.tokens import DocumentTokenizer

Ids = list[int]


@dataclass(kw_only=True, slots=True)
class Counts:
    """What happened to the requests since the last `PairEncoder.take`."""

    requests: int = 0
    scored: int = 0
    """Different ones among them."""
    seams: int = 0
    """Of those, pairs encoded apart because a token would span context and answer."""
    cut_contexts: int = 0
    """Of those, texts longer than the model's context, which lost tokens on the left."""
    cut_answers: int = 0
    """Of those, answers longer than the model's context, which lost tokens on the right."""


class PairEncoder:
    """Encodes pairs for a model that takes `context` tokens at once."""

    def __init__(self, tokenizer: DocumentTokenizer, *, context: int) -> None:
        self.tokenizer = tokenizer.tokenizer
        self.before = list(tokenizer.before)
        self.start = self.before or [int(tokenizer.after[0])]
        """The tokens of an empty context."""
        self.context = context
        self.counts = Counts()

    def encode(self, text: str) -> Ids:
        """The tokens of a text alone; special strings in it are text."""
        return list(
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )

    def pair(self, context: str, answer: str) -> tuple[Ids, Ids]:
        """What is read, with what begins a document, and what is scored.

        As in lm-evaluation-harness, blanks at the end of the context count with the answer: a BPE joins them with what
        follows.
        """
        if not context:
            return self._cut(self.start, self.encode(answer))
        together, read = self.encode(context + answer), self.encode(context.rstrip())
        if len(together) > len(read) and together[: len(read)] == read:
            return self._cut([*self.before, *read], together[len(read) :])
        self.counts.seams += 1
        return self._cut([*self.before, *self.encode(context)], self.encode(answer))

    def take(self) -> Counts:
        """The counts so far; they begin anew."""
        taken, self.counts = self.counts, Counts()
        return taken

    def _cut(self, read: Ids, scored: Ids) -> tuple[Ids, Ids]:
        if len(scored) > self.context:
            self.counts.cut_answers += 1
            scored = scored[: self.context]
        elif len(read) + len(scored) > self.context + 1:  # the last token is predicted, not read
            self.counts.cut_contexts += 1
        return read, scored
