"""The compiled loops over characters, where they were built.

`compiled` is the extension module `_kernels`, or None: then numpy does the same work, with the same results, in about
twice the time. A step that has a kernel keeps its Python beside it, as the reference that the kernel is tested
against.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["NAME", "SWITCH", "compiled", "notes"]

SWITCH = "CORPUS_KERNELS"
"""Environment variable: `off` leaves the kernels alone."""


def _load() -> ModuleType | None:
    if os.environ.get(SWITCH) == "off":
        return None
    try:
        from corpus.pipeline.kernels import _kernels  # noqa: PLC0415  # it may not have been built
    except ImportError:
        return None
    sources = sorted(Path(str(_kernels.__file__)).parent.glob("_*.[ch]"))  # lie there only where they can be changed
    if sources and hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest() != _kernels.source():
        return None
    return _kernels


if TYPE_CHECKING:
    from corpus.pipeline.kernels import _kernels as compiled
else:
    compiled = _load()

NAME = "numpy" if compiled is None else "kernels"
"""What looks at characters, as timings note it."""
_MISSING = (
    "the kernels are not there or older than their source, so this took about twice the time: install corpus-zh again, "
    "with a C compiler and Python's headers at hand"
)


def notes() -> tuple[str, ...]:
    """What is to be said of kernels that are missing."""
    if compiled is not None or os.environ.get(SWITCH) == "off":
        return ()
    return (_MISSING,)
