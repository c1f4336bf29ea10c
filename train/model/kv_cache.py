"""The sliding cache of a batch: keys and values of the newest tokens of every row, at most `context` of them.

In: the tokens of every row. Out: the scores of the next token.
Invariant: rows end in the same column and are padded on the left; padding is masked and positions count from a row's
own first token, so its scores are those of a batch of one.
Cost: one token per row and step, whatever the position. A row that fills the context keeps its newest half, which is
read again in one pass: `context / 2` tokens read for every `context / 2` written.
"""

# Shape suffixes: b rows of the batch, n new tokens, t tokens of history, w columns of the cache, v vocabulary; _b1 is a
# column. States of the cache are [b, heads, w, width of a head].
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_SPARE_COLUMNS = 64


class Reader(Protocol):
    """A network, and how much it reads at once."""

    @property
    def network(self) -> Any:
        """A causal model of `transformers` with explicit positions."""

    @property
    def context(self) -> int:
        """Most tokens it takes at once."""


class BufferedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped to us
    """Keys and values of one layer, in preallocated buffers.

    The layer of `transformers` copies all its states for each new token; this one only when a buffer is full. A layer
    with a window of attention keeps every token, too: the network's mask hides those outside.
    """

    keys: Tensor
    values: Tensor
    key_buffer: Tensor
    value_buffer: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._set(key_states[..., :0, :], value_states[..., :0, :])
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        if new > self.key_buffer.shape[-2]:
            self.key_buffer = _enlarged(self.keys, new + max(new // 2, _SPARE_COLUMNS))
            self.value_buffer = _enlarged(self.values, new + max(new // 2, _SPARE_COLUMNS))
        self.key_buffer[..., old:new, :] = key_states
        self.value_buffer[..., old:new, :] = value_states
        self.keys, self.values = self.key_buffer[..., :new, :], self.value_buffer[..., :new, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows; a row may be named more than once."""
        self._set(self.keys[indices], self.values[indices])

    def drop_oldest(self, columns: int) -> None:
        """Drop the oldest columns of all rows."""
        self._set(self.keys[..., columns:, :], self.values[..., columns:, :])

    def replace(self, rows: Sequence[int], fresh: BufferedLayer) -> None:
        """Overwrite the end of these rows with the states of `fresh`; their columns before it become padding."""
        if len(rows) == len(self.keys):
            self._set(fresh.keys, fresh.values)
            return
        columns = fresh.keys.shape[-2]
        self.keys[list(rows), :, -columns:] = fresh.keys
        self.values[list(rows), :, -columns:] = fresh.values

    def join(self, other: BufferedLayer, columns: int) -> None:
        """Add the rows of another layer; all are padded on the left to this many columns."""
        self.key_buffer = _stacked(self.keys, other.keys, columns)
        self.value_buffer = _stacked(self.values, other.values, columns)
        self.keys, self.values = self.key_buffer[..., :columns, :], self.value_buffer[..., :columns, :]

    def _set(self, keys: Tensor, values: Tensor) -> None:
        self.keys = self.key_buffer = keys
        self.values = self.value_buffer = values


def _enlarged(states: Tensor, columns: int) -> Tensor:
    buffer = states.new_empty(*states.shape[:-2], columns, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer


def _stacked(first: Tensor, second: Tensor, columns: int) -> Tensor:
    """A buffer with spare columns that holds both; padding is zero, because a masked NaN would still spread."""
    _, heads, _, width = first.shape
    buffer = first.new_zeros(len(first) + len(second), heads, columns + max(columns // 2, _SPARE_COLUMNS), width)
    buffer[: len(first), :, columns - first.shape[-2] : columns] = first
    buffer[len(first) :, :, columns - second.shape[-2] : columns] = second
    return buffer


class SlidingCache:
    """Rows that grow by one token a step."""

    logits_bv: Tensor
    """Scores of the next token, float32."""
    history_bt: Tensor
    """The newest tokens, `context` at most; a shorter row is padded on the left with its first token."""

    @torch.inference_mode()
    def __init__(self, model: Reader, prompts: Sequence[Sequence[int]], source: Sequence[int]) -> None:
        """Read the newest `context` tokens of each non-empty prompt; row b continues prompt `source[b]`."""
        self._network = model.network
        self._device = model.network.device
        self._context = model.context
        self._cache = _empty_cache()
        self._width = 0
        cut = [list(prompt[-self._context :]) for prompt in prompts]
        width = max(map(len, cut))
        self._set_pads([width - len(ids) for ids in cut])
        # Padding repeats the row's own first token: it is masked, and adds no token to the repetition penalty.
        padded = [ids[:1] * (width - len(ids)) + ids for ids in cut]
        self.history_bt = torch.tensor(padded, device=self._device)
        self.logits_bv = self._append(self.history_bt)
        if list(source) != list(range(len(prompts))):
            self.keep(source)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the keys and values in use, without the unused part of the buffers."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._cache.layers)

    @torch.inference_mode()
    def step(self, tokens_b: Tensor) -> None:
        """Append one token to every row and compute the scores of the next."""
        if self._width == self._context:
            self._slide()
        ids_b1 = tokens_b[:, None]
        self.logits_bv = self._append(ids_b1)
        self.history_bt = torch.cat([self.history_bt, ids_b1], dim=1)[:, -self._context :]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows; a row may be named more than once."""
        indices = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(indices)
        self.history_bt = self.history_bt[indices]
        self.logits_bv = self.logits_bv[indices]
        pads = [self._pads[row] for row in rows]
        self._drop_oldest(min(pads))
        self._set_pads([pad - min(pads) for pad in pads])

    @torch.inference_mode()
    def join(self, other: SlidingCache) -> None:
        """Add the rows of another cache of the same model, which must not be used afterwards."""
        width = max(self._width, other._width)
        pads = [pad + width - cache._width for cache in (self, other) for pad in cache._pads]
        for layer, added in zip(self._cache.layers, other._cache.layers, strict=True):
            layer.join(added, width)
        self._width = width
        self._set_pads(pads)
        columns = max(self.history_bt.shape[1], other.history_bt.shape[1])
        # On the left of a history stands the row's own first token, or its padding, which is the same token.
        wide = [
            torch.cat([history_bt[:, :1].expand(-1, columns - history_bt.shape[1]), history_bt], dim=1)
            for history_bt in (self.history_bt, other.history_bt)
        ]
        self.history_bt = torch.cat(wide)
        self.logits_bv = torch.cat([self.logits_bv, other.logits_bv])

    def _slide(self) -> None:
        """Shorten every full row to its newest half, which is read again as if the text began there."""
        kept = self._context // 2
        full = [row for row, pad in enumerate(self._pads) if pad == 0]
        fresh = _empty_cache()
        positions_1n = torch.arange(kept, device=self._device)[None]
        self._forward(self.history_bt[full, -kept:], fresh, positions_1n, None)
        lengths = [self._context - pad if pad else kept for pad in self._pads]
        self._drop_oldest(self._context - max(lengths))
        for layer, replacement in zip(self._cache.layers, fresh.layers, strict=True):
            layer.replace(full, replacement)
        self._set_pads([self._width - length for length in lengths])

    def _drop_oldest(self, columns: int) -> None:
        if columns:
            for layer in self._cache.layers:
                layer.drop_oldest(columns)
            self._width -= columns

    def _set_pads(self, pads: list[int]) -> None:
        """Set the padding columns of each row; a copy on the host avoids waiting for the device."""
        self._pads = pads
        self._pads_b1 = torch.tensor(pads, device=self._device)[:, None]

    def _append(self, ids_bn: Tensor) -> Tensor:
        """Read new tokens of every row; the scores [b, v] after the last."""
        columns_1w = torch.arange(self._width + ids_bn.shape[1], device=self._device)[None]
        positions_bn = (columns_1w[:, self._width :] - self._pads_b1).clamp_(min=0)
        mask_bw = columns_1w >= self._pads_b1 if any(self._pads) else None
        self._width += ids_bn.shape[1]
        return self._forward(ids_bn, self._cache, positions_bn, mask_bw)

    def _forward(self, ids_bn: Tensor, cache: Any, positions_bn: Tensor, mask_bw: Tensor | None) -> Tensor:
        output = self._network(
            ids_bn,
            past_key_values=cache,
            position_ids=positions_bn,
            attention_mask=mask_bw,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_bv: Tensor = output.logits[:, -1].float()
        return logits_bv


def _empty_cache() -> Any:
    return Cache(layer_class_to_replicate=BufferedLayer)
