"""What the tests of the worker pool have workers do; a module of its own, so that workers import no pytest."""

from __future__ import annotations

import os
import time
from pathlib import Path


def whose(_: int) -> int:
    """The process that does a piece."""
    time.sleep(0.05)
    return os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError(number)
    return number


def sign(folder: Path) -> None:
    """Leave a file with this process's number, and wait until both workers have."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)


def end(status: int) -> None:
    os._exit(status)
