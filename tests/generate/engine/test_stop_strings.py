"""Stop strings across the borders of pieces, against looking through the whole text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.generate.engine.stop_strings import StopFinder
from tests.support.records import examples


def feed(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    finder = StopFinder(stops)
    printed = ""
    for piece in pieces:
        text, stopped = finder.feed(piece)
        printed += text
        if stopped:
            return printed, True
    return printed + finder.flush(), False


def look_through(stops: tuple[str, ...], text: str) -> tuple[str, bool]:
    """The definition: the stop string that is complete first, the longest of those complete at the same character."""
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(found)[1]], True) if found else (text, False)


@pytest.mark.parametrize(
    ("stops", "pieces", "printed", "stopped"),
    [
        ((), ["春天", "来了"], "春天来了", False),
        (("。",), ["春天", "来了。花", "开了"], "春天来了", True),
        (("花开",), ["春天来了，花", "开了"], "春天来了，", True),
        (("花开",), ["春天来了，花", "落了"], "春天来了，花落了", False),
        (("花开",), ["春天来了，花"], "春天来了，花", False),
        (("aab",), ["a", "a", "a", "b"], "a", True),
        (("aab",), ["aa", "ab"], "a", True),
        (("aab",), ["aaab"], "a", True),
        (("abab",), ["ab", "ac", "abab"], "abac", True),
        (("abcd", "bc"), ["ab", "cd"], "a", True),
        (("abc", "c"), ["ab", "c"], "", True),
        (("c", "abc"), ["abc"], "", True),
        (("\n\n",), ["问\n", "\n答"], "问", True),
    ],
)  # fmt: skip
def test_table(stops: tuple[str, ...], pieces: list[str], printed: str, stopped: bool) -> None:
    assert feed(stops, pieces) == (printed, stopped)


letters = st.text(alphabet="ab花", max_size=12)
some_stops = st.lists(st.text(alphabet="ab花", min_size=1, max_size=4), max_size=3).map(tuple)


@given(stops=some_stops, pieces=st.lists(letters, max_size=8))
@settings(max_examples=examples(500), deadline=None)
@example(stops=("aab",), pieces=["a", "a", "a", "b"])
def test_any_cut_is_the_whole_text(stops: tuple[str, ...], pieces: list[str]) -> None:
    assert feed(stops, pieces) == look_through(stops, "".join(pieces))


@given(stops=some_stops, pieces=st.lists(letters, max_size=8))
@settings(deadline=None)
def test_only_what_may_begin_a_stop_string_is_held_back(stops: tuple[str, ...], pieces: list[str]) -> None:
    finder = StopFinder(stops)
    printed = seen = ""
    for piece in pieces:
        seen += piece
        text, stopped = finder.feed(piece)
        printed += text
        if stopped:
            return
        held = seen[len(printed) :]
        assert seen.startswith(printed)
        assert not held or any(stop.startswith(held) for stop in stops)
