"""Processes of a command."""

from __future__ import annotations

import psutil


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The workers of a command's pools: forked from a process that has imported what they need, or spawned."""
    found = []
    for child in process.children(recursive=True):
        command, above = " ".join(child.cmdline()), " ".join((child.parent() or process).cmdline())
        if "spawn_main" in command or ("forkserver" in command and "forkserver" in above):
            found.append(child)
    return found
