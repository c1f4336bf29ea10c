"""Documents of low quality by a learned score, listed in `quality/`."""

from corpus.pipeline.quality.config import QualityConfig
from corpus.pipeline.quality.stage import run

__all__ = ["QualityConfig", "run"]
