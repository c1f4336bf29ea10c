"""The special tokens, and the byte alphabet of byte-level BPE."""

from __future__ import annotations

SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SPECIAL_TOKENS = (SEPARATOR, PAD, USER, ASSISTANT)


def _byte_names() -> dict[int, str]:
    """The character of each of the 256 bytes in byte-level BPE (Radford et al., 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


BYTE_NAMES = _byte_names()
