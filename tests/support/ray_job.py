"""Documents in small pieces on a Ray of this machine: what the test of a killed driver starts and kills.

Arguments: the workspace, and `ray` or `local`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corpus.pipeline import engine
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.workspace.layout import Workspace
from tests.support.job import CLEANING

if __name__ == "__main__":
    workspace = Workspace(Path(sys.argv[1]))
    with engine.using(sys.argv[2], workers=2), workspace.writing("ingest"):
        ingest.run(CLEANING, workspace)
    print("done")
