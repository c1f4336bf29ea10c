"""The options of `corpus train` for the order of rows, and for rows that are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from corpus.pipeline.cli.options import NamedPath

_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """A number of bytes as people write it: 200G is 200e9."""
    if text is None:
        return None
    digits, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    try:
        return int(float(digits) * unit)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"must be a number such as 200G or 500M, is {text}") from error


_OPTIONS = (
    click.option(
        "--rows", metavar="URL", default="",
        help="Read rows and tokenizer of the workspace at this URL, such as s3://bucket/prefix, in place of those in "
        "--workspace.",
    ),
    click.option(
        "--cache", type=NamedPath(file_okay=False), metavar="DIR",
        help="With --rows: folder of the fetched files.  [default: corpus in $XDG_CACHE_HOME or ~/.cache]",
    ),
    click.option(
        "--cache-bytes", metavar="SIZE", callback=_bytes,
        help="With --rows: most bytes of that folder, such as 200G; what was used least recently is deleted.  "
        "[default: what the disk has]",
    ),
    click.option(
        "--shuffle", type=click.Choice(["full", "block"]), default="full", show_default=True,
        help="full: one permutation of all rows an epoch; block: of all shards, and of the rows within a block of "
        "shards. With --rows, block needs two blocks in the cache, in place of all rows.",
    ),
    click.option("--shuffle-block", type=int, metavar="N", help="Shards of a block of --shuffle block.  [default: 8]"),
)  # fmt: skip


def rows_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
