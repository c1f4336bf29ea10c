"""Training and evaluation: packed rows in, a GPT that `transformers` opens out.

`config` holds the settings and `presets` the sizes by name. `data` turns rows into batches; `model` builds or loads a
network on its device; `evaluation` measures loss and bits per character; `run` plans a run and trains it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus.train.config import TrainConfig
    from corpus.train.run.stage import run as train

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported on first use: it needs torch."""
    if name not in __all__:
        raise AttributeError(name)
    from corpus.train.config import TrainConfig  # noqa: PLC0415
    from corpus.train.run import stage  # noqa: PLC0415

    return TrainConfig if name == "TrainConfig" else stage.run
