"""What was measured is measured again where the weights have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
