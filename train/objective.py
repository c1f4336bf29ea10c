"""What a run is for: the wall between the stage of training and the ways to train.

The stage (`train.run`) knows order, steps, checkpoints, metrics, folder and ledger. An objective brings the rest: the
items to train on and their validation sets, the batch, the network with its loss, the evaluation, and the documents
that a finished run shows. `train.run.packed_rows` has the objectives `text` and `sft`, `train.tasks.objective` has
`task`, `train.run.reward`, `train.run.dpo` and `train.run.ppo` have `reward`, `dpo` and `ppo`;
`train.run.objectives` chooses.

Invariants: an objective is made before anything is written, and is the same in every process of a run; its loss is the
one that its network's `forward` returns, summed over the labels of a pass and divided by `num_items_in_batch`, the
labels of the whole step. One that takes optimizer steps of its own (`takes_steps`) leaves the gradients of the last
one.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corpus.pipeline.workspace.ledger import FileDigest
from corpus.train.data.sampler import Order
from corpus.train.model.device import Device
from corpus.train.model.memory import FORWARD_SHARE, step_memory

PASS_TOKENS = 1024
"""Tokens that stand for a row where a device limits the rows of a pass: that of packed documents."""
_EVALUATION_SHARE = 1 / 8


class Items(Protocol):
    """Things to train or measure on, by number."""

    def __len__(self) -> int:
        """How many."""

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> Any:
        """Those with these numbers, in this order, as the objective's collator takes them; none for no numbers."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The figure of an evaluation that decides which model is the best, and whether the run stops early."""

    name: str
    """Its key in `metrics.jsonl`."""
    larger_is_better: bool = False

    def best(self, values: Sequence[float]) -> int:
        """Place of the first best value."""
        return values.index(max(values) if self.larger_is_better else min(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """How an evaluation is carried out: the share of this process, and the passes."""

    rank: int
    world: int
    rows: int
    """Most items of a pass."""
    precision: str
    """`fp32` or `bf16`."""
    add: Callable[[np.ndarray], np.ndarray]
    """Sums an array of float64 over all processes; every process must call it."""


class Learner(Protocol):
    """What a step of the run offers to an objective that takes optimizer steps of its own."""

    step: int
    """Steps of the run before this one."""
    passes: Passes

    def learn(self, inputs: Mapping[str, Any], *, weight: float = 1.0, is_last: bool) -> Any:
        """A forward pass, and a backward pass from its loss times `weight`; it gives what the network gave.

        In the last pass before an optimizer step, every process's, gradients are averaged over all processes. It must
        use every parameter.
        """

    def update(self) -> None:
        """An optimizer step; not the last one of a step of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A run that has ended, for the documents that show it."""

    name: str
    """The run's name."""
    settings: Mapping[str, Any]
    inputs: Sequence[FileDigest]
    counts: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    """The lines of `metrics.jsonl`."""


class Objective(abc.ABC):
    """One way to train. The attributes are set when it is made."""

    decides: Figure
    name: str
    """What a run's name begins with where none is given."""
    noun: str = "rows"
    """What a step is made of."""
    train: Items
    rows: Mapping[str, int]
    """Training items of each dataset, in their order in `train`."""
    tokens: np.ndarray
    """[items] tokens of each training item, padding left out."""
    lengths: np.ndarray | None = None
    """[items] tokens to which each training item is padded; None where all have the same, or the order tells."""
    shards: Sequence[int] | None = None
    """Training items of each shard, in their order, with the shuffle `block`."""
    validation: Mapping[str, Items]
    """Validation items by dataset; a dataset without any is left out."""
    seq_length: int
    """Tokens of the longest item."""
    settings: Mapping[str, Any]
    """What it adds to the ledger's `config`."""
    inputs: Sequence[FileDigest]
    """What the run is made from, the model that it starts from left out."""
    collator: Callable[[Any], dict[str, Any]]
    """Makes a batch of what `Items` gives; of nothing a batch without labels."""
    curve: Mapping[str, str]
    """What the picture of the curves shows of the evaluations, as `run.curves.picture` takes it."""
    takes_steps: bool = False
    """Whether a process has all its items of a step at once, and `learn` in place of a loss."""
    shown: Sequence[str] = ()
    """The figures of `step_figures` that stand beside the loss while a run goes on."""
    work: float = 1.0
    """Training passes that an item takes in a step of the run, whatever else is done included."""

    @property
    def row_tokens(self) -> float:
        """Tokens of an item as a step is described, and its time and FLOPs are estimated."""
        return self.seq_length

    @abc.abstractmethod
    def network(self) -> Any:
        """The network with the weights that the run begins with: a `PreTrainedModel` whose `forward` gives the loss."""

    @abc.abstractmethod
    def sketch(self) -> Any:
        """The network without weights, to count by; called under `torch.device("meta")`."""

    def check(self, model: Any) -> None:
        """Refuse a network that would learn wrongly, before anything is written."""
        del model

    def begin(self, folder: Path, model: Any, passes: Passes) -> None:
        """Compute what training needs of the network as it is before the first step, and keep it in the run's folder.

        A resumed run calls it, too, before the weights of its checkpoint are there.
        """
        del folder, model, passes

    def follow(self, order: Order, workers: int) -> None:
        """Learn in which order items are read, and by how many processes that make batches; refuse what cannot be."""
        del order, workers

    def reading(self, first: int) -> contextlib.AbstractContextManager[Any]:
        """In it training items are read, from this step on."""
        del first
        return contextlib.nullcontext()

    def eval_steps(self, steps: int, batch_size: int) -> int | None:
        """Steps between two evaluations where no flag says it; None for the stage's own choice."""
        del steps, batch_size
        return None

    def most_rows(self, device: Device) -> int:
        """Largest useful number of items in a pass."""
        return device.most_rows

    def timed(self, rows: Sequence[int] | np.ndarray) -> Mapping[str, Any]:
        """The batch of these items as a training pass has it, to be timed."""
        return self.collator(self.train.__getitems__(rows))

    def learn(self, learner: Learner, inputs: Mapping[str, Any]) -> Any:
        """A step of an objective with `takes_steps`, on this process's items: its loss, the same in all processes.

        The gradients of the last optimizer step are left to the Trainer.
        """
        raise NotImplementedError

    def step_figures(self) -> Mapping[str, float]:
        """Means over the steps since the last call, for the line that logs the loss."""
        return {}

    def saved(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        """In it the network has what a saved model has, and not what training alone needs."""
        return contextlib.nullcontext(model)

    def fixed_parts(self, model: Any, *, precision: str) -> Mapping[str, int]:
        """Bytes of each network whatever the rows of a pass, where there are several."""
        del model, precision
        return {}

    def memory(self, model: Any, *, precision: str, checkpointing: bool, one_moment: int) -> tuple[int, int]:
        """Estimated bytes of a training step: the fixed part, and what each item of a pass adds.

        `one_moment` weights have one moment in the optimizer, the others two.
        """
        return step_memory(
            model, seq_length=self.seq_length, precision=precision, checkpointing=checkpointing, one_moment=one_moment
        )

    @abc.abstractmethod
    def evaluate(self, model: Any, passes: Passes) -> dict[str, Any]:
        """Figures of the validation sets, `<dataset>/<figure>`, and the one that decides; empty where nothing counts.

        Training or evaluation mode of the model is restored, and so is the random state.
        """

    def samples(self, model: Any) -> Iterator[Mapping[str, str]]:  # noqa: ARG002  # for those that write some
        """Lines of `samples.jsonl` for an evaluation."""
        return iter(())

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write what belongs beside the weights: the tokenizer, and what the network is read with."""

    def counts(self) -> Mapping[str, Any]:
        """What it adds to the ledger's `counts`."""
        return {}

    def notes(self) -> Sequence[str]:
        """Remarks for the user, before and after the run."""
        return ()

    @abc.abstractmethod
    def documents(self, result: Result) -> Mapping[str, bytes]:
        """Files of a finished run by name: pictures and the model card."""


class ItemObjective(Objective):
    """An objective over items of different length, each of one or several sequences."""

    most_sequences: int
    """Most sequences of an item."""

    @property
    def row_tokens(self) -> float:
        """The mean of the training items."""
        return float(self.tokens.mean())

    def most_rows(self, device: Device) -> int:
        """As many items as hold the tokens of the useful packed rows; nine items in ten are not longer than `usual`.

        On a CPU as many as hold those of one: a smaller pass computes as fast there, and less of it is padding.
        """
        usual = float(np.percentile(self.tokens, 90))
        return max(1, int((1 if device.kind == "cpu" else device.most_rows) * PASS_TOKENS / usual))

    def pass_tokens(self, passes: Passes) -> int:
        """Most tokens of a pass of an evaluation, padding included."""
        return max(passes.rows * round(self.row_tokens), PASS_TOKENS)

    def memory(self, model: Any, *, precision: str, checkpointing: bool, one_moment: int) -> tuple[int, int]:
        """Those of an item with the most sequences, each as long as the longest."""
        fixed, sequence = super().memory(model, precision=precision, checkpointing=checkpointing, one_moment=one_moment)
        return fixed, sequence * self.most_sequences

    def affordable(self, limit: int, batch_size: int) -> int:
        """Steps between two evaluations, of at most `limit` items a set (0: all), that take an eighth of the run."""
        measured = sum(min(len(items), limit or len(items)) for items in self.validation.values())
        return math.ceil(measured * FORWARD_SHARE / _EVALUATION_SHARE / batch_size)
