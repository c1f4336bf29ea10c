"""The networks of preference learning: a reward model, and a policy that learns by DPO.

In: a causal model of `transformers` with the weights that a run begins with. Out: the family's class for sequence
classification with one score, or the causal model itself; both with a `forward` for batches of `RankingCollator`, and
saved under the family's own class names.
Invariants: the loss of a question is the mean over its pairs (Ouyang et al., 2022, section 3.5), that of a step the
mean over its questions; padding has no part in it; at the first step both losses are log 2, because the score's weights
are zero, and the policy is its own reference.
Cost: one pass over each answer.
"""

# Shape suffixes: n questions, s sequences, p pairs, t tokens of a sequence, d width, m tokens of answers, v vocabulary.
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from corpus.pipeline.workspace.layout import REWARD_SHIFT
from corpus.train.data.collate import IGNORED
from corpus.train.model.heads import classifier, classifier_class, last_states

_HEAD = "a score"


def preference_loss(
    scores_s: Tensor, better_p: Tensor, worse_p: Tensor, owners_p: Tensor, labels_n: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:  # fmt: skip
    """Negative log-likelihood of the pairs under Bradley and Terry's model: the mean over the pairs of a question,
    summed over questions through their number.
    """
    losses_p = -functional.logsigmoid(scores_s[better_p].float() - scores_s[worse_p].float())
    pairs_n = torch.bincount(owners_p, minlength=len(labels_n))
    known_n = labels_n != IGNORED
    weights_p = known_n[owners_p] / pairs_n[owners_p]
    divisor = known_n.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    total: Tensor = (losses_p * weights_p).sum() / divisor
    return total


class RewardForward:
    """The forward pass of a reward model; a class of `transformers` stands beside it."""

    accepts_loss_kwargs = True
    base_model: Any
    score: nn.Linear

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, better: Tensor | None = None, worse: Tensor | None = None,
        owners: Tensor | None = None, labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None, **_: Any,
    ) -> SequenceClassifierOutput:  # fmt: skip
        """Logits [s, 1] at the last token before the padding, and the loss where pairs are given."""
        states_std = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        logits_s1 = self.score(last_states(states_std, attention_mask))
        loss = None
        if better is not None and worse is not None and owners is not None and labels is not None:
            loss = preference_loss(logits_s1[:, 0], better, worse, owners, labels, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits_s1)


class DPOForward:
    """The forward pass of a policy (Rafailov et al., 2023, equation 7); its causal class stands beside it."""

    accepts_loss_kwargs = True
    beta = 0.1

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, in_answer: Tensor | None = None,
        reference: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **others: Any,
    ) -> Any:  # fmt: skip
        """The log-probability of each answer [s] as `logits`, and the loss; without `in_answer` as the causal class."""
        ordinary: Any = super()
        if in_answer is None or input_ids is None or attention_mask is None:
            return ordinary.forward(input_ids=input_ids, attention_mask=attention_mask, **others)
        logits_stv = ordinary.forward(
            input_ids=input_ids[:, :-1], attention_mask=attention_mask[:, :-1], use_cache=False
        ).logits
        target_st = in_answer[:, 1:]
        nats_m = functional.cross_entropy(logits_stv[target_st].float(), input_ids[:, 1:][target_st], reduction="none")
        rows_m = target_st.nonzero()[:, 0]
        logs_s = nats_m.new_zeros(len(input_ids)).index_add(0, rows_m, -nats_m)
        pairs = (others["better"], others["worse"], others["owners"], others["labels"])
        rewards_s = self.beta * (logs_s - (0 if reference is None else reference))
        return SequenceClassifierOutput(loss=preference_loss(rewards_s, *pairs, num_items_in_batch), logits=logs_s)


def reward(causal: Any, *, pad: int) -> Any:
    """A reward model on a causal model, which it takes over; all scores are 0.

    Raises:
        ModelError: `transformers` has no class for sequence classification in this family.

    """
    setattr(causal.config, REWARD_SHIFT, 0.0)
    network = classifier(causal, RewardForward, names=("score",), pad=pad, what=_HEAD)
    nn.init.zeros_(network.score.weight)
    return network


def reward_class(config: Any) -> Any:
    """The family's class for sequence classification, with our forward pass.

    Raises:
        ModelError: as `heads.classifier_class`.

    """
    return classifier_class(config, RewardForward, what=_HEAD)


def policy(causal: Any, *, beta: float) -> Any:
    """The causal model itself, with DPO's loss."""
    base = type(causal)
    causal.__class__ = type(base.__name__, (DPOForward, base), {"__module__": base.__module__})
    causal.beta = beta
    return causal
