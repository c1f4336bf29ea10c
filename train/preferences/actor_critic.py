"""The network that PPO trains: a policy, and a value model beside it.

In: a causal model, and a reward model that the value model begins as. Out: the causal model itself, with a `forward`
for tokens that it wrote, and the value model as its child `critic`.
Invariants: log-probabilities are over the tokens that may be written; without `written` the forward pass is that of the
causal class, so the policy samples, and learns from packed rows, as any other; padding has no part in the loss.
Cost: one pass of each network over each sequence.
"""

# Shape suffixes: s sequences, t tokens of a sequence, m written tokens, v vocabulary; b banned tokens.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

CLIP = 0.2
"""By how much a ratio, and a value, may differ from that of the rollout (Schulman et al., 2017; Stiennon et al.)."""
VALUE_COEF = 0.1
"""Weight of the value model's loss (Huang et al., 2024)."""


@dataclass
class PPOOutput(ModelOutput):  # type: ignore[misc]  # transformers is untyped to us
    """The loss of a pass."""

    loss: Tensor | None = None
    terms: Tensor | None = None
    """[3] sums over the tokens: the policy's loss, the value model's, and how often the clipped ratio decided."""


class PPOForward:
    """The forward pass of policy and value model (Schulman et al., 2017); its causal class stands beside it."""

    accepts_loss_kwargs = True
    critic: Any
    banned_b: Tensor
    shift: float

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, written: Tensor | None = None,
        **others: Any,
    ) -> Any:  # fmt: skip
        """PPO's loss where `written` [s, t] marks tokens, else what the causal class gives.

        With it come `logs`, `advantages`, `values` and `returns` of these tokens [m], in their order, and `divisor`.
        """
        ordinary: Any = super()
        if written is None or input_ids is None or attention_mask is None:
            return ordinary.forward(input_ids=input_ids, attention_mask=attention_mask, **others)
        logs_m, _ = written_logs(ordinary.forward, input_ids, attention_mask, written, self.banned_b)
        values_m = values(self.critic, input_ids, attention_mask, written, shift=self.shift)
        policy, clipped = policy_loss(logs_m, others["logs"], others["advantages"])
        value = value_loss(values_m, others["values"], others["returns"])
        loss = (policy + VALUE_COEF * value) / others["divisor"]
        return PPOOutput(loss=loss, terms=torch.stack([policy, value, clipped]).detach())


def policy(causal: Any, critic: Any, *, banned: tuple[int, ...], shift: float) -> Any:
    """The causal model itself, with PPO's loss; `shift` is what a reward model's logit is more than its score."""
    base = type(causal)
    causal.__class__ = type(base.__name__, (PPOForward, base), {"__module__": base.__module__})
    causal.critic, causal.shift = critic, shift
    causal.register_buffer("banned_b", torch.tensor(banned, dtype=torch.long), persistent=False)
    return causal


def written_logs(
    read: Callable[..., Any], ids_st: Tensor, mask_st: Tensor, written_st: Tensor, banned_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [m] of written tokens among those that may be written, and logits [m, v] of these."""
    logits_stv = read(input_ids=ids_st[:, :-1], attention_mask=mask_st[:, :-1], use_cache=False).logits
    target_st = written_st[:, 1:]
    logits_mv = logits_stv[target_st].float().index_fill(1, banned_b, -torch.inf).log_softmax(dim=-1)
    return logits_mv.gather(1, ids_st[:, 1:][target_st][:, None])[:, 0], logits_mv


def values(critic: Any, ids_st: Tensor, mask_st: Tensor, written_st: Tensor, *, shift: float) -> Tensor:
    """Values [m] before each written token: the expected score of the whole answer."""
    states_std = critic.base_model(
        input_ids=ids_st[:, :-1], attention_mask=mask_st[:, :-1], use_cache=False
    ).last_hidden_state
    head: nn.Linear = critic.score
    values_m: Tensor = head(states_std[written_st[:, 1:]])[:, 0].float() - shift
    return values_m


def policy_loss(logs_m: Tensor, old_m: Tensor, advantages_m: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the clipped losses, and how often the clipped ratio decided."""
    ratio_m = (logs_m - old_m).exp()
    free_m, held_m = -advantages_m * ratio_m, -advantages_m * ratio_m.clamp(1 - CLIP, 1 + CLIP)
    return torch.maximum(free_m, held_m).sum(), (held_m > free_m).float().sum()


def value_loss(values_m: Tensor, old_m: Tensor, returns_m: Tensor) -> Tensor:
    """Sum of half the squared errors, each the larger one of the value and of the value held near the old one."""
    held_m = old_m + (values_m - old_m).clamp(-CLIP, CLIP)
    return 0.5 * torch.maximum((values_m - returns_m) ** 2, (held_m - returns_m) ** 2).sum()
