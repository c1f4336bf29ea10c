"""The workspace: its paths and lock, atomic writes, ledgers, and the run of a stage."""

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.stage import StageRun

__all__ = ["StageRun", "Workspace"]
