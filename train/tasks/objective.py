"""The objective `task`: a task's items in, a network with a linear layer on its extract token out.

In: a task and its data, and the model to start from, or none: then a network with random weights, of a preset's size
and with the workspace's tokenizer. Out: an `Objective`.
Invariants: the network, the order of the items and the dropout depend on the seed alone; validation items are never
trained on.
Cost: all items as ids in memory; an evaluation is one pass over the validation items.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from corpus.pipeline import tasks
from corpus.pipeline.errors import TaskError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tasks import Item, Task, floors, metrics
from corpus.pipeline.tokenizer import files as tokenizers
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest
from corpus.train import networks
from corpus.train.config import TrainConfig
from corpus.train.evaluation.metrics import spread
from corpus.train.model import architecture, load
from corpus.train.objective import Figure, ItemObjective, Passes, Result
from corpus.train.tasks import card, network, pictures, predict
from corpus.train.tasks.batches import TaskCollator, TaskItems
from corpus.train.tasks.forms import Form
from corpus.train.tasks.saved import describe
from corpus.train.tasks.tokens import TaskTokenizer

_CONTEXT = 1024
"""Longest sequence of a model that does not say how many tokens it takes."""
_LEAST_EVALUATIONS, _MOST_EVALUATIONS = 3, 10


class TaskObjective(ItemObjective):
    """The items of one task.

    Raises:
        TaskError: there is no such task, it cannot be trained on, or its data are not what it says.
        WorkspaceError, TokenizerError: without `init`: the workspace has no tokenizer; with it: the folder has none.
        ModelError: `init` or `architecture` hold no model.

    """

    noun = "items"
    train: TaskItems
    validation: Mapping[str, TaskItems]
    collator: TaskCollator

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> None:
        self.config = config
        self.task = task = tasks.load(config.task)
        if not task.is_trainable:
            raise TaskError(
                f"the task {task.name} has no items to train on", hint="Ask a model about it with corpus evaluate."
            )
        self.form = Form.of(task, one_order=config.one_order, delimiter=config.delimiter)
        if config.one_order and task.kind != "similarity":
            raise TaskError(f"--one-order is for pairs without order, and {task.name} is of kind {task.kind}")
        if config.init is None:
            tokenizers.load(workspace.tokenizer)  # named where it is missing
            self.tokenizer = TaskTokenizer(workspace.tokenizer)
        else:
            self.tokenizer = TaskTokenizer(config.init, rows=architecture.read(config.init).vocab_size)
        self.context = self._context()
        progress.say(f"reading {task.name} ...")
        splits = tasks.read_all(task, config.data)
        self.train = self._encoded(splits["train"])
        validation = splits.get("validation", [])
        self.validation = {task.name: self._encoded(validation)} if validation else {}
        self.rows, self.tokens = {task.name: len(self.train)}, self.train.tokens
        self.lengths = self.train.lengths
        measured = [self.train, *self.validation.values()]
        self.seq_length = max(items.longest for items in measured)
        self.most_sequences = max(items.most_sequences for items in measured)
        self.outputs = self.most_sequences if self.form.is_choice else len(task.labels)
        self.labels = task.names or task.labels
        self.decides = Figure(task.metric if not self.form.is_choice else "accuracy", larger_is_better=True)
        self.curve = {"figure": self.decides.name, "title": self.decides.name, "loss": "nats an item"}
        self.collator = TaskCollator(self.tokenizer.pad)
        self.name = task.name
        self.inputs = [_task_digest(task), *_data_digests(task, config, workspace, splits)]
        if config.init is None:
            self.inputs.append(workspace.file_digest(workspace.tokenizer / "tokenizer.json"))
        self.settings = self._settings()

    def _settings(self) -> dict[str, Any]:
        return {
            "task": self.task.name, "kind": self.task.kind, "metric": self.decides.name, "labels": list(self.labels),
            "aux_lm": self.config.aux_lm, "both_orders": self.form.both_orders, "delimiter": self.form.delimiter,
            "cut": self.form.cut, "head_dropout": self.head_dropout, "context": self.context,
            "seq_length": self.seq_length, "vocab_size": self.tokenizer.size,
        }  # fmt: skip

    @property
    def head_dropout(self) -> float:
        """That of GPT, unless a flag gives one for the whole network."""
        return network.HEAD_DROPOUT if self.config.dropout is None else self.config.dropout

    def _encoded(self, items: Sequence[Item]) -> TaskItems:
        return TaskItems(items, self.tokenizer, self.form, self.context)

    def _context(self) -> int:
        """Tokens that the network takes at once."""
        if self.config.is_preset:
            return self.config.preset.context
        found = load.context_in(architecture.read(self.config.init or self.config.architecture or Path()))
        return found or _CONTEXT

    # --- the network ------------------------------------------------------------------------------------------------

    def network(self) -> Any:
        """The model that the run starts from, or a new one, with a head."""
        if self.config.init is None:
            return self._headed(self._new())
        dropout = self.config.dropout
        changed = {} if dropout is None else dict.fromkeys(architecture.DROPOUTS, dropout)
        values = architecture.read(self.config.init)
        changed = {name: value for name, value in changed.items() if hasattr(values, name)}
        return self._headed(load.open_model(self.config.init, "--init", torch.float32, **changed))

    def sketch(self) -> Any:
        """The same without weights."""
        if self.config.init is None:
            return self._headed(self._new())
        return self._headed(AutoModelForCausalLM.from_config(load.configuration(self.config.init, "--init")))

    def _new(self) -> Any:
        shape = networks.Shape(
            vocab_size=self.tokenizer.size, seq_length=self.context, separator=self.tokenizer.separator,
            pad=self.tokenizer.pad,
        )  # fmt: skip
        return networks.new(self.config, shape)

    def _headed(self, causal: Any) -> Any:
        return network.make(
            causal, labels=self.labels, is_choice=self.form.is_choice, rows=self.tokenizer.size,
            pad=self.tokenizer.pad, aux_lm=self.config.aux_lm, seed=self.config.seed,
            head_dropout=self.head_dropout,
        )  # fmt: skip

    # --- the passes -------------------------------------------------------------------------------------------------

    def eval_steps(self, steps: int, batch_size: int) -> int | None:
        """About ten evaluations in a run, and at most an eighth of its time, but at least three."""
        affordable = self.affordable(self.config.eval_rows or 0, batch_size)
        wanted = max(math.ceil(steps / _MOST_EVALUATIONS), affordable)
        return max(1, min(math.ceil(steps / _LEAST_EVALUATIONS), wanted))

    def evaluate(self, model: Any, passes: Passes) -> dict[str, Any]:
        """Loss, accuracy, macro-F1 and MCC of the validation items, and their confusion matrix."""
        found: dict[str, Any] = {}
        for name, items in self.validation.items():
            chosen = spread(len(items), self.config.eval_rows or 0)
            true = np.array([items.encoded[number].label for number in chosen])
            own = np.arange(len(chosen))[passes.rank :: passes.world]
            given = predict.logits(
                model, items, chosen[own], collator=self.collator, labels=self.outputs,
                tokens=self.pass_tokens(passes), precision=passes.precision,
            )  # fmt: skip
            sums = np.zeros((len(chosen), 2))
            if len(own):
                sums[own, 0] = given.argmax(axis=1)
                sums[own, 1] = -predict.log_probabilities(given)[np.arange(len(own)), true[own]]
            sums = passes.add(sums) if passes.world > 1 else sums
            predicted = sums[:, 0].astype(np.int64)
            matrix = metrics.confusion(true, predicted, self.outputs)
            scores = metrics.figures_of(matrix)
            found[f"{name}/loss"] = float(sums[:, 1].mean())
            for figure in metrics.names_of(self.task.kind):
                found[f"{name}/{figure}"] = scores.of(figure)
            found |= {f"{name}/confusion": matrix.tolist(), self.decides.name: scores.of(self.decides.name)}
        return found

    # --- what is written --------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The tokenizer that makes the task's form, and `task.json`."""
        self.tokenizer.save(folder, form=self.form, context=self.context)
        describe(folder, self.task, self.form, context=self.context, outputs=self.outputs)

    def counts(self) -> Mapping[str, Any]:
        """Items by split, those that were cut, and what needs no model on the validation items."""
        there = dict(zip(("train", "validation"), (self.train, *self.validation.values()), strict=False))
        measured = there["validation"].items if self.validation else []
        answers = floors.available(self.task, self.train.items, measured)[0] if measured else []
        names = metrics.names_of(self.task.kind)
        return {
            "floors": {each.name: {name: each.figures.of(name) for name in names} for each in answers},
            "items": {split: len(items) for split, items in there.items()},
            "cut_items": {split: items.cut for split, items in there.items()},
            "cut_tokens": {split: items.cut_tokens for split, items in there.items()},
        }

    def notes(self) -> Sequence[str]:
        """How many items were cut."""
        measured = [self.train, *self.validation.values()]
        cut, tokens = sum(items.cut for items in measured), sum(items.cut_tokens for items in measured)
        total = sum(map(len, measured))
        if not cut:
            return []
        end = f"{tokens:,} tokens were cut, from the end of {self.form.cut}"
        return [f"{cut:,} of {total:,} items are longer than {self.context:,} tokens: {end}"]

    def documents(self, result: Result) -> Mapping[str, bytes]:
        """The model card, and the confusion matrix of the best evaluation."""
        drawn = {}
        best = result.counts["best"]
        if best:
            matrix = np.array(best["validation"][self.task.name]["confusion"])
            title = f"{self.task.name}, validation, step {best['step']:,}"
            drawn = {"confusion.png": pictures.confusion(matrix, self._shown(), title=title)}
        return drawn | {"README.md": card.model(result, self.task, self.form).encode()}

    def _shown(self) -> list[Sequence[str]]:
        """Names for the picture, the first that a font has: what people call the labels, then as records spell them."""
        if self.form.is_choice:
            return [[chr(ord("A") + at) for at in range(self.outputs)]]
        return [self.labels, self.task.labels]


def _task_digest(task: Task) -> FileDigest:
    """The task file as an input."""
    if task.file is not None:
        content = task.file.read_bytes()
    else:
        content = (files("corpus.manifests") / "tasks" / f"{task.name}.toml").read_bytes()
    return FileDigest(f"task/{task.name}.toml", len(content), hashlib.sha256(content).hexdigest())


def _data_digests(
    task: Task, config: TrainConfig, workspace: Workspace, splits: Mapping[Any, Sequence[Item]]
) -> list[FileDigest]:
    """The file of the items as an input; of a folder the items that were read."""
    path = tasks.data_of(task, config.data)
    if path.is_file():
        return [FileDigest(f"data/{path.name}", path.stat().st_size, workspace.digest(path))]
    found = []
    for split, items in splits.items():
        content = b"".join(json.dumps(asdict(item), ensure_ascii=False).encode() + b"\n" for item in items)
        found.append(FileDigest(f"data/{split}", len(content), hashlib.sha256(content).hexdigest()))
    return found
