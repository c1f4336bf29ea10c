"""Words of the command line as settings, and settings as the flags that a message names."""

from __future__ import annotations

import math


def weighted(text: str) -> tuple[str, float | None]:
    """Name and weight of `NAME` or `NAME=WEIGHT`."""
    name, equals, number = text.partition("=")
    if not equals:
        return name, None
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"--dataset {text}: the weight must be a number greater than 0")
    return name, weight


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.removesuffix("s" if name == "ptx_datasets" else "").replace("_", "-")
