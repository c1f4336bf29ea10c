"""What a workspace holds, file by file."""

from __future__ import annotations

from pathlib import Path

from tests.support.documents import tree


def outputs(workspace: Path) -> dict[str, bytes]:
    """Every byte that must be the same: not timings, notes of where the bytes came from, and checkpoints."""
    left = {
        name: data
        for name, data in tree(workspace).items()
        if not name.startswith(".") and "origin.json" not in name and "/checkpoint-" not in name
    }
    assert not [name for name in left if name.endswith((".tmp", ".part")) or ".saving" in name]
    return left
