"""What the rows share: sizes, the work folder, workspaces made ready, and runs that take turns."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.benchmarks import inputs, measure
from tests.benchmarks.measure import Run

ONE = 1
"""Threads of the libraries in a process that is pinned to one core."""
Start = Callable[[], Run]
NEWS = "news2016zh"
VOCABULARY = 32_000


class BenchError(Exception):
    """A row cannot go on: what it needs could not be made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """How large the benchmark is, and where it works."""

    work: Path
    size: float
    """Megabytes of raw input of a dataset, of text for the tokenizer."""
    whole_size: float
    """Megabytes of raw input of the whole way, over all five corpora."""
    large_size: float
    """Megabytes of text of the tokenizer's second size."""
    runs: int
    whole_runs: int
    """How often the whole way is gone."""
    steps: int
    """Training steps, the warm-up's included."""
    tokens: int
    """Tokens of a sample."""
    sizes: Sequence[float] = ()
    """Megabytes of raw input of the whole way, one after the other."""
    documents_counts: Sequence[int] = ()
    """Documents whose duplicates are searched for, one number after the other."""
    copies: int = 100
    """Altered copies of each kind that are planted."""
    before: Path | None = None
    """The `corpus` command of another installation, which takes turns on the whole way."""

    @property
    def home(self) -> Path:
        """Where the libraries of peers may keep caches."""
        return self.work / "home"

    def folder(self, name: str) -> Path:
        """An empty folder."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def need(self, name: str, **parameters: Any) -> Run:
        """Run a job that only makes something ready.

        Raises:
            BenchError: it failed.

        """
        run = measure.job(name, home=self.home, on=len(measure.cores()), **parameters)
        if run.error:
            raise BenchError(f"{name}: {run.error}")
        return run

    def downloaded(self, name: str, sources: Mapping[str, Path]) -> Path:
        """A fresh workspace that holds the files of some datasets."""
        workspace = self.folder(name)
        for dataset, source in sources.items():
            self.need("ours.download", workspace=workspace, dataset=dataset, source=source)
        return workspace

    def documents(self, name: str, dataset: str, megabytes: float, *, as_text: bool = False) -> Path:
        """A fresh workspace with the documents of a dataset; `as_text`: of about so many megabytes of text."""
        raw = megabytes * _raw_per_text(self.work, self.home, dataset) if as_text else megabytes
        workspace = self.downloaded(name, {dataset: inputs.plain(self.work, dataset, round(raw, 3))})
        self.need("ours.ingest", workspace=workspace, dataset=dataset, workers=len(measure.cores()))
        return workspace

    def text_megabytes(self, workspace: Path, dataset: str, split: str = "") -> float:
        """Megabytes of UTF-8 text in a dataset's documents."""
        found = self.need("ours.text_bytes", documents=workspace / "documents" / dataset, split=split)
        return float(found.figures["bytes"]) / inputs.MEGABYTE

    def turns(self, row: str, starts: Mapping[str, Start]) -> dict[str, list[Run]]:
        """Run all of them in turn, `runs` times; what failed is not started again."""
        made: dict[str, list[Run]] = {name: [] for name in starts}
        for number in range(self.runs):
            for name, start in starts.items():
                if any(run.error for run in made[name]):
                    continue
                run = start()
                made[name].append(run)
                figure = run.error or f"{run.work_s:.2f} s, {run.peak / inputs.MEGABYTE:,.0f} MB"
                tell(f"{row}: {number + 1}/{self.runs} {name}: {figure}")
        return made


def tell(message: str) -> None:
    """A line for who watches."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def drop(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@cache
def _raw_per_text(work: Path, home: Path, dataset: str) -> float:
    """How many bytes of records make a byte of training text, measured on a small input."""
    probe = Bench(work=work, size=8, whole_size=0, large_size=0, runs=1, whole_runs=1, steps=0, tokens=0)
    workspace = probe.documents("probe", dataset, probe.size)
    ratio = probe.size / probe.text_megabytes(workspace, dataset, split="train")
    shutil.rmtree(workspace)
    return ratio
