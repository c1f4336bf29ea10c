"""Documents that hold evaluation items, listed in `decontaminate/`."""

from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.stage import run

__all__ = ["DecontaminateConfig", "run"]
