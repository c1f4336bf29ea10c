"""Training in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from corpus.pipeline.workspace.layout import Workspace

SETTINGS: dict[str, Any] = {
    "model": "tiny", "epochs": 3, "batch_size": 7, "micro_batch_size": 4, "log_steps": 3, "save_steps": 4, "threads": 1,
    "run": "one",
}  # fmt: skip


def write(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(SETTINGS | changes))
    return path


def start(settings: Path, workspace: Workspace, *, processes: int = 1) -> subprocess.Popen[str]:
    """Training in processes of its own."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launch, "-m", "corpus.train", "--config", str(settings), "--workspace", str(workspace.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
