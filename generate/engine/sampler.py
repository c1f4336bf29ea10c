"""The next token by the settings of `corpus sample`: which scores change before one is drawn.

Temperature, top-k, top-p and repetition penalty are the processors of `transformers`; `corpus.train.model.sampling`
draws.
"""

# Shape suffixes: b rows of the batch, v vocabulary.
from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from corpus.generate.config import SampleConfig


def processors(config: SampleConfig) -> Any:
    """The processors in the order of `transformers`, without those that would change no score.

    The repetition penalty divides positive scores of tokens that occurred and multiplies negative ones (Keskar et al.
    2019, arXiv 1909.05858, as corrected since: dividing a negative score would reward repetition).
    """
    chain = LogitsProcessorList()
    if config.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
    if config.temperature not in {0, 1}:
        chain.append(TemperatureLogitsWarper(float(config.temperature)))
    if config.temperature and config.top_k:
        chain.append(TopKLogitsWarper(config.top_k))
    if config.temperature and config.top_p < 1:
        chain.append(TopPLogitsWarper(config.top_p))
    return chain


def likeliest(logits_bv: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """For each row this many likeliest tokens with their log-probabilities under the model, the likeliest first."""
    best = logits_bv.log_softmax(dim=-1).topk(min(count, logits_bv.shape[-1]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple(zip(tokens, values, strict=True)) for tokens, values in pairs]
