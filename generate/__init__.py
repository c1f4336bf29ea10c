"""Sampling: a model folder and prompts in, text out.

`config` holds settings and results; `stage` streams samples; `bulk` continues a file of prompts (`prompt_file`) into a
file of results (`results_file`); `best_of` keeps the sample with the highest score; `few_shot` puts examples before a
prompt; `chat` holds a conversation; `benchmark` times a token; `serve` answers OpenAI's clients. `engine` has the
model, the settings of the sampler and the detokenizer.

Importing this package loads no torch, so worker processes that import a script of the user's start at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.generate.config import Sample, SampleConfig
from corpus.pipeline.progress import SILENT, Progress

if TYPE_CHECKING:
    from corpus.generate.stage import load, stream

__all__ = ["Sample", "SampleConfig", "load", "run", "stream"]


def run(
    config: SampleConfig, folder: Path, *, device: str = "auto", precision: str = "auto", progress: Progress = SILENT
) -> list[Sample]:
    """Open a model and write all samples, as `corpus.generate.stage.run` says."""
    from corpus.generate import stage  # noqa: PLC0415  # torch

    return stage.run(config, folder, device=device, precision=precision, progress=progress)


def __getattr__(name: str) -> Any:
    """`load` and `stream`, imported on first use: they need torch."""
    if name not in __all__:
        raise AttributeError(name)
    from corpus.generate import stage  # noqa: PLC0415

    return getattr(stage, name)
