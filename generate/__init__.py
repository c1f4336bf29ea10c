"""Sampling: a model folder and prompts in, text out, piece by piece.

`loading` opens a folder safely; `window` keeps keys and values of the newest tokens; `choose` picks the next token;
`decode` turns tokens into whole characters; `stop` finds stop strings across token borders; `sample` is the command.
`prompts` reads files of prompts, `bulk` continues them, `part` lets an interrupted file go on; `form` puts examples and
questions as training did; `chat` holds a conversation; `timings` and `picture` show what a token costs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus.generate.stage import Sample, SampleConfig, load, run, stream

__all__ = ["Sample", "SampleConfig", "load", "run", "stream"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported on first use: it needs torch."""
    if name not in __all__:
        raise AttributeError(name)
    from corpus.generate import stage  # noqa: PLC0415

    return getattr(stage, name)
