"""Where everything lies, how a file is finished, and the ledger that proves a stage is."""

from corpus.pipeline.workspace.layout import Workspace

__all__ = ["Workspace"]
