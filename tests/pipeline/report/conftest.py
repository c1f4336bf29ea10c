"""One workspace and its report for all tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.pipeline.report import build
from corpus.pipeline.workspace.layout import Workspace
from tests.support.report import fill


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def path(filled: Workspace) -> Path:
    return build.run(build.ReportConfig(), filled)
