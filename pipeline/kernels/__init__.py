"""The compiled loops over characters, if they were built.

`compiled` is the extension module `_kernels`, or None: then numpy gives the same results in about twice the time. Each
step with a kernel keeps its Python as the reference that the kernel is tested against.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["NAME", "SWITCH", "compiled", "notes"]

SWITCH = "CORPUS_KERNELS"
"""Environment variable: `off` disables the kernels."""


def _load() -> ModuleType | None:
    if os.environ.get(SWITCH) == "off":
        return None
    try:
        from corpus.pipeline.kernels import _kernels  # noqa: PLC0415  # it may be missing
    except ImportError:
        return None
    sources = sorted(Path(str(_kernels.__file__)).parent.glob("_*.[ch]"))  # only in a source checkout
    if sources and hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest() != _kernels.source():
        return None
    return _kernels


if TYPE_CHECKING:
    from corpus.pipeline.kernels import _kernels as compiled
else:
    compiled = _load()

NAME = "numpy" if compiled is None else "kernels"
"""The engine's name in timings."""
_MISSING = (
    "the kernels were not built or are older than their source, so this took about twice the time: reinstall corpus-zh "
    "with a C compiler and Python's headers"
)


def notes() -> tuple[str, ...]:
    """A note about missing kernels."""
    if compiled is not None or os.environ.get(SWITCH) == "off":
        return ()
    return (_MISSING,)
