"""Tasks: labelled sets that a model is fine-tuned on, or asked about by prompts.

`schema` has the values, `parse` reads a task file, `read` the items of its data.
"""

from corpus.pipeline.tasks.ask import Question, ask
from corpus.pipeline.tasks.parse import DEMOS, TASKS, load, parse
from corpus.pipeline.tasks.read import data_of, read, read_all, read_with_train
from corpus.pipeline.tasks.schema import KINDS, METRICS, Item, Kind, Prompt, Source, SplitRule, Task

__all__ = [
    "DEMOS", "KINDS", "METRICS", "TASKS", "Item", "Kind", "Prompt", "Question", "Source", "SplitRule", "Task", "ask",
    "data_of", "load", "parse", "read", "read_all", "read_with_train",
]  # fmt: skip
