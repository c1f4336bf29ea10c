"""The next token: scores of the model in, one token for each row out.

Invariant: each row has its own random generator on the CPU and takes one number per token, so its text depends on its
seed alone, not on the other rows and not on the device.
"""

# Shape suffixes: b rows of the batch, v vocabulary, n numbers drawn ahead; _b1 is a column.
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_BLOCK_NUMBERS = 256


def banned(ids: Iterable[int], special: Iterable[int], *, separator: int, rows: int) -> list[int]:
    """Ids below `rows` that are never written: special tokens other than the separator, and ids without a token.

    `ids` are those of all tokens.
    """
    ordinary = set(ids) - set(special) | {separator}
    return [number for number in range(rows) if number not in ordinary]


def choose(scores_bv: Tensor, uniforms_b: Tensor) -> Tensor:
    """Tokens [b] drawn from softmax(scores) by numbers in [0, 1), each looked up in the cumulative distribution.

    A token of probability zero is never chosen, whatever the rounding of the sums.
    """
    probabilities_bv = scores_bv.softmax(dim=-1)
    sums_bv = probabilities_bv.cumsum(dim=-1)
    found_b1 = torch.searchsorted(sums_bv, uniforms_b[:, None] * sums_bv[:, -1:], right=True)
    found_b1.clamp_(max=scores_bv.shape[-1] - 1)
    possible_b1 = probabilities_bv.gather(-1, found_b1) > 0
    return torch.where(possible_b1, found_b1, scores_bv.argmax(dim=-1, keepdim=True))[:, 0]


def log_probabilities(logits_bv: Tensor, tokens_b: Tensor) -> Tensor:
    """Log-probabilities [b] of these tokens under the model."""
    return logits_bv.gather(-1, tokens_b[:, None])[:, 0] - logits_bv.logsumexp(dim=-1)


def row_seed(seed: int, prompt: int, sample: int) -> int:
    """The seed of one sample of one prompt."""
    digest = hashlib.blake2b(f"{seed}/{prompt}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class Noise:
    """Uniform numbers in [0, 1) for the rows of a batch, each row from its own generator."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device
        self._block_bn = torch.empty(len(seeds), 0)
        self._used = 0

    def draw(self) -> Tensor:
        """The next number [b] of every row."""
        if self._used == self._block_bn.shape[1]:
            drawn = [torch.rand(_BLOCK_NUMBERS, generator=generator) for generator in self._generators]
            self._block_bn = torch.stack(drawn).to(self._device)
            self._used = 0
        self._used += 1
        return self._block_bn[:, self._used - 1]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        self._generators = [self._generators[row] for row in rows]
        self._block_bn = self._block_bn[list(rows)]
