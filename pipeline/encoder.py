"""Encoders: texts in, token ids out, by the reference or by a faster library that gives the same ids.

In: batches of texts. Out: one flat array of ids and the number of ids of each text, separators not included.
Invariants: `tokenizers` is the reference; another engine is used only after it gave the reference's ids on real
documents in this very run;
special strings in texts are ordinary text in either.
Cost: the reference does 3-4 MB/s on one core; gigatoken 18-100, with a cache that grows, so its encoder is renewed
every `RENEW_CHARACTERS`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corpus.pipeline import bpe
from corpus.pipeline import tokenizer as tokenizers_stage

REFERENCE = bpe.REFERENCE
FAST = "gigatoken"
RENEW_CHARACTERS = 64 << 20


class Encoder(Protocol):
    """What the packing stage asks of an engine."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """[tokens] uint32 ids of all texts one after another, and [texts] int64 how many each has."""


class ReferenceEncoder:
    """The `tokenizers` library."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = tokenizers_stage.load(folder)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.fromiter((token for part in ids for token in part), dtype=np.uint32, count=int(lengths.sum()))
        return flat, lengths


class FastEncoder:
    """The `gigatoken` library, which knows the field's split patterns by name."""

    def __init__(self, folder: Path) -> None:
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        description["added_tokens"] = []  # gigatoken would find special tokens in ordinary text
        self._description = json.dumps(description)
        self._seen = 0
        self._tokenizer: Any = None

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        import gigatoken  # noqa: PLC0415  # an extra

        if self._tokenizer is None or self._seen > RENEW_CHARACTERS:
            self._tokenizer, self._seen = gigatoken.Tokenizer.from_json(self._description), 0
        self._seen += sum(map(len, texts))
        layout = self._tokenizer.encode_batch(list(texts), parallel=False).layout
        offsets = np.asarray(layout.offsets)
        flat = np.asarray(layout.content.data)[offsets[0] : offsets[-1]]
        return flat.astype(np.uint32, copy=False), np.diff(offsets).astype(np.int64)


def make(engine: str, folder: Path) -> Encoder:
    """The encoder of an engine for the tokenizer in `folder`."""
    return FastEncoder(folder) if engine == FAST else ReferenceEncoder(folder)


def available() -> bool:
    """Whether the faster engine is installed."""
    return find_spec(FAST) is not None


def choose(make: Callable[[str], Encoder], sample: Sequence[str]) -> tuple[str, dict[str, Any], str]:
    """The engine to use, the check as the ledger records it, and what to tell the user when the fast one is not used.

    `make` gives the encoder of an engine. The record is about the reference's ids, so it does not depend on which
    engine passed.
    """
    flat, lengths = make(REFERENCE).encode(sample)
    digest = hashlib.sha256(flat.astype("<u4").tobytes()).hexdigest()
    record = {"documents": len(sample), "tokens": int(lengths.sum()), "sha256": digest}
    if not available():
        return REFERENCE, record, "gigatoken is not installed: encoding with tokenizers, five times slower or more"
    try:
        fast_flat, fast_lengths = make(FAST).encode(sample)
    except Exception as error:  # noqa: BLE001  # whatever a third engine raises, the reference does the work
        return REFERENCE, record, f"WARNING: gigatoken refuses this tokenizer ({error}): encoding with tokenizers"
    if not (np.array_equal(flat, fast_flat) and np.array_equal(lengths, fast_lengths)):
        return (
            REFERENCE,
            record,
            "WARNING: gigatoken gives other ids than tokenizers on real documents: encoding with tokenizers",
        )
    return FAST, record, ""
