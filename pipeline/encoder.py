"""Encoders: texts in, token ids out, by the reference or by a faster library that gives the same ids.

In: batches of texts. Out: one flat array of ids and the number of ids of each text, separators not included.
Invariants: `tokenizers` is the reference; another engine is used only after it gave the reference's ids on real
documents in this very run, in each process that uses it; special strings in texts are ordinary text in either.
Cost: the reference does 3-4 MB/s on one core; fastokens 55-90 on text it has not seen, in 0.2 GB that do not grow.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from corpus.pipeline import bpe
from corpus.pipeline import tokenizer as tokenizers_stage

REFERENCE = bpe.REFERENCE
FAST = "fastokens"
Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


class Encoder(Protocol):
    """What the packing stage asks of an engine."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """[tokens] uint32 ids of all texts one after another, and [texts] int64 how many each has."""


class ReferenceEncoder:
    """The `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

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
        self._tokenizer = _fast((folder / "tokenizer.json").read_text(encoding="utf-8"))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        flat, offsets = self._tokenizer.encode_batch_flat(list(texts))
        return np.frombuffer(flat, dtype="<u4"), np.diff(np.frombuffer(offsets, dtype="<u8")).astype(np.int64)


@functools.lru_cache(maxsize=1)
def _fast(description: str) -> Any:
    """The tokenizer that a `tokenizer.json` describes; a process loads it once, however many datasets it packs."""
    for threads in ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS"):  # both are read when the library loads
        os.environ.setdefault(threads, "1")  # a worker is a process, and each thread has a cache
    import fastokens  # noqa: PLC0415  # an extra

    described = json.loads(description)
    described["added_tokens"] = []  # it would find special tokens in ordinary text
    return fastokens.Tokenizer.from_json_str(json.dumps(described))


def make(engine: str, folder: Path) -> Encoder:
    """The encoder of an engine for the tokenizer in `folder`."""
    return FastEncoder(folder) if engine == FAST else ReferenceEncoder(tokenizers_stage.load(folder))


def available() -> bool:
    """Whether the faster engine is installed."""
    return find_spec(FAST) is not None


@dataclass(frozen=True, slots=True)
class Proof:
    """Real documents and what the reference makes of them, for another engine to prove itself on."""

    texts: tuple[str, ...]
    digest: str
    """Of the ids and their number for each text."""
    run: str
    """Tells the runs of a command apart: each has its own proof."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The encoder that a process uses."""

    engine: str
    encode: Encode
    warning: str = ""
    """Why it is not the fast one, for the user."""


def prove(reference: Encoder, texts: Sequence[str]) -> tuple[Proof, dict[str, Any]]:
    """What a faster engine has to give, and the same as the ledger records it: about the reference's ids alone, so
    that it does not depend on which engine is used.
    """
    flat, lengths = reference.encode(texts)
    record = {"documents": len(texts), "tokens": int(lengths.sum()), "sha256": _digest(flat)}
    return Proof(tuple(texts), _digest(flat, lengths), uuid.uuid4().hex), record


def choose(folder: Path, proof: Proof) -> Chosen:
    """The fast engine where it proves itself in this process, else the reference."""
    if not available():
        return _reference(folder, "fastokens is not installed: encoding with tokenizers, ten times slower or more")
    try:
        fast = make(FAST, folder)
        proven = _digest(*fast.encode(proof.texts)) == proof.digest
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever another engine raises, a panic too: the reference does it
        return _reference(folder, f"WARNING: fastokens refuses this tokenizer ({error}): encoding with tokenizers")
    if not proven:
        return _reference(
            folder, "WARNING: fastokens gives other ids than tokenizers on real documents: encoding with tokenizers"
        )
    return Chosen(FAST, fast.encode)


def _reference(folder: Path, warning: str) -> Chosen:
    return Chosen(REFERENCE, make(REFERENCE, folder).encode, warning)


def _digest(flat: np.ndarray, lengths: np.ndarray | None = None) -> str:
    digest = hashlib.sha256(flat.astype("<u4").tobytes())
    if lengths is not None:
        digest.update(lengths.astype("<i8").tobytes())
    return digest.hexdigest()
