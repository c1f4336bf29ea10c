"""From records to `documents/<dataset>/`: the stage that cleans and filters."""

from corpus.pipeline.documents.stage import IngestConfig, run

__all__ = ["IngestConfig", "run"]
