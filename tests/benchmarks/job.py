"""One job in a fresh interpreter: `python -m tests.benchmarks.job ours.ingest '{"workspace": ...}' ANSWER`.

A job is a function of `ours` or `peers`. It imports what it needs, gets its input ready, and does the work that counts
inside `with clock:`; what it returns are further figures.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


class Clock:
    """Wall and CPU seconds of the part of a job that counts; may be entered several times."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._cpu, self._started = _cpu(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
        self.cpu += _cpu() - self._cpu


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Run the job named and write its answer."""
    name, arguments, answer = sys.argv[1:]
    module, _, function = name.partition(".")
    clock = Clock()
    work: Any = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    figures: dict[str, Any] = work(clock, **json.loads(arguments)) or {}
    Path(answer).write_text(json.dumps({"seconds": clock.seconds, "work_cpu_s": clock.cpu, **figures}))


if __name__ == "__main__":
    main()
