"""A network that is fast to train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.runs import narrowed


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Two narrow layers under the name of `tiny`."""
    with narrowed():
        yield
