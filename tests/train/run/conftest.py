"""A network that is fast to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from corpus.train.presets import PRESETS


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Two narrow layers under the name of `tiny`: the stage is the same, a run takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], layers=2, width=64, heads=2))
        yield
