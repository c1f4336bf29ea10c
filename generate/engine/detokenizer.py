"""Streaming detokenizer: tokens of byte-level BPE in, whole characters out.

In: one token after another; a token may begin or end inside a character. Out: text up to the last whole character.
Invariant: the pieces and the final flush, joined, equal the tokenizer's decoding of all tokens at once; bytes that are
not UTF-8 become U+FFFD at the same places.
Cost: the bytes of the token; no byte is decoded twice.
"""

from __future__ import annotations

import codecs
from collections.abc import Set as AbstractSet
from typing import Any

from corpus.pipeline.tokenizer.special_tokens import BYTE_NAMES

_BYTE_OF = {character: byte for byte, character in BYTE_NAMES.items()}


class Vocabulary:
    """The bytes of every token, cached. Special tokens have no bytes: they are never printed."""

    def __init__(self, tokenizer: Any, special: AbstractSet[int]) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = dict.fromkeys(special, b"")

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = token_bytes(self._tokenizer.convert_ids_to_tokens(token) or "")
        return known


def token_bytes(token: str) -> bytes:
    r"""The bytes of a token from its byte-level name; a token with other characters is literal text.

    >>> token_bytes("æĺ¥")
    b'\xe6\x98\xa5'
    """
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


class Decoder:
    """The text of one sequence of tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The characters that this token completes; empty inside a character."""
        return self._characters.decode(self._vocabulary.bytes_of(token))

    def flush(self) -> str:
        """The rest at the end: U+FFFD if the last character is incomplete."""
        return self._characters.decode(b"", final=True)
