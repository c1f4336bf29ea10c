"""Encoders: texts in, token ids out, by the reference or by a faster library that gives the same ids.

In: batches of texts. Out: one flat array of ids and the number of ids of each text, separators not included.
Invariants: `tokenizers` is the reference; another engine is used only after it gave the reference's ids on real
documents in this very run;
special strings in texts are ordinary text in either.
Cost: the reference does 3-4 MB/s on one core; fastokens 55-90 on text it has not seen, in 0.2 GB that do not grow.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corpus.pipeline import bpe
from corpus.pipeline import tokenizer as tokenizers_stage

REFERENCE = bpe.REFERENCE
FAST = "fastokens"


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
    """The `fastokens` library."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("RAYON_NUM_THREADS", "1")  # a worker is a process; it is read when the library loads
        import fastokens  # noqa: PLC0415  # an extra

        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        description["added_tokens"] = []  # it would find special tokens in ordinary text
        self._tokenizer = fastokens.Tokenizer.from_json_str(json.dumps(description))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        flat, offsets = self._tokenizer.encode_batch_flat(list(texts))
        return np.frombuffer(flat, dtype="<u4"), np.diff(np.frombuffer(offsets, dtype="<u8")).astype(np.int64)


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
        return REFERENCE, record, "fastokens is not installed: encoding with tokenizers, ten times slower or more"
    try:
        fast_flat, fast_lengths = make(FAST).encode(sample)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever another engine raises, a panic too: the reference does it
        return REFERENCE, record, f"WARNING: fastokens refuses this tokenizer ({error}): encoding with tokenizers"
    if not (np.array_equal(flat, fast_flat) and np.array_equal(lengths, fast_lengths)):
        return (
            REFERENCE,
            record,
            "WARNING: fastokens gives other ids than tokenizers on real documents: encoding with tokenizers",
        )
    return FAST, record, ""
