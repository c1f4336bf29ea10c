"""The network of a task: a causal model, and one linear layer on the state of the extract token.

In: a causal model of `transformers` with the weights that a run begins with. Out: the family's class for sequence
classification with a `forward` for items of one or several sequences, saved under that class's name, so that
`AutoModelForSequenceClassification` opens it.
Invariants: the loss of an item is the cross-entropy of its label plus `aux_lm` times that of its own tokens, averaged
over the tokens of a sequence and the sequences of an item (Radford et al., 2018, equations 4 and 5); padding has no
part in either; with both orders the two states are added before the linear layer.
Cost: one pass of the model; with `aux_lm` the logits of all tokens.
"""

# Shape suffixes: n items, s sequences, t tokens of a sequence, d width, k labels or options, m predicted tokens.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from corpus.train.data.collate import IGNORED
from corpus.train.model.heads import classifier, classifier_class, last_states

HEAD_DROPOUT = 0.1
"""Radford et al., 2018, section 4.1."""
_SPREAD = 0.02
_HEAD = "classes"


class TaskForward:
    """The forward pass and the loss; a class of `transformers` stands beside it."""

    accepts_loss_kwargs = True
    base_model: Any
    score: nn.Linear
    training: bool
    is_choice = False
    aux_lm = 0.0
    head_dropout = HEAD_DROPOUT

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, owners: Tensor, places: Tensor, labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SequenceClassifierOutput:  # fmt: skip
        """Logits [n, k] and the loss of a batch of `batches.TaskCollator`, as sum over its labels through their number.

        The logits of an option that an item does not have are -inf.
        """
        states_std = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        logits_nk = self._logits(last_states(states_std, attention_mask), owners, places, len(labels))
        known = labels != IGNORED
        loss = functional.cross_entropy(logits_nk.float(), labels, ignore_index=IGNORED, reduction="sum")
        if self.aux_lm and self.training:
            loss = loss + self.aux_lm * self._own_tokens(states_std, input_ids, attention_mask, owners, known)
        divisor = known.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return SequenceClassifierOutput(loss=loss / divisor, logits=logits_nk)

    def _logits(self, read_sd: Tensor, owners: Tensor, places: Tensor, items: int) -> Tensor:
        if self.is_choice:
            scores_s = self.score(functional.dropout(read_sd, self.head_dropout, self.training))[:, 0]
            empty_nk = scores_s.new_full((items, int(places.max()) + 1), -torch.inf)
            filled_nk: Tensor = empty_nk.index_put((owners, places), scores_s)
            return filled_nk
        sums_nd = read_sd.new_zeros(items, read_sd.shape[1]).index_add(0, owners, read_sd)
        scores_nk: Tensor = self.score(functional.dropout(sums_nd, self.head_dropout, self.training))
        return scores_nk

    def _own_tokens(self, states_std: Tensor, ids_st: Tensor, mask_st: Tensor, owners: Tensor, known: Tensor) -> Tensor:
        """Sum over items of the mean negative log-likelihood of their tokens but the first."""
        predicted_st = mask_st[:, 1:].bool()
        head = getattr(self, "lm_head", None) or self.base_model.get_input_embeddings()
        logits_mv = functional.linear(states_std[:, :-1][predicted_st], head.weight).float()
        nats_m = functional.cross_entropy(logits_mv, ids_st[:, 1:][predicted_st], reduction="none")
        tokens_s = predicted_st.sum(1)
        sequences_n = torch.bincount(owners, minlength=len(known))
        weights_s = known[owners].float() / (tokens_s.clamp(min=1) * sequences_n[owners])
        return (nats_m * weights_s.repeat_interleave(tokens_s)).sum()


def make(
    causal: Any, *, labels: Sequence[str], is_choice: bool, rows: int, pad: int, seed: int, aux_lm: float = 0.0,
    head_dropout: float = HEAD_DROPOUT,
) -> Any:  # fmt: skip
    """The network of a task on a causal model, which it takes over.

    Args:
        causal: the model; its embedding is made to have at least `rows` rows, and the new ones are drawn at random.
        labels: what people call the labels; unused with `is_choice`.
        is_choice: whether each sequence has one score.
        rows: rows that the tokenizer needs.
        pad: id of the padding.
        seed: of the new rows and of the linear layer.
        aux_lm: weight of the loss of the item's own tokens.
        head_dropout: share of the units of the read state that are dropped in training.

    Raises:
        ModelError: `transformers` has no class for sequence classification in this family.

    """
    set_seed(seed)
    if causal.get_input_embeddings().num_embeddings < rows:
        causal.resize_token_embeddings(rows, mean_resizing=False)
    head, table = causal.get_output_embeddings(), causal.get_input_embeddings()
    network = classifier(causal, TaskForward, names=["score"] if is_choice else labels, pad=pad, what=_HEAD)
    nn.init.normal_(network.score.weight, std=getattr(causal.config, "initializer_range", None) or _SPREAD)
    network.is_choice, network.aux_lm, network.head_dropout = is_choice, aux_lm, head_dropout
    if head is not None and head.weight is not table.weight:
        network.lm_head = head.requires_grad_(aux_lm > 0)  # saved without training too: another run may start from it
    return network


def task_class(config: Any) -> Any:
    """The family's class for sequence classification, with our forward pass.

    Raises:
        ModelError: as `heads.classifier_class`.

    """
    return classifier_class(config, TaskForward, what=_HEAD)
