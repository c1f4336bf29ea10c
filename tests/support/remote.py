"""A small whole way to rows, and a storage in memory that notes its requests and can die at one of them."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.store import Retry, Store, open_store, open_workspace
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID
from tests.support.outputs import outputs
from tests.support.records import baike, lines

QUICK = Retry(sleep=lambda _: None)


class Killed(BaseException):
    """The process is dead: no request comes through any more."""


class Requests:
    """The requests to storages in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, str]] = []
        """What was asked, and the path."""
        self.dies_at: int | None = None
        """The number of the change before which the process dies."""
        self.changes = 0
        for name in ("pipe_file", "rm_file", "cat_file"):
            monkeypatch.setattr(MemoryFileSystem, name, self._noted(name, getattr(MemoryFileSystem, name)))

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(files: MemoryFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
            if self.dies_at is not None and self.changes >= self.dies_at:
                raise Killed
            self.changes += name != "cat_file"
            self.made.append((name, path))
            return function(files, path, *args, **kwargs)

        return call

    def count(self, name: str, part: str = "") -> int:
        """How many requests of a kind were for a path that holds a part."""
        return sum(each == name and part in path for each, path in self.made)

    def clear(self) -> None:
        """Forget them; the process lives."""
        self.made.clear()
        self.dies_at, self.changes = None, 0


def lay_source(folder: Path, records: int = 60) -> Path:
    """A folder with an archive of records, of which some are empty and some repeated."""
    rows = [baike(number, answer="" if number % 20 == 7 else f"第{number}步要做好。") for number in range(records)]
    rows[5] |= {"title": rows[4]["title"], "answer": rows[4]["answer"]}
    folder.mkdir()
    with zipfile.ZipFile(folder / "baike2018qa.zip", "w") as out:
        out.writestr(TRAIN, lines(rows[: records - 8]))
        out.writestr(VALID, lines(rows[records - 8 :]))
    return folder


def walk(workspace: Workspace, source: Path, *, workers: int = 1, seq_length: int = 64) -> None:
    """From an archive to rows, in pieces so small that there are some."""
    with workspace.writing("ingest"):
        download.run(download.DownloadConfig(dataset="baike2018qa", source=str(source)), workspace)
        cleaning = ingest.IngestConfig(dataset="baike2018qa", workers=workers, piece_bytes=4000, signatures=True)
        ingest.run(cleaning, workspace)
        dedup.run(dedup.DedupConfig(workers=1), workspace)
    with workspace.writing("pack"):
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=300), workspace)
        rows = pack.PackConfig(dataset="baike2018qa", seq_length=seq_length, unit_characters=600, workers=workers)
        pack.run(rows, workspace)


def objects(url: str) -> dict[str, bytes]:
    """What is in a workspace in a storage, but timings and claims, as `outputs` gives it of a folder."""
    store: Store = open_store(url, retry=QUICK)
    left_out = ("timings.json", "origin.json")
    return {
        key: store.read(key) for key in store.keys("") if not key.endswith(left_out) and not key.startswith(".claims/")
    }


def expected(folder: Path, source: Path) -> dict[str, bytes]:
    """The same of a run in a folder."""
    walk(Workspace(folder), source)
    return outputs(folder)


def forget(cache: Path) -> None:
    """Another machine."""
    shutil.rmtree(cache, ignore_errors=True)


def differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> Counter[str]:
    """Names that only one has, or with other bytes."""
    return Counter(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


if __name__ == "__main__":  # what the kill tests start: a URL, a cache, a source, and how many workers
    where, copies, archives, count = sys.argv[1:]
    walk(open_workspace(where, Path(copies)), Path(archives), workers=int(count))
