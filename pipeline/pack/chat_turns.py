"""Chat turns: a document that begins with a question becomes a user turn and an assistant turn.

In: ids of alternating questions and answers, as `templates.turn` divides documents.
Out: ids of `<|user|>` question `<|assistant|>` answer `<|endoftext|>`.
Invariant: the special tokens are inserted as ids, never as text, so a text that spells one cannot end its turn.
Cost: three insertions a document in numpy.
"""

from __future__ import annotations

import numpy as np


def join(
    flat: np.ndarray, counts: np.ndarray, *, user: int, assistant: int, separator: int
) -> tuple[np.ndarray, np.ndarray]:
    """Insert the three special tokens around questions and answers.

    Args:
        flat: [tokens] ids of alternating questions and answers.
        counts: [2 * documents] ids of each question and answer.
        user: id of the token before a question.
        assistant: id of the token before an answer.
        separator: id of the token after an answer.

    Returns:
        [tokens + 3 * documents] ids, and [documents] ids of each document.

    """
    documents = len(counts) // 2
    ends = np.cumsum(counts)
    starts = ends - counts
    places = np.stack([starts[::2], starts[1::2], ends[1::2]], axis=1).reshape(-1)
    ids = np.insert(flat, places, np.tile(np.array([user, assistant, separator], dtype=flat.dtype), documents))
    return ids, counts[::2] + counts[1::2] + 3


def answer_tokens(marks: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> int:
    """Number of tokens that get a label in training: those after `<|assistant|>` in its segment.

    Args:
        marks: [segments] position of `<|assistant|>` in the segment's document.
        starts: [segments] first token of the document in the segment.
        lengths: [segments] tokens of the segment.

    """
    after = starts + lengths - marks - 1
    return int(after[(starts <= marks) & (after >= 0)].sum())
