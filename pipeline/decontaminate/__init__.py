"""Documents that hold evaluation items, listed in `decontaminate/`."""

from corpus.pipeline.decontaminate.stage import DecontaminateConfig, run

__all__ = ["DecontaminateConfig", "run"]
