"""Where the checks run: device, size, rows, and the shape of a result.

In: the flags of `tests.gpu`. Out: a workspace with packed rows, and what every check needs to know.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corpus.pipeline.cli.main import main
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report
from corpus.train.config import TrainConfig
from corpus.train.run.stage import run
from tests.support.packed import lay_all


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A line of the table."""

    what: str
    value: str
    wanted: str = ""
    passed: bool | None = None
    """None for a measurement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is checked, and on what."""

    workspace: Workspace
    device: str
    tiny: bool
    folder: Path
    """For everything that is written."""
    peak: float | None
    """FLOP/s of the data sheet, dense bf16."""

    @property
    def model(self) -> str:
        """The preset."""
        return "tiny" if self.tiny else "gpt2-small"

    def copy(self, name: str) -> Workspace:
        """A workspace with the same rows and no models."""
        root = self.folder / name
        root.mkdir()
        for part in ("tokenizer", "packed"):
            (root / part).symlink_to((self.workspace.root / part).resolve(), target_is_directory=True)
        return Workspace(root)

    def model_folder(self) -> Path:
        """A model after a few steps, to sample from."""
        root = self.folder / "sampling"
        if not root.exists():
            self.train(self.copy("sampling"), max_steps=2, eval_steps=2, save_steps=2)
        return Workspace(root).models / "one"

    def train(self, workspace: Workspace, progress: Progress | None = None, **changes: Any) -> Report:
        """A short run in this process."""
        return run(self.config(**changes), workspace, **({"progress": progress} if progress else {}))

    def config(self, **changes: Any) -> TrainConfig:
        """Settings of a short run."""
        return TrainConfig(**self.settings() | changes)

    def settings(self) -> dict[str, Any]:
        """The same as values, which are flags as well."""
        return {
            "model": self.model, "max_steps": 6, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3,
            "log_steps": 2, "save_steps": 2, "eval_rows": 4, "eval_steps": 6, "precision": "bf16",
            "device": self.device, "run": "one",
        }  # fmt: skip


def synchronize(device: str) -> None:
    """Wait until the device has finished."""
    if device != "cpu":
        torch.accelerator.synchronize()


def prepare(folder: Path, *, given: Path | None, tiny: bool) -> Workspace:
    """The workspace that is given, rows of 48 tokens for `tiny`, or the demo's documents in rows of 1,024."""
    if given is not None:
        return Workspace(given)
    workspace = Workspace(folder / "workspace")
    if tiny:
        return lay_all(workspace)
    for command in (["ingest", "--dataset", "demo"], ["tokenizer"], ["pack", "--seq-length", "1024"]):
        _call([*command, "--workspace", str(workspace.root)])
    return workspace


def _call(command: list[str]) -> None:
    try:
        main(command)
    except SystemExit as leave:
        if leave.code:
            raise RuntimeError(f"corpus {' '.join(command)} ended with {leave.code}") from leave


def line(result: Result) -> str:
    """A result as a line of text.

    >>> line(Result(what="resume", value="equal", wanted="equal", passed=True))
    'ok      resume: equal (wanted: equal)'
    """
    mark = {True: "ok", False: "FAILED", None: "-"}[result.passed]
    return f"{mark:<8}{result.what}: {result.value}" + (f" (wanted: {result.wanted})" if result.wanted else "")


def rows(results: list[Result]) -> list[tuple[str, ...]]:
    """Results as the rows of a table."""
    return [
        (each.what, each.value, each.wanted or "-", {True: "yes", False: "**no**", None: "-"}[each.passed])
        for each in map(dataclasses.replace, results)
    ]
