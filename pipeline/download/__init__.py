"""From a mirror or --source to `raw/<dataset>/`."""

from corpus.pipeline.download.stage import DownloadConfig, plan, run

__all__ = ["DownloadConfig", "plan", "run"]
