"""What tests share: a workspace, raw files laid into it, and the place of the shared sample of real text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, fingerprint, write_ledger

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; more threads would wait for each other
os.environ.pop("CORPUS_WORKSPACE", None)

ROOT = Path(__file__).parent.parent
MIRROR = Path(os.environ.get("CORPUS_MIRROR", ROOT.parent / "shared" / "mirror"))


def examples(soak: int) -> int:
    """How many examples a property is tried on: as many as given in a soak, a quarter of them else."""
    return soak if "SOAK_MINUTES" in os.environ else soak // 4


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


LayRaw = Callable[..., None]


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


def lines(records: Iterable[Any]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def baike(number: int, **fields: Any) -> dict[str, Any]:
    """One baike record, different for each number."""
    record = {
        "qid": f"qid_{number}",
        "category": "生活",
        "title": f"第{number}个问题该怎样回答？",
        "desc": "",
        "answer": f"先想清楚第{number}个问题问的是什么，再用自己的话慢慢说。",
    }
    return record | fields
