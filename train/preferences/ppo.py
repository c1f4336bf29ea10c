"""Proximal policy optimization of a policy that writes answers (Schulman et al., 2017; Ouyang et al., 2022).

In: prompts, a policy with its value model, the networks that judge, and where given rows of the pre-training data. Out:
gradients, optimizer steps between them, and the figures of a step.
Invariants: an episode is drawn by seed, step and its number in the step, whichever process has it; advantages are
whitened over all tokens of a step; the loss of an optimizer step is a mean over its tokens, over all processes; before
the first optimizer step every ratio is exactly 1, and with the reference's weights every log-ratio exactly 0.
Cost: the rollouts, a forward pass of four networks, and for each inner epoch a training pass of two.
"""

# Shape suffixes: n episodes of this process, t places of a sequence.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from corpus.train.data.collate import IGNORED
from corpus.train.data.sampler import permutation
from corpus.train.model.sampling import row_seed
from corpus.train.objective import Learner, Passes
from corpus.train.preferences import episodes as play
from corpus.train.preferences import rollouts
from corpus.train.preferences.actor_critic import VALUE_COEF
from corpus.train.preferences.advantages import advantages, divergence, rewards, whitened
from corpus.train.preferences.episodes import Episodes, Judges
from corpus.train.preferences.rollouts import Limits

_SHUFFLES = 1 << 16
"""Streams of random numbers from here on shuffle the episodes of inner epochs; those below order the prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a policy learns from its episodes."""

    kl_coef: float
    """Weight of the divergence from the reference in a token's reward."""
    missing_end_penalty: float
    """What an answer without an end loses of its score."""
    inner_epochs: int
    """How often each episode is learnt from."""
    minibatches: int
    """Optimizer steps of an inner epoch."""
    ptx_coef: float
    """Weight of the loss on pre-training rows."""
    seed: int


class Pretraining(Protocol):
    """The rows that are learnt beside the episodes."""

    def batches(self, epoch: int, episodes: np.ndarray, rows: int) -> Sequence[Mapping[str, Any]]:
        """Batches of at most `rows` rows: those that belong to episodes of a step, in one of the run's inner epochs."""


def played(
    policy: Any, judges: Judges, prompts: Sequence[np.ndarray], seeds: Sequence[int], limits: Limits, passes: Passes,
    *, with_values: bool = True,
) -> tuple[Episodes, float]:  # fmt: skip
    """Episodes of these prompts, judged.

    Beside them the sum over their tokens by how far the log-probabilities are from those that they were drawn with:
    rounding, unless sampling and training read a sequence differently.
    """
    answers = rollouts.write(policy, prompts, seeds, limits, precision=passes.precision)
    found = play.lay(prompts, [answer.ids for answer in answers], separator=limits.separator, pad=judges.pad)
    play.judge(
        found, policy, judges, banned=limits.banned, rows=passes.rows, precision=passes.precision,
        with_values=with_values,
    )  # fmt: skip
    drawn = np.concatenate([np.zeros(0), *(answer.logs for answer in answers)])
    return found, float(np.abs(found.logs_nt[found.written_nt] - drawn).sum())


def outcome(episodes: Episodes, settings: Settings) -> dict[str, np.ndarray]:
    """[n] figures of each episode; rows that are no episodes are left out."""
    kl_n, k3_n = divergence(episodes.logs_nt, episodes.reference_nt, episodes.written_nt)
    found = {
        "score": episodes.scores_n, "reward": _rewarded(episodes, settings), "kl": kl_n, "kl_k3": k3_n,
        "length": episodes.lengths_n.astype(np.float64), "ended": episodes.ended_n.astype(np.float64),
    }  # fmt: skip
    return {name: values[episodes.real_n] for name, values in found.items()}


def learn(
    learner: Learner, policy: Any, judges: Judges, prompts: Sequence[np.ndarray], limits: Limits, settings: Settings,
    pretraining: Pretraining | None = None,
) -> tuple[float, dict[str, float]]:  # fmt: skip
    """Play this process's prompts of a step and learn from them: the loss, and the figures of all processes' episodes.

    The gradients of the last optimizer step are left.
    """
    passes = learner.passes
    add: Callable[[np.ndarray], np.ndarray] = passes.add if passes.world > 1 else lambda sums: sums
    counts = np.zeros(passes.world)
    counts[passes.rank] = len(prompts)
    counts = add(counts)
    first, total = int(counts[: passes.rank].sum()), int(counts.sum())
    seeds = [row_seed(settings.seed, learner.step, first + place) for place in range(len(prompts))]
    episodes, gap = played(policy, judges, prompts, seeds, limits, passes)
    rewards_nt = rewards(
        episodes.logs_nt, episodes.reference_nt, episodes.written_nt, _rewarded(episodes, settings),
        kl_coef=settings.kl_coef,
    )  # fmt: skip
    advantages_nt = advantages(rewards_nt, episodes.values_nt, episodes.written_nt)
    lesson = _Lesson(
        learner=learner, episodes=episodes, first=first, returns_nt=advantages_nt + episodes.values_nt,
        advantages_nt=whitened(advantages_nt, episodes.written_nt, add), blank=_blank(judges), add=add,
        settings=settings, pretraining=pretraining, device=next(policy.parameters()).device,
    )  # fmt: skip
    sums = np.zeros(_Lesson.SUMS)
    rounds = [(epoch, part) for epoch in range(settings.inner_epochs) for part in lesson.parts(epoch, total)]
    for place, (epoch, numbers) in enumerate(rounds):
        sums += lesson.round(epoch, numbers)
        if place < len(rounds) - 1:
            learner.update()
    return _figures(episodes, gap, lesson, add(sums), add)


