"""Whether the documents of a row are separate to a model, tried on a row of two before training.

In: a model with the weights that a run begins with. Out: nothing, or an error that names the model and the reason.
Method: one row of two short documents as a batch of packed rows has it (positions restart, no attention mask, no
cache), against each document alone; scores must agree. The loss that the model computes of given targets must be that
of its scores: a family could shift the targets once more. No list of families: `transformers` keeps documents apart
where a family's code passes the positions on to its mask, and one that does not would train on without a warning.
Invariant: weights, mode and random state stay as they are.
Cost: four passes of at most 16 tokens.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from corpus.pipeline.errors import ModelError, TrainError
from corpus.train.model.device import is_out_of_memory
from corpus.train.model.load import context_of
from corpus.train.model.quiet import first_line, quiet

_TOKENS = 16
_ROUNDING = 1e-3
"""Share of the largest score that may be rounding, which is about 1e-6; a document that is seen changes half of it."""
_SAMPLE = 4096
"""Weights of a matrix that its spread is taken from."""


def check(model: Any, *, seq_length: int, document_mask: bool) -> None:
    """Refuse a model that would see other documents of its row, or the tokens after its own.

    Raises:
        ModelError: it is no causal model of plain text, or its context is shorter than the rows.
        TrainError: documents of a row would see each other, and `document_mask` says that they must not; or its loss
            is not that of the targets that it is given.

    """
    kind, hint = type(model).__name__, "Give --model or --init a causal language model."
    limit = context_of(model) or seq_length
    if limit < seq_length:
        raise ModelError(
            f"{kind} takes {limit:,} tokens at once, the rows have {seq_length:,}",
            hint=f"Run `corpus pack --seq-length {limit}` first.",
        )
    count = min(_TOKENS, seq_length)
    cut = count // 2
    ids_t = torch.arange(count) * 7919 % model.config.vocab_size
    positions_t = torch.cat([torch.arange(cut), torch.arange(count - cut)])
    try:
        with _as_evaluated(model), quiet(), torch.no_grad():
            row_tv = _scores(model, ids_t, positions_t if document_mask else torch.arange(count))
            first_tv = _scores(model, ids_t[:cut], torch.arange(cut))
            second_tv = _scores(model, ids_t[cut:], torch.arange(count - cut))
            takes_targets = _takes_targets(model, ids_t)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{kind} cannot be run on packed rows: {first_line(error)}", hint=hint) from error
    if not _agree(row_tv[:cut], first_tv):
        raise ModelError(f"a token of {kind} sees those after it, so it predicts nothing", hint=hint)
    if not takes_targets:
        raise TrainError(
            f"{kind} of transformers {transformers.__version__} computes its loss of other targets than it is given",
            hint="Choose another architecture.",
        )
    if document_mask and not _agree(row_tv[cut:], second_tv):
        takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        reason = "makes no mask from the positions" if takes_positions else "takes no position_ids"
        raise TrainError(
            f"{kind} of transformers {transformers.__version__} {reason}: the documents of a row would see each other",
            hint="Choose another architecture, or give --no-document-mask to let attention cover the whole row.",
        )


def _scores(model: Any, ids_t: Tensor, positions_t: Tensor) -> Tensor:
    device = next(model.parameters()).device
    scores_tv: Tensor = model(
        input_ids=ids_t[None].to(device), position_ids=positions_t[None].to(device), use_cache=False
    ).logits[0]
    return scores_tv.float()


def _takes_targets(model: Any, ids_t: Tensor) -> bool:
    """Whether the model's loss is the mean over the targets at their own places."""
    ids_rt = ids_t[None].to(next(model.parameters()).device)
    targets_rt = ids_rt.flip(1)
    given = model(input_ids=ids_rt, labels=targets_rt, shift_labels=targets_rt, use_cache=False)
    own = torch.nn.functional.cross_entropy(given.logits[0].float(), targets_rt[0]).item()
    return bool(abs(given.loss.item() - own) <= _ROUNDING * max(1.0, abs(own)))


def _agree(one_tv: Tensor, other_tv: Tensor) -> bool:
    difference = (one_tv - other_tv).abs().max().item()
    return not difference > _ROUNDING * one_tv.abs().max().item()


@contextlib.contextmanager
def _as_evaluated(model: Any) -> Iterator[None]:
    """Without dropout, and with weights large enough that what a token sees is more than rounding.

    Matrices of zeros get random numbers; small ones are multiplied by a power of two, which loses no bit.
    """
    trains, device = model.training, next(model.parameters()).device
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim > 1 and weight is not embedding]
    zeros = [weight for weight in matrices if not weight.flatten()[:_SAMPLE].any() and not weight.any()]
    scales = [_scale(weight) for weight in matrices]
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            for weight in zeros:
                weight.normal_(std=weight.shape[-1] ** -0.5)
            for weight, scale in zip(matrices, scales, strict=True):
                weight.mul_(scale)
        yield
    finally:
        model.train(trains)
        with torch.no_grad():
            for weight, scale in zip(matrices, scales, strict=True):
                weight.div_(scale)
            for weight in zeros:
                weight.zero_()


@torch.no_grad()
def _scale(weight: Tensor) -> float:
    """The power of two that gives a matrix about the spread which keeps the size of its inputs; 1 for a larger one."""
    spread = weight.flatten()[:_SAMPLE].std().item()
    return 2.0 ** max(0, round(math.log2(weight.shape[-1] ** -0.5 / spread))) if spread > 0 else 1.0
