"""`corpus evaluate --task`: a task model on items it was not trained on, beside what needs no model.

In: a task model's folder, and a task with its data. Out: figures with an interval, by group, beside the floors, and
with and without the items that stand in the training items or in the documents that the model was pre-trained on.
Invariants: items are read with the form that the model was trained with; nothing is learnt from the items measured.
Cost: one pass over each sequence; the linear floor takes seconds; the search reads the documents once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from corpus.pipeline import tasks
from corpus.pipeline.errors import DeviceError, ModelError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.tasks import Item, Task, floors, leaks, metrics
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Stopwatch
from corpus.train.model import device as devices
from corpus.train.objective import PASS_TOKENS
from corpus.train.tasks import predict
from corpus.train.tasks.config import Leak, Measured, TaskEvaluateConfig, TaskEvaluation
from corpus.train.tasks.saved import TaskModel


def run(config: TaskEvaluateConfig, workspace: Workspace, *, progress: Progress = SILENT) -> TaskEvaluation:
    """Measure a task model on the items of a split.

    Raises:
        TaskError: there is no such task or split, the model was trained on another kind or other labels, or the data
            are not what the task says.
        ModelError: the folder is no task model, or its logits are not numbers.
        TokenizerError, DeviceError, DamageError, DiskError: as their names say.

    """
    watch = Stopwatch()
    task = tasks.load(config.task)
    items, train = tasks.read_with_train(task, config.data, config.split)
    device = devices.choose(config.device, config.precision)
    with devices.memory_errors(_out_of_memory()):
        model = TaskModel.open(config.model, device=device.kind)
        model.check(task)
        progress.say(f"{task.name}: {len(items):,} items of {config.split}, {device.describe()}")
        encoded = model.encoded(items)
        usual = max(1, round(float(encoded.tokens.mean())))
        budget = (config.batch_size * usual) if config.batch_size else device.most_rows * PASS_TOKENS
        logits_nk = model.logits(encoded, tokens=budget, precision=device.precision)
    if not np.isfinite(logits_nk.max(axis=1)).all():
        raise ModelError(f"{config.model} computes no numbers on {task.name}", hint="Its training has diverged.")
    logs_nk = predict.log_probabilities(logits_nk)
    true, predicted = np.array([item.label for item in items]), logits_nk.argmax(axis=1)
    found, unchecked = leaks.find(items, [] if config.split == "train" else train, config.model, workspace, progress)
    measure = _Figures(task, true, predicted, outputs=logits_nk.shape[1])
    if config.predictions:
        write_atomic(config.predictions, b"".join(_lines(task, items, predicted, logs_nk, found)))
    progress.say("floors ...")
    answers, lacking = floors.available(task, train, items)
    if task.is_trainable and not train:
        lacking = "the data hold no training items: floors that learn and the search among them are left out"
    return TaskEvaluation(
        model=config.model, task=task.name, split=config.split, metric=measure.metric,
        loss=float(-logs_nk[np.arange(len(items)), true].mean()), all=measure(np.arange(len(items))),
        interval=metrics.interval(true, predicted, measure.outputs, measure.metric), groups=measure.groups(items),
        floors={each.name: measure.taken(each.figures) for each in answers}, lacking=lacking,
        leaks=[measure.leak(where, ids, items) for where, ids in found.items()], unchecked=unchecked, cut=encoded.cut,
        confusion=metrics.confusion(true, predicted, measure.outputs).tolist(),
        labels=model.names or [chr(ord("A") + at) for at in range(measure.outputs)], precision=device.precision,
        device=device.describe(), seconds=watch.seconds,
    )  # fmt: skip


class _Figures:
    """Figures of some of the items."""

    def __init__(self, task: Task, true: np.ndarray, predicted: np.ndarray, *, outputs: int) -> None:
        self.names = metrics.names_of(task.kind)
        self.metric = task.metric if task.metric in self.names else self.names[0]
        self.true, self.predicted, self.outputs = true, predicted, outputs

    def __call__(self, places: np.ndarray) -> Measured:
        return self.taken(metrics.figures(self.true[places], self.predicted[places], self.outputs))

    def taken(self, figures: metrics.Figures) -> Measured:
        return Measured(items=figures.items, figures={name: figures.of(name) for name in self.names})

    def groups(self, items: Sequence[Item]) -> dict[str, Measured]:
        names = np.array([item.group for item in items])
        return {str(name): self(np.flatnonzero(names == name)) for name in np.unique(names) if name}

    def leak(self, where: str, ids: Sequence[str], items: Sequence[Item]) -> Leak:
        known = set(ids)
        inside = np.array([item.id in known for item in items])
        return Leak(where=where, items=ids, inside=self(np.flatnonzero(inside)), outside=self(np.flatnonzero(~inside)))


def _lines(
    task: Task, items: Sequence[Item], predicted: np.ndarray, logs_nk: np.ndarray, found: dict[str, Sequence[str]]
) -> Iterator[bytes]:
    """A line of JSON for each item."""
    inside = {where: set(ids) for where, ids in found.items()}
    for item, label, logs in zip(items, predicted.tolist(), logs_nk, strict=True):
        options = len(item.options) or len(task.labels)
        values = {
            "id": item.id, "place": item.place, "group": item.group,
            "label": task.labels[item.label] if not item.options else item.label,
            "prediction": task.labels[label] if not item.options else label,
            "right": label == item.label,
            "probabilities": [round(float(value), 6) for value in np.exp(logs[:options])],
            "stands_in": [where for where, ids in inside.items() if item.id in ids],
        }  # fmt: skip
        yield (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _out_of_memory() -> DeviceError:
    return DeviceError("the device has not enough memory for this model", hint="Give --batch-size 1, or --device cpu.")
