"""Folders that may not be read: named by every command, and never to be deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import CORPUS

AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Without root's right to read everything."""
pytestmark = pytest.mark.skipif(
    bool(AS_OTHERS) and not shutil.which("setpriv"), reason="root reads every folder, and there is no setpriv"
)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """The folder of documents of a workspace, which nobody may open."""
    folder = tmp_path / "workspace" / "documents"
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "ledger.json").write_text("{}")
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(("command", "code"), [("report", 0), ("inspect", 1), ("status", 0)])
def test_a_closed_folder_is_named(closed: Path, command: str, code: int) -> None:
    done = subprocess.run(
        [*AS_OTHERS, CORPUS, command], cwd=closed.parent.parent, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "workspace/documents cannot be read: Permission denied" in said
    assert "Delete" not in said
    assert "wiki2019zh" not in said
    assert "holds no documents" not in said
