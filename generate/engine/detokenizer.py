"""Tokens to text while they come: bytes of byte-level BPE in, whole characters out.

A token is a run of bytes that may begin or end inside a character, so text is held back until its last character is
whole. Invariant: all pieces and the final flush, joined, are what the tokenizer decodes from all tokens at once; bytes
that are not UTF-8 become U+FFFD exactly where they do there. Cost: the bytes of the token; nothing is decoded twice.
"""

from __future__ import annotations

import codecs
from collections.abc import Set as AbstractSet
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


class Vocabulary:
    """The bytes of every token, looked up once and remembered. Special tokens have none: they are never printed."""

    def __init__(self, tokenizer: Any, special: AbstractSet[int]) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = dict.fromkeys(special, b"")

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = token_bytes(self._tokenizer.convert_ids_to_tokens(token) or "")
        return known


def token_bytes(token: str) -> bytes:
    r"""The bytes behind a token as byte-level BPE writes it; a token written in other characters stands for itself.

    >>> token_bytes("æĺ¥")
    b'\xe6\x98\xa5'
    """
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


class Decoder:
    """The text of one growing sequence of tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The characters that this token completes; empty while it only begins one."""
        return self._characters.decode(self._vocabulary.bytes_of(token))

    def flush(self) -> str:
        """What is left at the end: U+FFFD when the last character was never completed."""
        return self._characters.decode(b"", final=True)
