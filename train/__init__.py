"""The training stage: packed rows in, a GPT that `transformers` opens out.

`config` is what a user can set, `presets` the sizes by name, `plan` what will be done and whether it already is,
`order` which row comes when, `collate` how rows become a batch, `model` how the network comes to be, `device` where it
runs, `arguments` and `trainer` the thin layer over Hugging Face's `Trainer`, `evaluate` bits per character and byte,
`announce` what is said before it starts, `folder` what lies in a run's folder, and `train` the stage that joins them.
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
