"""The special tokens, and the byte alphabet of byte-level BPE."""

from __future__ import annotations

SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SPECIAL_TOKENS = (SEPARATOR, PAD, USER, ASSISTANT)


_PRINTED = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
BYTE_NAMES = {byte: chr(byte) for byte in _PRINTED} | {byte: chr(256 + rank) for rank, byte in enumerate(_OTHERS)}
"""The character of each of the 256 bytes in byte-level BPE (Radford et al., 2019)."""
