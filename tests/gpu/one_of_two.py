"""One of two processes that train on one device: gloo in place of NCCL, which refuses a card that another rank has."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from transformers import TrainingArguments

from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.run import arguments
from corpus.train.run.stage import run

if __name__ == "__main__":
    gloo = functools.partial(TrainingArguments, ddp_backend="gloo")
    with mock.patch.object(arguments, "TrainingArguments", gloo):
        run(TrainConfig(**json.loads(sys.argv[2])), Workspace(Path(sys.argv[1])))
