"""What tests share: a workspace, raw files laid into it, and the place of the shared sample of real text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, fingerprint, write_ledger
from tests.support.records import MIRROR, LayRaw

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; more threads would wait for each other
os.environ.pop("CORPUS_WORKSPACE", None)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def mirror() -> Path:
    """The sample of real text in the official shapes; not part of the repository."""
    if not (MIRROR / "SHA256SUMS").is_file():
        pytest.skip("the shared sample of real text is not here")
    return MIRROR


@pytest.fixture
def lay_raw(workspace: Workspace) -> LayRaw:
    """Lay files into raw/DATASET as a finished download leaves them."""

    def lay(dataset: str, files: dict[str, bytes]) -> None:
        folder = workspace.raw(dataset)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        outputs = [workspace.file_digest(folder / name, folder) for name in sorted(files)]
        identity = fingerprint("download", 1, {}, outputs)
        ledger = Ledger(
            stage="download", dataset=dataset, version=1, config={}, inputs=[], outputs=outputs, counts={},
            fingerprint=identity,
        )  # fmt: skip
        write_ledger(folder, ledger, {})

    return lay
