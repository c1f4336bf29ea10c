"""What the Trainer does for an objective that takes several optimizer steps in one step of the run.

In: passes with their inputs. Out: gradients, and steps of the optimizer.
Invariant: in a run of several processes gradients are summed over them in the last pass before an optimizer step, so
processes may have different numbers of passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from corpus.train.objective import Passes


class TrainerLearner:
    """A step of a run; `model` is the network as the Trainer wraps it."""

    def __init__(self, trainer: Any, model: Any) -> None:
        self._trainer, self._model = trainer, model
        self.step: int = trainer.state.global_step
        self.passes: Passes = trainer.passes()

    def learn(self, inputs: Mapping[str, Any], *, weight: float = 1.0, is_last: bool) -> Any:
        """A forward pass, and a backward pass from its loss times `weight`."""
        accelerator = self._trainer.accelerator
        with contextlib.nullcontext() if is_last else accelerator.no_sync(self._model):
            with self._trainer.compute_loss_context_manager():
                output = self._model(**inputs)
            accelerator.backward(output.loss * weight)
        return output

    def update(self) -> None:
        """A step of the optimizer with the gradients of the passes so far; the Trainer takes the last one itself."""
        trainer = self._trainer
        if trainer.args.max_grad_norm > 0:
            trainer.accelerator.clip_grad_norm_(self._model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        self._model.zero_grad()
