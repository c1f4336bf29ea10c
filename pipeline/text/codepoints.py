"""Strings as arrays of Unicode code points."""

from __future__ import annotations

import numpy as np

SEAM = "\x1e"
"""The control character between texts that are joined to be processed at once."""


def codes_of(text: str) -> np.ndarray:
    """[characters] uint32: the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def text_of(codes: np.ndarray) -> str:
    """The text of code points."""
    return codes.astype("<u4").tobytes().decode("utf-32-le")
