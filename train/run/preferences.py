"""What the objectives `reward`, `dpo` and `ppo` share: rankings in; of the first two comparisons out.

In: `ranking/*`, the workspace's tokenizer, the configuration. Out: the items, and what a network says of each answer.
Invariants: rankings belong to the workspace's tokenizer; the pairs of a question are in one pass, and its loss is their
mean; test questions are measured once, with the weights of the last step, which nothing was chosen by.
Cost: reads the lengths of all rankings; an evaluation is one pass over each answer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.errors import TrainError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.layout import RANKING, Workspace
from corpus.pipeline.workspace.ledger import LEDGER
from corpus.train import networks
from corpus.train.config import TrainConfig
from corpus.train.evaluation.metrics import spread
from corpus.train.objective import ItemObjective, Passes
from corpus.train.preferences import floors, predict
from corpus.train.preferences.batches import RankingCollator, RankingItem, RankingItems
from corpus.train.run import packed

_EVALUATIONS = 10


class Rankings(ItemObjective):
    """Rankings of the answers to questions.

    Raises:
        WorkspaceError: no dataset has rankings, or not the one asked for.
        TokenizerError: rankings were made with another tokenizer than the workspace's.
        DamageError: a file of rankings is not what its ledger says.
        TrainError: there are no questions to train on.

    """

    noun = "questions"
    train: Any
    validation: Mapping[str, Any]
    test: Mapping[str, Any]
    collator: Any

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> None:
        self.config = config if config.dropout is not None else replace(config, dropout=0.0)
        self.progress = progress
        ledgers = packed.ledgers(config, workspace, RANKING, progress)
        vocabulary = packed.vocabulary(workspace)
        packed.check_tokenizers(ledgers, workspace, RANKING)
        splits = {name: open_rows(workspace.root / RANKING / name) for name in ledgers}
        there = [rows["train"] for rows in splits.values() if "train" in rows]
        if not there:
            raise TrainError(
                f"{', '.join(splits)}: there is no question to train on",
                hint="All are in validation or test: state a smaller validation_share in the manifest.",
            )
        self.train = RankingItems(there)
        self.validation, self.test = (
            {name: RankingItems([rows[split]]) for name, rows in splits.items() if split in rows}
            for split in ("validation", "test")
        )
        self.rows = {name: len(rows["train"]) for name, rows in splits.items() if "train" in rows}
        self.tokens, self.lengths = self.train.tokens, self.train.lengths
        self.most_sequences = self.train.most_sequences
        every = [self.train, *self.validation.values(), *self.test.values()]
        self.seq_length = max(items.longest for items in every)
        self.inputs = [workspace.file_digest(workspace.root / RANKING / name / LEDGER) for name in ledgers]
        self.inputs += [workspace.file_digest(workspace.tokenizer / "tokenizer.json")]
        self.tokenizer = workspace.tokenizer
        longest = max(int(ledger.config["seq_length"]) for ledger in ledgers.values())
        self.shape = networks.Shape(
            vocab_size=vocabulary.get_vocab_size(), seq_length=self.seq_length if config.init else longest,
            separator=packed.special(vocabulary, special_tokens.SEPARATOR),
            pad=packed.special(vocabulary, special_tokens.PAD),
        )  # fmt: skip
        self.collator = RankingCollator(self.shape.separator, self.shape.pad)
        self.settings = {
            "datasets": sorted(config.datasets) or list(ledgers), "seq_length": self.seq_length,
            "vocab_size": self.shape.vocab_size, "dropout": self.config.dropout,
        }  # fmt: skip
        self.name = config.objective
        self.made: Any = None
        """The network of the run, once it was made."""

    def causal(self) -> Any:
        """The model that the run starts from, or a new one."""
        return networks.make(self.config, self.shape, self.tokenizer / "tokenizer.json")

    def eval_steps(self, steps: int, batch_size: int) -> int | None:
        """About ten evaluations in a run, and at most an eighth of its time."""
        affordable = self.affordable(self.config.eval_rows or 0, batch_size)
        return max(1, min(steps, max(math.ceil(steps / _EVALUATIONS), affordable)))

    def alone(self) -> Passes:
        """Passes of the first process without the others, for what is measured once at the end."""
        return Passes(rank=0, world=1, rows=1, precision="fp32", add=lambda sums: sums)

    def save(self, folder: Path) -> None:
        """Write the tokenizer, which puts the separator before a text."""
        for name, content in files.of_model(self.tokenizer).items():
            (folder / name).write_bytes(content)


class Preferences(Rankings):
    """An objective that learns from comparisons.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError: as `Rankings`.

    """

    train: RankingItems
    validation: Mapping[str, RankingItems]
    test: Mapping[str, RankingItems]
    collator: RankingCollator

    # --- measuring ----------------------------------------------------------------------------------------------------

    def evaluate(self, model: Any, passes: Passes) -> dict[str, Any]:
        """The figures of the validation questions, `<dataset>/<figure>`, and the mean of the one that decides."""
        found: dict[str, Any] = {}
        deciding = []
        for name, items in self.validation.items():
            own = self.measured(model, items, passes)
            found |= {f"{name}/{figure}": value for figure, value in own.items()}
            deciding.append(own[self.deciding])
        return found | {self.decides.name: float(np.mean(deciding))} if deciding else {}

    @property
    @abstractmethod
    def deciding(self) -> str:
        """The figure of a dataset whose mean decides."""

    @abstractmethod
    def judged(self, items: Sequence[RankingItem], values: Sequence[np.ndarray]) -> dict[str, Any]:
        """Figures of questions, from what the network says of each of their answers."""

    def measured(self, model: Any, items: RankingItems, passes: Passes) -> dict[str, Any]:
        """Figures of one dataset; every process must call it."""
        chosen = spread(len(items), self.config.eval_rows or 0)
        own = np.arange(len(chosen))[passes.rank :: passes.world]
        given = predict.answers(
            model, items, chosen[own], collator=self.collator, tokens=self.pass_tokens(passes),
            precision=passes.precision,
        )  # fmt: skip
        counts = items.counts[chosen]
        ends = np.cumsum(counts)
        flat = np.zeros(int(ends[-1]))
        for place, values in zip(own.tolist(), given, strict=True):
            flat[ends[place] - counts[place] : ends[place]] = values
        flat = passes.add(flat) if passes.world > 1 else flat
        return self.judged(items.__getitems__(chosen), np.split(flat, ends[:-1]))

    # --- what is written ----------------------------------------------------------------------------------------------

    def counts(self) -> Mapping[str, Any]:
        """Questions and pairs by split, the figures of the test questions, and the floors."""
        splits = {"train": [self.train], "validation": [*self.validation.values()], "test": [*self.test.values()]}
        held_out = {"validation": self.validation, "test": self.test}
        self.progress.say("test questions and floors ...")
        return {
            "questions": {split: sum(map(len, every)) for split, every in splits.items() if every},
            "test": {name: self.measured(self.made, items, self.alone()) for name, items in self.test.items()},
            "floors": floors.of_splits(self.train, held_out, packed_text(self.tokenizer)),
        }


def packed_text(tokenizer: Path) -> Any:
    """A function that decodes ids, as far as they are text."""
    model = files.load(tokenizer)

    def decode(sequences: Sequence[np.ndarray]) -> list[str]:
        return list(model.decode_batch([ids.tolist() for ids in sequences], skip_special_tokens=True))

    return decode


def margins(items: Sequence[RankingItem], values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """[pairs] by how much the better answer has more, and whether it is not the longer one, in tokens."""
    more, not_longer = [np.zeros(0)], [np.zeros(0, np.bool_)]
    for item, own in zip(items, values, strict=True):
        better, worse = item.pairs.T
        lengths = np.array([len(ids) for ids in item.answers])
        more.append(own[better] - own[worse])
        not_longer.append(lengths[better] <= lengths[worse])
    return np.concatenate(more), np.concatenate(not_longer)


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures to six digits, which is what single precision holds."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}
