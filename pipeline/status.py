"""What a workspace holds: each stage of each dataset, finished or not, from its ledgers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus.pipeline.workspace import LEDGER, Workspace, read_ledger

AREAS = ("raw", "documents", "tokenizer", "packed", "models")


def survey(workspace: Workspace) -> list[dict[str, Any]]:
    """One row for each stage folder: area, name, state (`finished` or `partial`), files, bytes and counts."""
    rows: list[dict[str, Any]] = []
    for area in AREAS:
        root = workspace.root / area
        folders = [root] if area == "tokenizer" else sorted(root.iterdir()) if root.is_dir() else []
        rows += [_row(area, folder) for folder in folders if folder.is_dir()]
    return rows


def _row(area: str, folder: Path) -> dict[str, Any]:
    ledger = read_ledger(folder)
    files = [
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".") and path.name != LEDGER
    ]
    return {
        "area": area,
        "name": "" if area == "tokenizer" else folder.name,
        "state": "finished" if ledger else "partial",
        "files": len(ledger.outputs) if ledger else len(files),
        "bytes": ledger.output_bytes if ledger else sum(path.stat().st_size for path in files),
        "counts": dict(ledger.counts) if ledger else {},
    }
