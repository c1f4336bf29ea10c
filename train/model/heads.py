"""A linear layer on the last state of a causal model: the family's class for sequence classification.

In: a causal model of `transformers`, and a class whose `forward` replaces that of the family. Out: a network that is
saved under the family's own class name, so that `AutoModelForSequenceClassification` opens it.
Invariant: the state that is read is that of the last token before the padding, which is on the right.
"""

# Shape suffixes: s sequences, t tokens of a sequence, d width.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from corpus.pipeline.errors import ModelError


def classifier(causal: Any, forward: type, *, names: Sequence[str], pad: int, what: str) -> Any:
    """The network on a causal model, which it takes over, with one output for each name.

    Args:
        causal: the model.
        forward: the class with the forward pass.
        names: what people call the outputs.
        pad: id of the padding.
        what: what the linear layer is for, as an error says it.

    Raises:
        ModelError: as `classifier_class`.

    """
    config = causal.config
    config.id2label, config.label2id = dict(enumerate(names)), {name: at for at, name in enumerate(names)}
    config.pad_token_id = pad
    kind = classifier_class(config, forward, what=what)
    with torch.device("meta"):
        network = kind(config)
    setattr(network, network.base_model_prefix, causal.base_model)
    network.score = nn.Linear(config.hidden_size, len(names), bias=False, device=causal.device)
    return network


def classifier_class(config: Any, forward: type, *, what: str) -> Any:
    """The family's class for sequence classification, with the forward pass of `forward`.

    Raises:
        ModelError: the family has no such class, or its linear layer has a bias or is not called `score`.

    """
    base = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if base is not None:
        with torch.device("meta"):
            head = getattr(base(config), "score", None)
        if isinstance(head, nn.Linear) and head.bias is None:
            return type(base.__name__, (forward, base), {"__module__": base.__module__})
    raise ModelError(
        f"transformers has no decoder of the family {config.model_type} with a head for {what}",
        hint="Start from a model of another family, such as GPT-2 or Llama.",
    )


def last_states(states_std: Tensor, attention_mask: Tensor) -> Tensor:
    """[s, d] the states of the last token of each sequence; `attention_mask` is [s, t]."""
    ends_s = attention_mask.sum(1) - 1
    return states_std[torch.arange(len(ends_s), device=ends_s.device), ends_s]
