"""What Ray's worker processes run: it imports no Ray, and nothing but what a worker of this machine imports.

In: the pickled work of a stage, and a piece. Out: the pickled result, or the pickled exception.
Invariants: a process with other versions than the driver's makes no piece. An exception of a piece is a value, so Ray
neither wraps nor retries it.
Cost: the work is unpickled once for each process and run of a stage; a process imports the stages before its first.
"""

from __future__ import annotations

import importlib
import pickle
import socket
from collections.abc import Callable, Mapping
from typing import Any

from corpus.pipeline.engine.versions import differences, versions
from corpus.pipeline.errors import EngineError
from corpus.pipeline.workers import IMPORTED

_work: dict[str, Callable[[Any], Any]] = {}
"""The work of the run whose piece was made last, by the name of the run."""


def probe() -> tuple[str, Mapping[str, str]]:
    """The name of this node and its versions."""
    return socket.gethostname(), versions()


def packed(work: Callable[[Any], Any]) -> bytes:
    """The work of a run, for `apply`."""
    return pickle.dumps((versions(), pickle.dumps(work)))


def apply(name: str, load: Callable[[], bytes], piece: object) -> bytes:
    """Make a piece of the run of this name, whose work `load` gives."""
    try:
        if name not in _work:
            _work.clear()
            _work[name] = _loaded(load())
        return pickle.dumps((True, _work[name](piece)))
    except Exception as error:  # noqa: BLE001  # of whatever kind: the driver raises it
        return _failed(error)


def _loaded(data: bytes) -> Callable[[Any], Any]:
    there, work = pickle.loads(data)  # noqa: S301  # from the driver, which Ray's token has let in
    if found := differences(there, versions()):
        raise other_versions(socket.gethostname(), found)
    importlib.import_module(IMPORTED)
    made: Callable[[Any], Any] = pickle.loads(work)  # noqa: S301  # as above
    return made


def other_versions(node: str, found: list[str]) -> EngineError:
    """The error of a node whose versions differ."""
    return EngineError(
        f"node {node} would write other bytes: it has {'; '.join(found)}",
        hint="Install the same wheel of corpus-zh and the same versions on all nodes, and run the same command again.",
    )


def _failed(error: Exception) -> bytes:
    try:
        data = pickle.dumps((False, error))
        pickle.loads(data)  # noqa: S301  # our own bytes: some exceptions can be written, but not read
    except Exception:  # noqa: BLE001  # whatever its methods do
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return data


def unpacked(data: bytes) -> Any:
    """The result of a piece; raises what it raised."""
    is_made, value = pickle.loads(data)  # noqa: S301  # from a node, which Ray's token has let in
    if is_made:
        return value
    raise value
