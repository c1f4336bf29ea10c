"""Two kinds of damage to a finished file, neither of which changes its size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def edit(path: Path) -> None:
    """One byte in the middle is another one."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flood(path: Path) -> None:
    """From the second kilobyte to the last one the file holds a small number, again and again."""
    data = bytearray(path.read_bytes())
    begin, end = min(1_000, len(data) // 8), len(data) - min(1_000, len(data) // 8)
    data[begin:end] = (b"\5\0" * len(data))[: end - begin]
    path.write_bytes(data)


KINDS: tuple[Callable[[Path], None], ...] = (edit, flood)
