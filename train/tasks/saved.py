"""A task model's folder: what `corpus train --objective task` writes beside the weights, and the way back.

In: a folder. Out: a `TaskModel` that gives the logits of items.
Invariants: `task.json` says how items are read, so a model is evaluated with the forms that it was trained with; the
folder is opened as untrusted as any other (`train.model.load`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corpus.pipeline.errors import ModelError, TaskError, TokenizerError
from corpus.pipeline.tasks import Item, Task
from corpus.pipeline.workspace.layout import TASK_MODEL
from corpus.train.model import load
from corpus.train.tasks import network, predict
from corpus.train.tasks.batches import TaskCollator, TaskItems
from corpus.train.tasks.forms import Form
from corpus.train.tasks.tokens import TaskTokenizer

_SCHEMA = 1
_PASS_TOKENS = 4096


def describe(folder: Path, task: Task, form: Form, *, context: int, outputs: int) -> None:
    """Write `task.json`."""
    values = {
        "schema": _SCHEMA, "task": task.name, "labels": list(task.labels), "names": list(task.names or task.labels),
        "metric": task.metric, "context": context, "outputs": outputs, **form.to_dict(),
    }  # fmt: skip
    text = json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (folder / TASK_MODEL).write_text(text, encoding="utf-8")


@dataclass(kw_only=True, slots=True)
class TaskModel:
    """A network that was fine-tuned on a task, with its tokenizer and form."""

    folder: Path
    network: Any
    tokenizer: TaskTokenizer
    form: Form
    task: str
    """Name of the task that it was trained on."""
    labels: Sequence[str]
    """The labels as records spell them; empty for choices."""
    names: Sequence[str]
    """What people call them."""
    context: int

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu") -> TaskModel:
        """The model of a run's folder.

        Raises:
            ModelError: it is no task model, or not a whole one.
            TokenizerError: its tokenizer cannot be read, or is another model's.

        """
        values = description(folder)
        load.files(folder, "--model")
        opened = load.open_model(
            folder, "--model", torch.float32, kind=network.task_class(load.configuration(folder, "--model"))
        )
        opened.is_choice = values["kind"] == "choice"
        tokenizer = TaskTokenizer(folder, rows=opened.config.vocab_size)
        if tokenizer.added:
            raise TokenizerError(
                f"{folder}: the tokenizer has no {tokenizer.added[0]}, so it is another model's",
                hint="Copy the tokenizer that the model was trained with into the folder.",
            )
        return cls(
            folder=folder, network=opened.eval().to(device), tokenizer=tokenizer, form=Form.from_dict(values),
            task=values["task"], labels=values["labels"], names=values["names"], context=values["context"],
        )  # fmt: skip

    def check(self, task: Task) -> None:
        """Refuse a task of another kind, or with other labels.

        Raises:
            TaskError: it says which.

        """
        hint = "Give --model a run that was trained with --objective task on this task."
        if task.kind != self.form.kind:
            raise TaskError(
                f"{self.folder} was trained on {self.task}, of kind {self.form.kind}; {task.name} is of kind "
                f"{task.kind}",
                hint=hint,
            )
        if list(task.labels) != list(self.labels):
            raise TaskError(
                f"{self.folder} was trained on {self.task} with the labels {', '.join(self.labels)}; {task.name} has "
                f"{', '.join(task.labels)}",
                hint=hint,
            )

    def encoded(self, items: Sequence[Item]) -> TaskItems:
        """Items as the network reads them."""
        return TaskItems(items, self.tokenizer, self.form, self.context)

    def logits(self, items: TaskItems, *, tokens: int = _PASS_TOKENS, precision: str = "fp32") -> np.ndarray:
        """[items, labels or options] scores; an option that an item does not have has -inf."""
        outputs = items.most_sequences if self.form.is_choice else len(self.labels)
        return predict.logits(
            self.network, items, np.arange(len(items)), collator=TaskCollator(self.tokenizer.pad), labels=outputs,
            tokens=tokens, precision=precision,
        )  # fmt: skip


def description(folder: Path) -> dict[str, Any]:
    """What `task.json` says.

    Raises:
        ModelError: the file is missing, or cannot be read.

    """
    path = folder / TASK_MODEL
    hint = "Give --model a run that `corpus train --objective task` wrote."
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is no task model: {TASK_MODEL} is missing", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=hint) from error
    needed = {"schema", "task", "labels", "names", "context", "kind", "cut", "both_orders", "delimiter"}
    if not isinstance(values, dict) or not needed <= values.keys() or values["schema"] != _SCHEMA:
        raise ModelError(f"{path} cannot be read: it is not that of a task model of this version", hint=hint)
    return values
