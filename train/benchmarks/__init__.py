"""What a model knows without training on a task: prompts, few-shot examples and minimal pairs, scored by likelihood.

`prompts` puts an item to a model, `shots` draws examples, `scores` turns log-likelihoods into figures: all three pure.
`lm` and `harness_task` hand model and items to lm-evaluation-harness, `stage` runs it, `results` writes what came out.
`plain` scores without the harness, for runs that measure a benchmark while they train (`during`).

Importing this package loads no torch and no harness.
"""

import os

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace import Workspace
from corpus.train.benchmarks.config import BenchmarkConfig, BenchmarkResult

__all__ = ["BenchmarkConfig", "BenchmarkResult", "run"]


def run(config: BenchmarkConfig, workspace: Workspace, *, progress: Progress = SILENT) -> list[BenchmarkResult]:
    """Measure a model, as `corpus.train.benchmarks.stage.run` says; built-in benchmarks ask no hub."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is first imported
    if not config.names_hub_task:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from corpus.train.benchmarks import stage  # noqa: PLC0415  # torch

    return stage.run(config, workspace, progress=progress)
