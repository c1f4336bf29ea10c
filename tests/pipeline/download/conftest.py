"""A server that gives one archive at two addresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.archives import DATA, NAME
from tests.support.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({f"/a/{NAME}": DATA, f"/b/{NAME}": DATA}) as running:
        yield running
