"""`corpus demo --tasks`: the demo goes on with tasks, from the model that it made."""

from __future__ import annotations

import shutil
from pathlib import Path

from corpus.pipeline.tasks import DEMOS, load
from corpus.pipeline.workspace.layout import Workspace
from tests.support.command import corpus
from tests.support.runs import narrowed


def test_tasks_after_the_demo(demo: Workspace, tmp_path: Path) -> None:
    """Each kind is tuned and measured beside its own floors, and all are asked by prompts."""
    shutil.copytree(demo.root, tmp_path / "demo")
    with narrowed():
        done = corpus("demo", "--max-steps", 2, "--tasks", "--workspace", "demo", folder=tmp_path)
    tuned, asked = done.stdout.split("5. The GPT is fine-tuned")[1].split("6. The GPT as it was")
    trainable = [name for name in DEMOS if load(name).is_trainable]
    assert len(trainable) == 4
    for name in trainable:
        row = next(line.split() for line in tuned.splitlines() if line.split()[:1] == [name])
        assert (tmp_path / "demo" / "models" / name.replace("_", "-") / "ledger.json").is_file()
        assert row[1] == "12"
        assert row.count("%") >= 3  # the model's accuracy and two floors at least
    for name in DEMOS:
        assert any(line.split()[:1] == [name] for line in asked.splitlines())
