"""Tokens to text while they come, against the tokenizer's own decoding of all tokens at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.generate.engine.detokenizer import Decoder, token_bytes
from tests.support.sampling import SENTENCES, random_model

LOST = "\N{REPLACEMENT CHARACTER}"


def pieces_of(ids: list[int]) -> list[str]:
    decoder = Decoder(random_model().vocabulary)
    return [decoder.feed(token) for token in ids] + [decoder.flush()]


def whole(ids: list[int]) -> str:
    return str(random_model().tokenizer.decode(ids, skip_special_tokens=True))


def byte_tokens(data: bytes) -> list[int]:
    """One token for each byte: every character of more than one byte is torn apart."""
    tokenizer = random_model().tokenizer
    alphabet = {token_bytes(token): number for token, number in tokenizer.get_vocab().items()}
    return [alphabet[bytes([byte])] for byte in data]


@given(text=st.text())
@settings(deadline=None)
def test_text_comes_back_character_by_character(text: str) -> None:
    ids = byte_tokens(text.encode())
    pieces = pieces_of(ids)
    assert "".join(pieces) == text == whole(ids)
    ends = {len(text[:count].encode()) for count in range(1, len(text) + 1)}
    assert {count for count, piece in enumerate(pieces, 1) if piece} == ends


@pytest.mark.parametrize("text", [*SENTENCES, "🙂", "👩‍👩‍👧", "e\u0301", "\u2028", "a" + LOST + "b", ""])
def test_tokens_of_the_tokenizer_come_back(text: str) -> None:
    ids = random_model().encode(text)
    assert "".join(pieces_of(ids)) == text == whole(ids)


@given(data=st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_no_text_become_what_the_tokenizer_makes_of_them(data: bytes) -> None:
    ids = byte_tokens(data)
    assert "".join(pieces_of(ids)) == whole(ids)


@given(numbers=st.lists(st.integers(min_value=0, max_value=10_000)))
@settings(deadline=None)
def test_any_tokens_are_what_the_tokenizer_makes_of_them(numbers: list[int]) -> None:
    ids = [number % len(random_model().tokenizer) for number in numbers]
    assert "".join(pieces_of(ids)) == whole(ids)


def test_a_character_in_parts_is_held_back_until_it_is_whole() -> None:
    assert pieces_of(byte_tokens("春🙂".encode())) == ["", "", "春", "", "", "", "🙂", ""]


def test_a_broken_character_is_shown_once_it_cannot_become_whole() -> None:
    ids = byte_tokens("春".encode()[:2] + b"A")
    assert pieces_of(ids) == ["", "", LOST + "A", ""]
    assert pieces_of(ids[:2]) == ["", "", LOST]


def test_special_tokens_are_never_printed() -> None:
    special = random_model().tokenizer.all_special_ids
    assert len(special) == 4
    assert set(pieces_of(special)) == {""}
