"""The built-in demo gives the bytes it has always given: the SHA-256 of every output against tests/golden/demo.sha256.

Not listed: models, which depend on the build of torch, and timings. A change that is meant to change outputs raises
the version of its stage and brings a new list: `make golden` writes it.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from corpus.pipeline.workspace.layout import Workspace
from tests.support.records import ROOT

LIST = ROOT / "tests" / "golden" / "demo.sha256"
DECIDE = ("pyarrow", "tokenizers", "OpenCC", "orjson", "numpy")
"""Libraries whose version decides bytes: Parquet and Arrow files with their zstd, vocabularies, signatures, script."""


def pinned_versions() -> dict[str, str]:
    pins = (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {name: pin for name, _, pin in pins if name in DECIDE}


def test_the_demo_gives_the_bytes_it_has_always_given(demo: Workspace) -> None:
    other = {name: version(name) for name, pin in pinned_versions().items() if version(name) != pin}
    if other:
        pytest.skip(f"the list holds for the versions in constraints.txt; here: {other}")
    lines = (line.partition("  ") for line in LIST.read_text().splitlines())
    listed = {name: digest for digest, _, name in lines}
    assert digests(demo.root) == listed


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every listed file of a workspace, by name."""
    files = ((path.relative_to(root), path) for path in sorted(root.rglob("*")) if path.is_file())
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files
        if name.parts[0] not in {"models", "report"}
        and name.name not in {"timings.json", "origin.json"}
        and not any(part.startswith(".") for part in name.parts)
    }


def test_every_deciding_library_is_pinned() -> None:
    assert pinned_versions().keys() == set(DECIDE)


if __name__ == "__main__":
    LIST.write_text("".join(f"{digest}  {name}\n" for name, digest in digests(Path(sys.argv[1])).items()))
