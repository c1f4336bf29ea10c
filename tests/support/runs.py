"""Settings of a run that takes a second, and the lines it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "model": "tiny", "epochs": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "log_steps": 2,
    "save_steps": 4, "threads": 1,
}  # fmt: skip


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
