"""`--workers`, `--engine` and `--address`: where the pieces of a command's stages run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from corpus.pipeline.terminal.console import Console

F = TypeVar("F", bound=Callable[..., Any])
_FLAGS = (
    click.option(
        "--workers", type=int, default=0, show_default="one for each core",
        help="Worker processes, or the most slots of a cluster; the result is the same.",
    ),
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), envvar="CORPUS_ENGINE", default="local", show_default=True,
        help="What runs the workers: this machine, or Ray (or CORPUS_ENGINE); the result is the same.",
    ),
    click.option(
        "--address", metavar="HOST:PORT", envvar="RAY_ADDRESS",
        help="The Ray cluster (or RAY_ADDRESS).  [default: a Ray on this machine, for this command alone]",
    ),
)  # fmt: skip


def workers_option(function: F) -> F:
    """`--workers`, `--engine` and `--address`; the command runs within the engine."""

    @functools.wraps(function)
    def within(*arguments: Any, engine: str, address: str | None, **settings: Any) -> Any:
        from corpus.pipeline import engine as engines

        if engine == "local" and _source("address") is not click.core.ParameterSource.COMMANDLINE:
            address = None  # RAY_ADDRESS may be there for other programs
        with contextlib.ExitStack() as stack:
            try:
                running = engines.using(engine, address=address, workers=settings["workers"], tell=Console().say)
                stack.enter_context(running)
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            return function(*arguments, **settings)

    made: Any = within
    for flag in reversed(_FLAGS):
        made = flag(made)
    wrapped: F = made
    return wrapped


def _source(name: str) -> click.core.ParameterSource | None:
    return click.get_current_context().get_parameter_source(name)
