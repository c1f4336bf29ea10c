"""`torchrun --nproc-per-node N -m corpus.train --config FILE.json`: one run over several processes.

In: a JSON object whose keys are those of `TrainConfig`. Out: what `corpus train` makes; only the first process speaks
and writes.
Invariant: `batch_size` counts the rows of a step over all processes, so a run is the same one however many share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from corpus.pipeline.errors import CorpusError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig


class _Lines(Progress):
    """What a user should read, a line at a time on standard error, and each tenth of the run."""

    def __init__(self) -> None:
        self.label, self.total, self.unit, self.done = "", 0, "", 0

    def begin(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit, self.done = label, total or 0, unit, 0

    def advance(self, amount: int) -> None:
        before, self.done = self.done, self.done + amount
        if self.total and self.done * 10 // self.total > before * 10 // self.total:
            self.say(f"{self.label}: {self.done:,} of {self.total:,} {self.unit}")

    def say(self, message: str) -> None:
        click.echo(message, err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
    help="JSON object with the fields of TrainConfig.",
)  # fmt: skip
@click.option(
    "--workspace", "root", type=click.Path(file_okay=False, path_type=Path), envvar="CORPUS_WORKSPACE",
    default=Path("workspace"), show_default=True, help="Folder that holds everything.",
)  # fmt: skip
def main(path: Path, root: Path) -> None:
    """Train as `corpus train` does, in one process or in several that torchrun starts.

    Example: torchrun --nproc-per-node 2 -m corpus.train --config run.json
    """
    config = read_config(path)
    first = os.environ.get("RANK", "0") == "0"
    workspace = Workspace(root)
    from corpus.train.run.stage import run  # noqa: PLC0415  # torch, after a wrong configuration is refused

    try:
        with workspace.writing("train") if first else contextlib.nullcontext():
            report = run(config, workspace, progress=_Lines() if first else SILENT)
        if first:
            click.echo(f"{'already trained' if report.skipped else 'trained'}: {report.folder}", err=True)
    except CorpusError as error:
        click.echo(f"Error: {error.message}\n{error.hint}".rstrip(), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("Interrupted: the same command goes on from the last checkpoint.", err=True)
        sys.exit(130)
    finally:
        _leave()


def read_config(path: Path) -> TrainConfig:
    """The configuration in a JSON file.

    Raises:
        click.UsageError: it is not a JSON object, or a key or value is wrong.

    """
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.get("init"):
            values["init"] = Path(values["init"])
        return TrainConfig(**values | {key: tuple(values.get(key, ())) for key in ("datasets", "sample_prompts")})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise click.UsageError(f"{path}: {error}") from error


def _leave() -> None:
    import torch.distributed  # noqa: PLC0415  # as above

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
