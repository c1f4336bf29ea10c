"""The command as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CORPUS = Path(sys.executable).with_name("corpus")


def corpus(*arguments: object, folder: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command and check its exit code; a traceback is always a failure."""
    done = subprocess.run(
        [CORPUS, *map(str, arguments)], cwd=folder, env=os.environ | environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr + done.stdout
    return done
