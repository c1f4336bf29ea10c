"""Sampling: a model folder and prompts in, text out.

`config` holds settings and results; `stage` streams samples; `bulk` continues a file of prompts (`prompt_file`) into a
file of results (`results_file`); `few_shot` puts examples before a prompt; `chat` holds a conversation; `benchmark`
times a token. `engine` has the model, its cache, the sampler and the detokenizer.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus.generate.stage import Sample, SampleConfig, load, run, stream

__all__ = ["Sample", "SampleConfig", "load", "run", "stream"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported on first use: it needs torch."""
    if name not in __all__:
        raise AttributeError(name)
    from corpus.generate import stage  # noqa: PLC0415  # it loads torch

    return getattr(stage, name)
