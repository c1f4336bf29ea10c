"""Pieces for Ray's workers: what they do is seen in a folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from corpus.pipeline.errors import ShapeError


def squared(piece: int) -> int:
    return piece * piece


def killed_once(piece: int, *, folder: Path, last: int) -> int:
    """The process of one piece is killed, the first `last` times that it is tried."""
    tries = len(list(folder.glob(f"{piece}.*")))
    (folder / f"{piece}.{tries}").touch()
    if piece == 3 and tries < last:
        os.kill(os.getpid(), signal.SIGKILL)
    return piece


def refused(piece: int, *, folder: Path) -> int:
    """One piece fails as a stage does."""
    if piece == 2:
        with (folder / "tries").open("a") as file:
            file.write("x")
        raise ShapeError("records of another shape", hint="Look at them.")
    return piece


def slow(piece: int, *, folder: Path) -> int:
    """A piece of three seconds, which says on which node it is made."""
    (folder / f"{piece}.{os.getppid()}").touch()
    time.sleep(3)
    return piece