def _rewarded(episodes: Episodes, settings: Settings) -> np.ndarray:
    """[n] scores, less the penalty of an answer without an end."""
    lacking_n = episodes.real_n & ~episodes.ended_n
    rewarded: np.ndarray = episodes.scores_n - settings.missing_end_penalty * lacking_n
    return rewarded


def _blank(judges: Judges) -> Episodes:
    return play.lay([], [], separator=judges.separator, pad=judges.pad)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lesson:
    """Judged episodes, and what is learnt from them."""

    learner: Learner
    episodes: Episodes
    first: int
    """Number of the first episode of this process among those of the step."""
    advantages_nt: np.ndarray
    returns_nt: np.ndarray
    blank: Episodes
    """Padding: what a process reads in a minibatch without an episode of its own."""
    add: Callable[[np.ndarray], np.ndarray]
    settings: Settings
    pretraining: Pretraining | None
    device: torch.device

    SUMS = 5
    """Numbers that a round gives."""

    def parts(self, epoch: int, total: int) -> list[np.ndarray]:
        """Numbers of the episodes of each optimizer step of an inner epoch, in order."""
        many = min(self.settings.minibatches, total)
        if many == 1:
            return [np.arange(total)]
        shuffled = permutation(total, self.settings.seed, self.learner.step, _SHUFFLES + epoch)
        return [np.sort(part) for part in np.array_split(shuffled, many)]

    def round(self, epoch: int, numbers: np.ndarray) -> np.ndarray:
        """The gradients of an optimizer step; sums of this process: policy, value, clipped, and nats and tokens of
        pre-training rows.
        """
        learner, episodes, rows, device = self.learner, self.episodes, self.learner.passes.rows, self.device
        places = np.flatnonzero(episodes.real_n)
        mine = places[np.isin(self.first + places, numbers)]
        beside = self._pretraining(epoch, self.first + mine, rows)
        tokens, targets = self.add(
            np.array([episodes.written_nt[mine].sum(), sum(_targets(batch) for batch in beside)], np.float64)
        )
        world, sums = learner.passes.world, np.zeros(self.SUMS)
        for batch in beside:
            inputs = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
            given = learner.learn(
                inputs | {"num_items_in_batch": targets / world}, weight=self.settings.ptx_coef, is_last=False
            )
            sums[3:] += given.loss.item() * targets / world, _targets(batch)
        parts = [mine[first : first + rows] for first in range(0, len(mine), rows)]
        if not parts:
            learner.learn(self._inputs(self.blank, slice(None), 1.0), is_last=True)
        for part in parts:
            inputs = self._inputs(episodes, part, tokens / world)
            sums[:3] += learner.learn(inputs, is_last=part is parts[-1]).terms.cpu().double().numpy()
        return sums

    def _pretraining(self, epoch: int, numbers: np.ndarray, rows: int) -> Sequence[Mapping[str, Any]]:
        if self.pretraining is None or not len(numbers):
            return []
        return self.pretraining.batches(self.learner.step * self.settings.inner_epochs + epoch, numbers, rows)

    def _inputs(self, episodes: Episodes, rows: Any, divisor: float) -> dict[str, Any]:
        device = self.device
        inputs = episodes.tensors(rows, device) | {"divisor": divisor}
        if episodes is self.blank:
            nothing = play.of_written(episodes.values_nt, episodes.written_nt, device)
            return inputs | dict.fromkeys(("logs", "values", "advantages", "returns"), nothing)
        written_nt = episodes.written_nt[rows]
        return inputs | {
            "logs": episodes.column("logs_nt", rows, device),
            "values": episodes.column("values_nt", rows, device),
            "advantages": play.of_written(self.advantages_nt[rows], written_nt, device),
            "returns": play.of_written(self.returns_nt[rows], written_nt, device),
        }


def _targets(batch: Mapping[str, Any]) -> int:
    """Tokens that a batch of rows predicts."""
    return int((batch["shift_labels"] != IGNORED).sum())


def _figures(
    episodes: Episodes, gap: float, lesson: _Lesson, learnt: np.ndarray, add: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, dict[str, float]]:
    """The mean loss of a step's optimizer steps, and means over all episodes, or over all their tokens."""
    settings, written_nt = lesson.settings, episodes.written_nt
    own = outcome(episodes, settings)
    returns, errors = lesson.returns_nt[written_nt], (lesson.returns_nt - episodes.values_nt)[written_nt]
    tokens_of = {"entropy": episodes.entropy_nt[written_nt].sum(), "sampling_gap": gap}
    squares = [returns.sum(), (returns**2).sum(), errors.sum(), (errors**2).sum()]
    sums = add(np.array(
        [episodes.real_n.sum(), written_nt.sum(), *(values.sum() for values in own.values()), *tokens_of.values(),
         *squares], np.float64,
    ))  # fmt: skip
    count, tokens, *rest = sums.tolist()
    found = {name: value / max(1.0, count) for name, value in zip(own, rest, strict=False)}
    rest = rest[len(own) :]
    found |= {name: value / max(1.0, tokens) for name, value in zip(tokens_of, rest, strict=False)}
    total, squared, error, squared_error = (value / max(1.0, tokens) for value in rest[len(tokens_of) :])
    spread = squared - total**2
    found["explained_variance"] = 1 - (squared_error - error**2) / spread if spread > 0 else 0.0
    passed = max(1.0, tokens * settings.inner_epochs)
    policy, value, clipped = (learnt[:3] / passed).tolist()
    found |= {"policy_loss": policy, "value_loss": value, "clip_fraction": clipped}
    loss = policy + VALUE_COEF * value
    if lesson.pretraining is not None:
        found["ptx_loss"] = float(learnt[3] / max(1.0, learnt[4]))
        loss += settings.ptx_coef * found["ptx_loss"]
    return loss, found
