"""Training in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from tests.support.forked import Forked

LAUNCHER = Path(__file__).with_name("torchrun.py")
SETTINGS: dict[str, Any] = {
    "architecture": Path(__file__).with_name("narrow.json"),
    "epochs": 3.0, "batch_size": 7, "micro_batch_size": 4, "log_steps": 3, "save_steps": 4,
    "threads": 1, "run": "one",
}  # fmt: skip


def config_of(changes: dict[str, Any]) -> TrainConfig:
    """A small run."""
    return TrainConfig(**SETTINGS | changes)


def flags_of(changes: dict[str, Any], workspace: Workspace) -> list[str]:
    """`corpus train` of the same run."""
    flags = ["train", "--workspace", str(workspace.root)]
    for name, value in (SETTINGS | changes).items():
        if name == "architecture":
            flags += ["--model", str(value)] if value else []
            continue
        for each in value if isinstance(value, tuple) else (value,):
            flags += [f"--{name.removesuffix('s') if isinstance(value, tuple) else name}".replace("_", "-"), str(each)]
    return flags


def start(changes: dict[str, Any], workspace: Workspace) -> Forked:
    """Training in a process of its own."""
    return Forked([sys.executable, "-m", "corpus.pipeline.cli", *flags_of(changes, workspace)])


def start_several(changes: dict[str, Any], workspace: Workspace, *, processes: int) -> Forked:
    """Training in several processes by torchrun's launcher."""
    return Forked([LAUNCHER, str(processes), *flags_of(changes, workspace)], torch=True)


def torchrun(changes: dict[str, Any], workspace: Workspace, *, processes: int) -> Forked:
    """Training in several processes, which torchrun starts as users have it: each imports torch, which takes 5 s."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    separator = "--"  # else torchrun takes `--run` for its own `--run-path`
    words = [*launch, "-m", separator, "corpus.pipeline.cli", *flags_of(changes, workspace)]
    return Forked([sys.executable, *words], torch=True)
