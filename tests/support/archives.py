"""Archives that a server gives, and what must lie in `raw/` afterwards."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import zipfile

from corpus.pipeline import manifest as manifests
from corpus.pipeline.download import DownloadConfig, run
from corpus.pipeline.download.retry import RetryPolicy
from corpus.pipeline.manifest import Manifest, Mirror
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report

FAST = RetryPolicy(
    connect_timeout_s=2,
    read_timeout_s=0.4,
    min_rate=50_000,
    rate_window_s=0.2,
    attempts=3,
    backoff_s=0.01,
    max_wait_s=1.2,
    progress_bytes=1 << 16,
    max_redirects=4,
)
NAME = "baike2018qa.zip"


def archive(seed: int, size: int = 300_000) -> bytes:
    """A zip archive of about `size` bytes that do not compress."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("baike_qa_train.json", '{"qid": "1", "title": "问：海水为什么是咸的？"}\n')
        packed.writestr("filler", random.Random(seed).randbytes(size))
    return out.getvalue()


DATA = archive(1)
OTHER = archive(2)


class Said(Progress):
    """What a user would read, and the bars."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[list[int | None]] = []
        self.open = 0

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        assert unit == "B"
        assert self.open == 0
        self.open += 1
        self.bars.append([total, 0])

    def advance(self, amount: int) -> None:
        assert self.open == 1
        self.bars[-1][1] = (self.bars[-1][1] or 0) + amount

    def end(self) -> None:
        self.open -= 1

    def say(self, message: str) -> None:
        assert self.open == 0
        self.lines.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


A, B = f"/a/{NAME}", f"/b/{NAME}"


def assert_whole(workspace: Workspace, data: bytes = DATA) -> None:
    folder = workspace.raw("baike2018qa")
    assert (folder / NAME).read_bytes() == data
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "ledger.json", "origin.json", "timings.json"]
    outputs = json.loads((folder / "ledger.json").read_bytes())["outputs"]
    assert outputs == [{"path": NAME, "bytes": len(data), "sha256": sha256_file(folder / NAME)}]


def assert_unfinished(workspace: Workspace) -> None:
    folder = workspace.raw("baike2018qa")
    assert not (folder / NAME).exists()
    assert not (folder / "ledger.json").exists()


def mirrored(*urls: str | tuple[str, ...], size: int = len(DATA)) -> Manifest:
    """The manifest of baike2018qa with mirrors of ours."""
    files = [(url,) if isinstance(url, str) else url for url in urls]
    mirrors = tuple(Mirror(name=f"mirror {number}", files=urls) for number, urls in enumerate(files, 1))
    return dataclasses.replace(manifests.load("baike2018qa"), mirrors=mirrors, archive_bytes=size)


def from_mirrors(workspace: Workspace, manifest: Manifest, said: Progress, retry: RetryPolicy = FAST) -> Report:
    config = DownloadConfig(dataset="baike2018qa")
    return run(config, workspace, progress=said, manifest=manifest, retry=retry)


def from_url(workspace: Workspace, url: str, said: Progress, retry: RetryPolicy = FAST) -> Report:
    return run(DownloadConfig(dataset="baike2018qa", source=url), workspace, progress=said, retry=retry)
