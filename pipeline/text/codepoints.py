"""Strings as arrays of Unicode code points."""

from __future__ import annotations

import numpy as np


def codes_of(text: str) -> np.ndarray:
    """[characters] uint32: code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


SEAM = "\x1e"
