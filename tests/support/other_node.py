"""An engine whose one process has a disk of its own below a folder: a mount namespace with an empty file system there.

In: the folder. Out: an engine for `running_on`; `seen` are the files that are on that disk after each run.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

NEEDED = ("unshare", "--mount", "--propagation", "private")
_MOUNT = 'mount -t tmpfs none "$1" && exec "$2" -m tests.support.other_node "$1"'


def missing() -> str:
    """Why there are no mount namespaces here; empty if there are."""
    tried = subprocess.run([*NEEDED, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


class OtherNode:
    """Runs all pieces of a run in one new process, as Ray does in its own."""

    slots = 1

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment = folder, environment
        self.seen: list[set[str]] = []

    def run(self, function: Callable[[Any], Any], pieces: Iterable[Any]) -> Generator[Any, None, None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*NEEDED, "sh", "-c", _MOUNT, "sh", self.folder, sys.executable],
            input=pickle.dumps((function, list(pieces))), stdout=subprocess.PIPE, env=self.environment, check=True,
        )  # fmt: skip
        results, seen = pickle.loads(done.stdout)  # noqa: S301  # from the process that was just started
        self.seen.append(seen)
        for is_made, result in results:
            if not is_made:
                raise result
            yield result


def _made(function: Callable[[Any], Any], piece: Any) -> tuple[bool, Any]:
    try:
        return True, function(piece)
    except Exception as error:  # noqa: BLE001  # the caller raises it
        return False, error


if __name__ == "__main__":
    work, given = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # from the test
    found = [_made(work, piece) for piece in given]
    here = Path(sys.argv[1])
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    sys.stdout.buffer.write(pickle.dumps((found, names)))
