"""A dry run: what it says, and that it builds nothing."""

from __future__ import annotations

from dataclasses import replace

from corpus.pipeline.humanize import duration
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.presets import PRESETS
from corpus.train.run import dry_run
from tests.support.packed import lay_all


def test_a_dry_run_builds_nothing(workspace: Workspace) -> None:
    lay_all(workspace)
    config = TrainConfig(model="gpt3-175b", epochs=2, batch_size=8, datasets=("demo=3", "wiki2019zh=1"), threads=1)
    forecast = dry_run.run(config, workspace, rate=1e15)
    lines = dict(forecast.lines())
    preset = PRESETS["gpt3-175b"]
    parameters = preset.parameters(vocab_size=400, context=48)
    assert lines["parameters"] == f"{parameters:,}"
    assert lines["steps"] == "10 of 8 rows of 48 tokens"
    flops = (6 * parameters + 12 * preset.layers * preset.width * 48) * 80 * 48
    assert lines["FLOPs"] == f"{flops:.3g}"
    assert lines["time"].startswith(f"{duration(flops / 1e15)} at 1e+15")
    assert lines["tokens of demo"].endswith("epochs)")
    assert not workspace.models.exists()
    assert lines["memory, whatever the rows"].endswith("(fp32, gradients and AdamW)")
    muon = dry_run.run(replace(config, optimizer="muon"), workspace)
    blocks = 12 * preset.layers * preset.width**2  # the matrices that Muon trains, with one moment
    assert forecast.fixed_bytes - muon.fixed_bytes == forecast.checkpoint_bytes - muon.checkpoint_bytes == 4 * blocks
    assert dict(muon.lines())["memory, whatever the rows"].endswith("(fp32, gradients, Muon and AdamW)")
