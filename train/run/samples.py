"""Continuations of prompts at each evaluation of a run, to be read beside its curves.

In: prompts and the model. Out: lines of `samples.jsonl`.
Invariants: the random state of the run is unchanged, so the weights are the same with and without samples; equal runs
write equal samples.
Cost: `TOKENS` passes of one row for each prompt. The loop is `model.generate` of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from corpus.pipeline.tokenizer.files import load
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, SEPARATOR, USER

TOKENS = 64
"""Most tokens of a sample."""
_TOP_K, _TEMPERATURE = 30, 0.8


class Samples:
    """Prompts, encoded once."""

    def __init__(self, prompts: Sequence[str], tokenizer: Path, *, chat: bool, context: int) -> None:
        self.prompts = prompts
        self._model = load(tokenizer)
        ids = self._model.get_vocab()
        self._separator, user, assistant = (ids.get(name, -1) for name in (SEPARATOR, USER, ASSISTANT))
        encoded = [self._model.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        self._ids = [[self._separator, *([user, *ids, assistant] if chat else ids)] for ids in encoded]
        self._context, self._chat = context, chat

    def write(self, model: Any, seed: int) -> Iterator[Mapping[str, str]]:
        """One continuation of each prompt: temperature 0.8, top-k 30, at most `TOKENS` tokens or half the context.

        A prompt is read from the separator on. One that does not fit beside them loses its beginning; a question keeps
        its first tokens, the separator and `<|user|>`.
        Training or evaluation mode of the model is restored.
        """
        trains, device = model.training, next(model.parameters()).device
        model.eval()
        devices = [device] if device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                for prompt, ids in zip(self.prompts, self._ids, strict=True):
                    torch.manual_seed(seed)
                    yield {"prompt": prompt, "text": self._one(model, ids, device)}
        finally:
            model.train(trains)

    def _one(self, model: Any, ids: list[int], device: torch.device) -> str:
        room = min(TOKENS, self._context // 2)
        kept = ids[max(len(ids) - (self._context - room), 0) :]
        kept = [*ids[:2], *kept[2:]] if self._chat else kept
        given = torch.tensor([kept], device=device)
        written = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=room, do_sample=True, top_k=_TOP_K,
            temperature=_TEMPERATURE, eos_token_id=self._separator, pad_token_id=self._separator, use_cache=True,
        )[0, len(kept) :].tolist()  # fmt: skip
        return str(self._model.decode(written, skip_special_tokens=True))
