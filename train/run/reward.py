"""The objective `reward`: rankings in, a network with one score out (Ouyang et al., 2022, section 3.5).

In: `ranking/*` and the model to start from, or none: then a network with random weights. Out: an `Objective`; the
saved model opens with `AutoModelForSequenceClassification`.
Invariants: a score is the logit less `reward_shift` of the saved configuration, so that demonstrations, the best
answers of the training questions, have a mean score of 0.
Cost: as `preferences`; each saved model costs a pass over `DEMONSTRATIONS` answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.workspace.layout import REWARD_SHIFT
from corpus.train import networks
from corpus.train.config import TrainConfig
from corpus.train.evaluation.metrics import spread
from corpus.train.objective import Figure, Result
from corpus.train.preferences import card, figures, pictures, predict
from corpus.train.preferences import networks as heads
from corpus.train.preferences.batches import RankingItem
from corpus.train.run.preferences import Preferences, margins, rounded

DEMONSTRATIONS = 256
"""Best answers of training questions by which scores are shifted, spread evenly over them."""
_ROWS = 8


class RewardObjective(Preferences):
    """A reward model.

    Raises:
        WorkspaceError, TokenizerError, DamageError, TrainError: as `Preferences`.

    """

    config: TrainConfig
    decides = Figure("accuracy", larger_is_better=True)
    curve: Mapping[str, str] = {"figure": "accuracy", "title": "share of pairs that are right", "loss": "nats a pair"}
    deciding = "accuracy"

    def network(self) -> Any:
        """A reward model whose scores are all 0."""
        self.made = heads.reward(self.causal(), pad=self.shape.pad)
        return self.made

    def sketch(self) -> Any:
        """The same without weights."""
        return heads.reward(networks.sketch(self.config, self.shape), pad=self.shape.pad)

    def judged(self, items: Sequence[RankingItem], values: Sequence[np.ndarray]) -> dict[str, Any]:
        """Accuracy, also where the better answer is not the longer one, loss, and calibration."""
        more, not_longer = margins(items, values)
        bins = figures.calibration(more)
        found = figures.of_margins(more, not_longer) | {"calibration_error": figures.calibration_error(bins)}
        return rounded(found) | {"calibration": bins}

    def shift(self) -> float:
        """Mean logit of demonstrations."""
        training, found = self.made.training, []
        chosen = spread(len(self.train), DEMONSTRATIONS)
        chosen = chosen[np.argsort(-self.train.lengths[chosen], kind="stable")]
        self.made.eval()
        for first in range(0, len(chosen), _ROWS):
            best = [
                RankingItem(item.question, item.answers[:1], np.zeros((1, 2), np.int64), np.zeros(1))
                for item in self.train.__getitems__(chosen[first : first + _ROWS])
            ]
            found.append(predict.of_items(self.made, best, self.collator, "fp32"))
        self.made.train(training)
        return float(f"{np.concatenate(found).mean():.6g}")

    def save(self, folder: Path) -> None:
        """Write the tokenizer, and the shift of the scores into the configuration."""
        super().save(folder)
        path = folder / "config.json"
        values = json.loads(path.read_bytes()) | {REWARD_SHIFT: self.shift()}
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def documents(self, result: Result) -> Mapping[str, bytes]:
        """The model card, and the calibration of the best evaluation."""
        drawn = {}
        best = result.counts["best"]
        if best:
            bins = {name: found["calibration"] for name, found in best["validation"].items()}
            drawn = {"calibration.png": pictures.calibration(bins, title=f"validation, step {best['step']:,}")}
        return drawn | {"README.md": card.reward(result).encode()}
