"""A workspace with a tokenizer alone."""

from __future__ import annotations

import pytest

from corpus.pipeline.workspace.layout import Workspace
from tests.support.packed import lay_tokenizer


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """It is only read."""
    workspace = Workspace(tmp_path_factory.mktemp("tasks") / "workspace")
    lay_tokenizer(workspace)
    return workspace
