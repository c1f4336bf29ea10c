"""One workspace and its report for all tests of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from corpus.pipeline.report import build
from corpus.pipeline.workspace.layout import Workspace
from tests.support.records import Shared
from tests.support.report import fill


@pytest.fixture(scope="session")
def filled(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = shared("report", fill) / "workspace"
    copy = tmp_path_factory.mktemp("report") / "workspace"
    return Workspace(shutil.copytree(made, copy, ignore=shutil.ignore_patterns(".lock*")))


@pytest.fixture(scope="session")
def path(filled: Workspace) -> Path:
    return build.run(filled)
