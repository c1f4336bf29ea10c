"""Engines: where the pieces of a stage run, when not in the worker processes of this machine alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from corpus.pipeline.workers import running_on

__all__ = ["ENGINES", "using"]

ENGINES = ("local", "ray")


@contextlib.contextmanager
def using(
    name: str, *, address: str | None = None, workers: int = 0, tell: Callable[[str], object] = str
) -> Iterator[None]:
    """Let the stages in the block run their pieces on an engine.

    `address` is that of a Ray cluster; without one Ray runs on this machine, for the block alone. `workers` bounds the
    slots. `tell` gets a line about what was joined.

    Raises:
        EngineError: the engine is not installed, or cannot be joined.
        ValueError: there is no such engine, or it takes no address.

    """
    if name not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, is {name}")
    if name == "local":
        if address is not None:
            raise ValueError("--address is for --engine ray alone")
        yield
        return
    from corpus.pipeline.engine.ray_engine import RayEngine  # noqa: PLC0415  # only where Ray is wanted

    engine = RayEngine(address, workers=workers, tell=tell)
    try:
        engine.join()
        with running_on(engine):
            yield
    finally:
        engine.close()
