"""Started by `python -m tests.benchmarks`, or by path from anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parent.parent.parent)

from tests.benchmarks.command import main

if __name__ == "__main__":
    main()
