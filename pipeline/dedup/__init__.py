"""Documents that repeat others, listed in `dedup/`."""

from corpus.pipeline.dedup.stage import DedupConfig, run

__all__ = ["DedupConfig", "run"]
