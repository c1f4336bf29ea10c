"""Commands and scripts that need torch, each in a process forked from one that has imported it, which takes 4 s once.

In: a line of JSON on standard input for each: the arguments of `corpus` or the path of a script, and the file for what
it prints. Out: its exit code, a line for each.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import threading
from pathlib import Path

from corpus.pipeline.cli.main import main

NEEDED = (
    "corpus.train.run.stage", "corpus.train.run.dry_run", "corpus.train.evaluation.stage", "corpus.generate.stage",
    "corpus.generate.bulk", "corpus.generate.chat", "matplotlib.backends.backend_agg", "matplotlib.figure", "datasets",
)  # fmt: skip


def run(output: str, arguments: list[str] | None = None, script: str | None = None) -> None:
    """One command or script, in a process of its own."""
    with Path(os.devnull).open("rb") as nothing, Path(output).open("wb") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if script is not None:
        runpy.run_path(script, run_name="__main__")
        sys.exit(0)
    main(arguments)


if __name__ == "__main__":
    for name in NEEDED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would lose threads"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
