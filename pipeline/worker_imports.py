"""Imported by the process that worker processes are forked from: it imports the stages that have workers.

Invariants: no thread but that of jemalloc, which allows forks; pandas cannot be imported (`corpus.pipeline.workers`).
Cost: half a second and 90 MB, most of which the workers share.
"""

from __future__ import annotations

import gc
import importlib
import os

from corpus.pipeline.workers import refuse_pandas

STAGES = (
    "corpus.pipeline.documents.stage", "corpus.pipeline.dedup.stage", "corpus.pipeline.decontaminate.search",
    "corpus.pipeline.quality.scores", "corpus.pipeline.pack.stage", "corpus.pipeline.pack.ranking_stage",
    "corpus.pipeline.export.stage",
)  # fmt: skip

refuse_pandas()
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported: there are as many workers as cores
for _name in STAGES:
    importlib.import_module(_name)
gc.freeze()  # a collection in a worker would copy their memory
