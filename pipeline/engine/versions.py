"""What decides the bytes that a process writes, beside its work: the versions of this package and of others.

Invariants: two processes with equal versions write equal bytes for equal pieces.
Cost: the package's source is read once a process, in some hundredths of a second.
"""

from __future__ import annotations

import hashlib
import platform
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from corpus import manifests, pipeline
from corpus.pipeline import kernels

PACKAGES = ("OpenCC", "tokenizers", "pyarrow", "numpy", "orjson")


@lru_cache(maxsize=1)
def versions() -> Mapping[str, str]:
    """The versions in this process, by name."""
    found = {"Python": platform.python_version(), "Unicode": unicodedata.unidata_version}
    found |= {name: _version(name) for name in PACKAGES}
    sources = [Path(str(package.__file__)).parent for package in (pipeline, manifests)]
    found["corpus-zh"] = f"{_version('corpus-zh')}, source {_digest(*sources)}"
    built = kernels.compiled
    found["kernels"] = _digest(Path(str(built.__file__)).parent, suffix=".so") if built else kernels.NAME
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _digest(*folders: Path, suffix: str = ".py") -> str:
    """The first digits of the SHA-256 of all files of one kind in some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob(f"*{suffix}")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()[:12]


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What differs, in words."""
    return [f"{name} {there.get(name)} (here {here[name]})" for name in here if here[name] != there.get(name)]
