"""Chat turns: a document that begins with a question becomes turns of user and assistant in alternation.

In: ids of alternating questions and answers, as `templates.turn` and `templates.turns` divide documents.
Out: ids of `<|user|>` question `<|assistant|>` answer `<|endoftext|>` for each pair.
Invariant: the special tokens are inserted as ids, never as text, so a text that spells one cannot end its turn.
Cost: three insertions a pair in numpy.
"""

from __future__ import annotations

import numpy as np


def join(
    flat: np.ndarray,
    counts: np.ndarray,
    pairs: np.ndarray,
    *,
    user: int,
    assistant: int,
    separator: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Insert the three special tokens around questions and answers.

    Args:
        flat: [tokens] ids of alternating questions and answers.
        counts: [2 * all pairs] ids of each question and answer.
        pairs: [documents] questions with an answer of each document, at least one.
        user: id of the token before a question.
        assistant: id of the token before an answer.
        separator: id of the token after an answer.

    Returns:
        [tokens + 3 * all pairs] ids, and [documents] ids of each document.

    """
    ends = np.cumsum(counts)
    starts = ends - counts
    places = np.stack([starts[::2], starts[1::2], ends[1::2]], axis=1).reshape(-1)
    ids = np.insert(flat, places, np.tile(np.array([user, assistant, separator], dtype=flat.dtype), len(counts) // 2))
    lengths = counts[::2] + counts[1::2] + 3
    return ids, np.add.reduceat(lengths, np.cumsum(pairs) - pairs) if len(pairs) else lengths


def answer_tokens(ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, user: int, assistant: int) -> int:
    """Number of tokens that get a label in training: those of answers, after `<|assistant|>` in their segment.

    Args:
        ids: [tokens] ids of all documents, each beginning with `user`.
        starts: [segments] first token of each segment; the segments cover all tokens.
        ends: [segments] the token after its last one.
        user: id of the token before a question.
        assistant: id of the token before an answer.

    """
    if not len(ids):
        return 0
    asked, answered = np.flatnonzero(ids == user), np.flatnonzero(ids == assistant)
    next_asked = np.append(asked, len(ids))
    first_answered = np.append(answered, len(ids))[np.searchsorted(answered, asked)]
    in_documents = np.maximum(0, next_asked[1:] - first_answered - 1).sum()
    # the answer that a segment begins in carries no loss there: the mark is in an earlier segment
    before = np.append(-1, asked)[np.searchsorted(asked, starts, side="right")]
    in_answer = np.append(-1, answered)[np.searchsorted(answered, starts)] > before
    again = np.append(answered, len(ids))[np.searchsorted(answered, starts)] + 1
    lost = np.minimum(np.minimum(again, next_asked[np.searchsorted(asked, starts)]), ends) - starts
    return int(in_documents - lost[in_answer].sum())
