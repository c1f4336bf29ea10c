"""The objective `dpo`: rankings in, a policy out (Rafailov et al., 2023).

In: `ranking/*` and the model to start from, which is the reference. Out: an `Objective`; the saved model is an ordinary
causal one.
Invariants: the reference's log-probabilities are computed once, before the first step, and kept in the run's folder
under a digest of model and rankings; an interrupted computation goes on where it was; no second network is in memory.
Cost: one pass over each answer before training; then as `preferences`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.files import disk_errors, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.train import networks
from corpus.train.config import TrainConfig
from corpus.train.objective import Figure, Passes, Result
from corpus.train.preferences import card, figures, predict
from corpus.train.preferences import networks as heads
from corpus.train.preferences.batches import RankingItem, RankingItems
from corpus.train.run.preferences import Preferences, margins, rounded
from corpus.train.run.samples import Samples

REFERENCE = "reference"
"""Folder of the reference's log-probabilities in that of the run."""
_SAVED_PASSES = 64
_DIGITS = 16


class DPOObjective(Preferences):
    """A policy that makes better answers likelier than worse ones, held to the model that it starts from.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError: as `Preferences`.

    """

    decides = Figure("dpo_loss")
    curve: Mapping[str, str] = {"figure": "loss", "title": "nats a pair", "loss": "nats a pair"}
    deciding = "loss"

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> None:
        super().__init__(config, workspace, progress)
        self.settings = dict(self.settings) | {"beta": config.beta}
        self._model_digests = [workspace.digest(path) for path in networks.files(config)]

    def network(self) -> Any:
        """The model that the run starts from, with DPO's loss."""
        self.made = heads.policy(self.causal(), beta=self.config.beta)
        return self.made

    def sketch(self) -> Any:
        """The same without weights."""
        return heads.policy(networks.sketch(self.config, self.shape), beta=self.config.beta)

    # --- the reference ------------------------------------------------------------------------------------------------

    def begin(self, folder: Path, model: Any, passes: Passes) -> None:
        """Compute the reference's log-probabilities of all answers, or read those of an earlier start."""
        named = [entry.sha256 for entry in self.inputs] + self._model_digests + [passes.precision]
        place = folder / REFERENCE / hashlib.sha256(" ".join(named).encode()).hexdigest()[:_DIGITS]
        if passes.rank == 0 and place.parent.is_dir():
            with disk_errors(place):
                for other in place.parent.iterdir():
                    if other != place:
                        shutil.rmtree(other, ignore_errors=True)
        sets = {"train": self.train}
        sets |= {f"validation-{name}": items for name, items in self.validation.items()}
        sets |= {f"test-{name}": items for name, items in self.test.items()}
        for name, items in sets.items():
            file = place / f"{name}-{passes.rank}-of-{passes.world}.npy"
            own = self._computed(model, items, file, passes)
            items.reference = passes.add(own) if passes.world > 1 else own

    def _computed(self, model: Any, items: RankingItems, file: Path, passes: Passes) -> np.ndarray:
        """[all answers] the log-probabilities of this process's questions, 0 for others."""
        mine = np.arange(len(items))[passes.rank :: passes.world]
        values = _read(file, int(items.counts.sum()))
        missing = mine[np.isnan(values[items.starts[mine]])]
        if len(missing):
            with self.progress.bar(f"reference: {file.stem}", len(missing), "questions"):
                self._compute(model, items, file, passes, missing=missing, values=values)
        known: np.ndarray = np.nan_to_num(values)
        return known

    def _compute(
        self, model: Any, items: RankingItems, file: Path, passes: Passes, *, missing: np.ndarray, values: np.ndarray
    ) -> None:
        done = 0

        def keep(places: Sequence[int], given: np.ndarray) -> None:
            nonlocal done
            numbers = missing[list(places)]
            for number, own in zip(numbers, np.split(given, np.cumsum(items.counts[numbers])[:-1]), strict=True):
                values[items.starts[number] : items.starts[number] + items.counts[number]] = own
            done += 1
            self.progress.advance(len(places))
            if done % _SAVED_PASSES == 0:
                _write(file, values)

        predict.answers(
            model, items, missing, collator=self.collator, tokens=self.pass_tokens(passes), precision=passes.precision,
            done=keep,
        )  # fmt: skip
        _write(file, values)

    # --- measuring ----------------------------------------------------------------------------------------------------

    def judged(self, items: Sequence[RankingItem], values: Sequence[np.ndarray]) -> dict[str, Any]:
        """Loss, accuracy and margin of the implicit rewards; log-probabilities of better and worse answers, and those
        under the reference, as means over pairs.
        """
        rewards = [self.config.beta * (own - item.reference) for item, own in zip(items, values, strict=True)]
        more, not_longer = margins(items, rewards)
        found = figures.of_margins(more, not_longer) | {"margin": float(more.mean())}
        for name, each in (("", values), ("_reference", [item.reference for item in items])):
            pairs = [own[item.pairs] for item, own in zip(items, each, strict=True)]
            chosen, rejected = np.concatenate(pairs).mean(axis=0).tolist()
            found |= {f"chosen{name}": chosen, f"rejected{name}": rejected}
        return rounded(found)

    def samples(self, model: Any) -> Iterator[Mapping[str, str]]:
        """Answers to the prompts."""
        samples = Samples(self.config.sample_prompts, self.tokenizer, chat=True, context=self.seq_length)
        return samples.write(model, self.config.seed)

    def documents(self, result: Result) -> Mapping[str, bytes]:
        """The model card."""
        return {"README.md": card.dpo(result).encode()}


def _read(file: Path, size: int) -> np.ndarray:
    """[answers] what was computed before; NaN for the rest."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        values = np.load(file, allow_pickle=False)
        if values.shape == (size,) and values.dtype == np.float64:
            return np.asarray(values)
    return np.full(size, np.nan)


def _write(file: Path, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_atomic(file, buffer.getvalue())
