"""From documents to `tokenizer/`, and from texts to token ids.

The stage is imported lazily: training and sampling need the special tokens without Arrow and worker processes.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus.pipeline.tokenizer.stage import TokenizerConfig, run

__all__ = ["TokenizerConfig", "run"]


def __getattr__(name: str) -> Any:
    """The stage's configuration and `run`, imported on first use."""
    if name not in __all__:
        raise AttributeError(name)
    from corpus.pipeline.tokenizer import stage  # noqa: PLC0415

    return getattr(stage, name)
