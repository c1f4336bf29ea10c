"""The chat form: a document that begins with a question becomes what a user says and what the assistant answers.

In: a text and how many of its leading characters are the question; ids of questions and answers in turn. Out: question
and answer; ids of `<|user|>` question `<|assistant|>` answer `<|endoftext|>`.
Invariants: question and answer are the text, but for the blanks between them; neither is empty. The special tokens are
set as ids and never as text, so a text that spells one cannot end its own turn.
Cost: two slices a document, three insertions a document in numpy.
"""

from __future__ import annotations

import numpy as np


def turn(text: str, prompt_length: int) -> tuple[str, str] | None:
    r"""Question and answer of a document, or None where one of them is missing.

    >>> turn("天为什么蓝？\n因为散射。", 7)
    ('天为什么蓝？', '因为散射。')
    >>> turn("雨停了。", 0)
    """
    question, answer = text[:prompt_length].rstrip(), text[prompt_length:].lstrip()
    return (question, answer) if question and answer else None


def join(
    flat: np.ndarray, counts: np.ndarray, *, user: int, assistant: int, separator: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set the three special tokens around questions and answers.

    Args:
        flat: [tokens] ids of question, answer, question, answer and so on.
        counts: [2 * documents] how many each of them has.
        user: id of the token before a question.
        assistant: id of the token before an answer.
        separator: id of the token after an answer.

    Returns:
        [tokens + 3 * documents] ids, and [documents] how many each document has.

    """
    documents = len(counts) // 2
    ends = np.cumsum(counts)
    starts = ends - counts
    places = np.stack([starts[::2], starts[1::2], ends[1::2]], axis=1).reshape(-1)
    ids = np.insert(flat, places, np.tile(np.array([user, assistant, separator], dtype=flat.dtype), documents))
    return ids, counts[::2] + counts[1::2] + 3


def answer_tokens(marks: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> int:
    """How many tokens training predicts: those after `<|assistant|>` in the segment that holds it.

    Args:
        marks: [segments] where `<|assistant|>` stands in the segment's document.
        starts: [segments] first token of the document in the segment.
        lengths: [segments] tokens of the segment.

    """
    after = starts + lengths - marks - 1
    return int(after[(starts <= marks) & (after >= 0)].sum())
