"""Turns of documents: literal tables, the three tokens around them, and the tokens that are learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.pipeline import templates
from corpus.pipeline.pack import chat_turns
from tests.support.records import examples


@pytest.mark.parametrize(
    ("text", "prompt_length", "expected"),
    [
        ("雨为什么停？\n云散了。", 7, ("雨为什么停？", "云散了。")),
        (
            "雨为什么停？\n问的是今天。\n云散了。\n风也小了。",
            14,
            ("雨为什么停？\n问的是今天。", "云散了。\n风也小了。"),
        ),
        ("translate a to b, Rain., 雨。", 24, ("translate a to b, Rain.,", "雨。")),
        ("问？ \n\u3000答。", 3, ("问？", "答。")),
        ("雨停了。", 0, None),
        ("雨停了吗？", 5, None),
        ("雨停了吗？\n \n", 6, None),
        (" \n雨停了。", 2, None),
    ],
)
def test_question_and_answer(text: str, prompt_length: int, expected: tuple[str, str] | None) -> None:
    assert templates.turn(text, prompt_length) == expected


def test_the_three_tokens_stand_around_the_sides() -> None:
    flat, counts = np.array([10, 11, 20, 30, 40, 41, 42], np.uint16), np.array([2, 1, 1, 3])
    ids, lengths = chat_turns.join(flat, counts, np.array([1, 1]), user=2, assistant=3, separator=0)
    assert ids.tolist() == [2, 10, 11, 3, 20, 0, 2, 30, 3, 40, 41, 42, 0]
    assert lengths.tolist() == [6, 7]
    assert ids.dtype == np.uint16
    one, lengths = chat_turns.join(flat, counts, np.array([2]), user=2, assistant=3, separator=0)
    assert (one.tolist(), lengths.tolist()) == (ids.tolist(), [13])
    ids, lengths = chat_turns.join(flat[:0], counts[:0], counts[:0], user=2, assistant=3, separator=0)
    assert (len(ids), len(lengths)) == (0, 0)


def test_tokens_that_are_learnt() -> None:
    # A whole document of 9, mark at 4; one in pieces of 8 and 4, mark at 5; one whose mark is a piece's last token.
    documents = [document(9, 4), document(12, 5), document(11, 7)]
    starts, lengths = np.array([0, 9, 17, 21, 29]), np.array([9, 8, 4, 8, 3])
    assert learnt(documents, starts, starts + lengths) == 4 + 2
    assert learnt([], starts[:0], starts[:0]) == 0


def document(length: int, *marks: int) -> np.ndarray:
    """Ids of a document whose answers begin after these marks and end at the next but one token before a question."""
    ids = np.full(length, 50, np.uint16)
    ids[0], ids[list(marks)] = 2, 3
    return ids


def learnt(documents: list[np.ndarray], starts: np.ndarray, ends: np.ndarray) -> int:
    ids = np.concatenate([np.zeros(0, np.uint16), *documents])
    return chat_turns.answer_tokens(ids, starts, ends, user=2, assistant=3)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=8), min_size=1, max_size=4), st.data())
def test_tokens_that_are_learnt_in_any_cut(turns: list[list[int]], data: st.DataObject) -> None:
    """The count is that of the collator's rule, token by token, wherever conversations are cut into segments."""
    ids = np.array([
        token for sides in turns for at, size in enumerate(sides[: len(sides) // 2 * 2])
        for token in ([3, *[50] * size, 0] if at % 2 else [2, *[50] * size])
    ])  # fmt: skip
    borders = {0} | set(np.flatnonzero(ids == 2)[:1].tolist()) | data.draw(st.sets(st.integers(1, len(ids) - 1)))
    ends = np.cumsum([sum(sides[: len(sides) // 2 * 2]) + len(sides) // 2 * 3 for sides in turns])
    starts = np.array(sorted(borders | set(ends[:-1].tolist())))
    expected = 0
    for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        counts = False
        for token in ids[begin:end]:
            counts = counts and token != 2
            expected += counts
            counts = counts or token == 3
    assert chat_turns.answer_tokens(ids, starts, np.append(starts[1:], len(ids)), user=2, assistant=3) == expected
