"""Devices and precisions that a command can ask for. Imports no torch: `--help` stays light."""

from __future__ import annotations

import os

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
PRECISIONS = ("auto", "fp32", "bf16")


def check(*, device: str, precision: str) -> None:
    """Refuse an unknown device or precision.

    Raises:
        ValueError: it names the flag.

    """
    for flag, value, known in (("--device", device, DEVICES), ("--precision", precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"{flag} must be one of {', '.join(known)}, is {value}")


def rank() -> int:
    """Number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))
