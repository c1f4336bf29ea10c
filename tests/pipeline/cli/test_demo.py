"""`corpus demo --tasks`: the demo goes on with tasks, from the model that it made."""

from __future__ import annotations

import re
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


def test_preferences_after_the_demo(demo: Workspace, tmp_path: Path) -> None:
    """Every step leaves a run, and every model answers the held-out questions."""
    shutil.copytree(demo.root, tmp_path / "demo")
    done = corpus("demo", "--max-steps", 2, "--align", "--workspace", "demo", folder=tmp_path)
    judged, answered = done.stdout.split("6. Which of two")[1].split("7. Answers to")
    for run in ("tuned", "judge", "preferred", "aligned"):
        assert (tmp_path / "demo" / "models" / run / "ledger.json").is_file()
    for name in ("reward model", "floor: longer wins"):
        row = next(line for line in judged.splitlines() if line.strip().startswith(name))
        assert row.count("%") >= 1
    for name in ("pre-trained", "SFT", "SFT, best of 8", "DPO", "PPO-ptx"):
        row = next(line for line in answered.splitlines() if line.startswith(f" {name}  "))
        assert re.search(r"-?\d\.\d{3} +\d+\.\d % +\d+", row)
        assert f"\n  {name}: " in answered
    scores = {line.split("  ")[0].strip(): line.split()[-4] for line in answered.splitlines() if "%" in line}
    assert float(scores["SFT, best of 8"]) >= float(scores["SFT"])
