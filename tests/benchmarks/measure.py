"""Whole processes, measured: wall and CPU time, memory over time, and the seconds the job itself counted.

In: a command, the cores it may use, threads for the libraries inside it. Out: a `Run`.
Memory is sampled from outside for the process and all its descendants: RSS every `SAMPLE_S`, PSS (which counts a shared
page once) every tenth sample. RSS of one process includes the pages of files it has mapped. `ru_maxrss` of the kernel
is noted beside them; it is at least what this harness itself holds when it starts a process.
The harness runs on the last core, so a job pinned to the first one is not disturbed by the sampling.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.inputs import ROOT

SAMPLE_S = 0.02
_SLOW_SAMPLE_S = 0.1
_PSS_EVERY = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS",
    "ARROW_IO_THREADS",
)  # fmt: skip
_CURVE_S = 0.2
_LEAST_FREE = 1 << 30
"""A job that leaves the machine less memory than this is ended before the kernel ends something else."""
TIMEOUT_S = 3 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One process, from start to end."""

    wall_s: float
    cpu_s: float
    """User and system time of the process and of the children it waited for."""
    work_s: float
    """What the job counted itself: without the interpreter's start and imports. The wall time where it counts none."""
    peak_process: int
    """Largest RSS of one process of the tree."""
    peak_total: int
    """Largest sum of PSS over the tree; of RSS where PSS cannot be read."""
    maxrss: int
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What the job returned."""
    curve: Sequence[tuple[float, int, int]] = ()
    """(seconds, sum of RSS, largest RSS of a process), if asked for."""
    error: str = ""

    @property
    def peak(self) -> int:
        """Largest memory of one process, sampled or told by the kernel."""
        return max(self.peak_process, self.maxrss)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


def cores() -> list[int]:
    """The cores that the harness was given when it started."""
    return _CORES


_CORES = sorted(os.sched_getaffinity(0))


def job(
    name: str, *, on: int = 1, threads: int | None = None, home: Path, curve: bool = False, **parameters: Any
) -> Run:
    """Run a function of `ours` or `peers` (`ours.ingest`) in a fresh interpreter on so many cores."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answer = Path(folder) / "answer.json"
        arguments = json.dumps(parameters, default=str)
        command = [sys.executable, "-m", f"{__package__}.job", name, arguments, str(answer)]
        run = process(command, on=on, threads=threads, home=home, curve=curve)
        if run.error or not answer.is_file():
            return _replace(run, error=run.error or "no answer")
        found = json.loads(answer.read_bytes())
        return _replace(run, work_s=found.pop("seconds"), figures=found)


def process(command: Sequence[str], *, on: int = 1, threads: int | None = None, home: Path, curve: bool = False) -> Run:
    """Run a command on so many cores, its libraries with `threads` threads (as many as they like when None)."""
    own = os.sched_getaffinity(0)
    interval = SAMPLE_S if on < len(_CORES) else _SLOW_SAMPLE_S
    with tempfile.TemporaryFile() as log:
        os.sched_setaffinity(0, _CORES[:on])  # inherited by the child
        started = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=_environment(threads, home)
        )
        os.sched_setaffinity(0, own)
        watch = _Memory(child.pid, interval, keep=curve)
        watch.start()
        killer = threading.Timer(TIMEOUT_S, child.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            killer.cancel()
            watch.stop()
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        error = _last_lines(log)
        if watch.stopped:
            error = f"ended: it had taken {watch.peak_rss / 1e9:.1f} GB, nearly all there is"
    return Run(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        work_s=wall,
        peak_process=watch.peak_process,
        peak_total=watch.peak_pss or watch.peak_rss,
        maxrss=usage.ru_maxrss * 1024,
        curve=watch.curve,
        error=f"exit {child.returncode}: {error}" if child.returncode else "",
    )


def warm(folder: Path) -> None:
    """Read all files once, so that every run finds them in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 22):
                    pass


def _replace(run: Run, **changes: Any) -> Run:
    return Run(**{**{name: getattr(run, name) for name in Run.__dataclass_fields__}, **changes})


def _environment(threads: int | None, home: Path) -> dict[str, str]:
    """A process's environment: no hub, caches in the work folder, threads as said."""
    known = {key: value for key, value in os.environ.items() if key not in {*_THREADS, "CORPUS_WORKSPACE"}}
    known |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true",
    }
    return known if threads is None else known | dict.fromkeys(_THREADS, str(threads))


def _last_lines(log: Any) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-2:])[-400:]


class _Memory(threading.Thread):
    """Samples a process tree until stopped."""

    def __init__(self, pid: int, interval: float, *, keep: bool) -> None:
        super().__init__(daemon=True)
        self.peak_process = self.peak_rss = self.peak_pss = 0
        self.stopped = False
        self.curve: list[tuple[float, int, int]] = []
        self._pid, self._interval, self._keep = pid, interval, keep
        self._ended = threading.Event()

    def run(self) -> None:
        started, count, pids = time.perf_counter(), 0, [self._pid]
        while not self._ended.is_set():
            slow = count % _PSS_EVERY == 0
            if slow:
                pids = _tree(self._pid)
                self.peak_pss = max(self.peak_pss, sum(map(_pss, pids)))
            sizes = [_rss(pid) for pid in pids]
            self.peak_process = max(self.peak_process, *sizes, 0)
            self.peak_rss = max(self.peak_rss, sum(sizes))
            moment = time.perf_counter() - started
            if self._keep and any(sizes) and (not self.curve or moment - self.curve[-1][0] >= _CURVE_S):
                self.curve.append((round(moment, 2), sum(sizes), max(sizes)))
            if slow and psutil.virtual_memory().available < _LEAST_FREE:
                self.stopped = True
                _kill(pids)
            count += 1
            self._ended.wait(self._interval)

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self.join()


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return [pid]


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
