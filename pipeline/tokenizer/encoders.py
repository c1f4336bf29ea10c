"""Encoders: texts in, token ids out, by the reference or by a faster engine that gives the same ids.

In: batches of texts, as Arrow has them. Out: one flat array of ids and the number of ids of each text, separators not
included.
Invariants: `tokenizers` is the reference; another engine is used only after it gave the reference's ids on real
documents in this very run, in each process that uses it; special strings in texts are ordinary text in all.
Cost: on one core the reference does 1-4 MB/s; fastokens 40-90, in 0.2 GB that hardly grow; the compiled kernel 40-70,
whether it has seen a text before or not, in 5 MB, and it needs no Python strings.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from corpus.pipeline import kernels
from corpus.pipeline.tokenizer import files, trainer, vocabulary

REFERENCE = trainer.REFERENCE
FAST = "fastokens"
KERNEL = "kernels"
Encode = Callable[[pa.Array], tuple[np.ndarray, np.ndarray]]


class Encoder(Protocol):
    """What the packing stage asks of an engine."""

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """[tokens] uint32 ids of all texts, an array of strings, one after another; [texts] int64 how many each has."""


class ReferenceEncoder:
    """The `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        encodings = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.fromiter((token for part in ids for token in part), dtype=np.uint32, count=int(lengths.sum()))
        return flat, lengths


class FastEncoder:
    """The `fastokens` library."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _fast((folder / "tokenizer.json").read_text(encoding="utf-8"))

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        flat, offsets = self._tokenizer.encode_batch_flat(texts.to_pylist())
        return np.frombuffer(flat, dtype="<u4"), np.diff(np.frombuffer(offsets, dtype="<u8")).astype(np.int64)


@functools.lru_cache(maxsize=1)
def _fast(description: str) -> Any:
    """The tokenizer that a `tokenizer.json` describes; a process loads it once, however many datasets it packs."""
    for threads in ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS"):  # both are read when the library loads
        os.environ.setdefault(threads, "1")  # a worker is a process, and each thread has a cache
    import fastokens  # noqa: PLC0415  # an extra

    described = vocabulary.parse(description)
    described["added_tokens"] = []  # it would find special tokens in ordinary text
    return fastokens.Tokenizer.from_json_str(json.dumps(described))


class KernelEncoder:
    """The compiled loop of `_bpe.c`."""

    def __init__(self, folder: Path) -> None:
        self._vocabulary = vocabulary.of((folder / "tokenizer.json").read_text(encoding="utf-8"))

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """See `Encoder`."""
        texts = texts.cast(pa.string())
        lengths = np.zeros(len(texts), dtype=np.int64)
        _, offsets, data = texts.buffers()
        if not len(texts) or data is None:
            return np.zeros(0, dtype=np.uint32), lengths
        ends = np.frombuffer(offsets, dtype=np.int32)[[texts.offset, texts.offset + len(texts)]]
        ids = np.empty(int(ends[1] - ends[0]), dtype=np.uint32)
        count = kernels.compiled.encode(self._vocabulary, offsets, data, texts.offset, len(texts), ids, lengths)
        return ids[:count], lengths


def make(engine: str, folder: Path) -> Encoder:
    """The encoder of an engine for the tokenizer in `folder`."""
    if engine == KERNEL:
        return KernelEncoder(folder)
    return FastEncoder(folder) if engine == FAST else ReferenceEncoder(files.load(folder))


def faster() -> tuple[str, ...]:
    """The engines that are there beside the reference, the fastest first."""
    there = {KERNEL: kernels.compiled is not None, FAST: find_spec(FAST) is not None}
    return tuple(engine for engine, is_there in there.items() if is_there)


def load(folder: Path) -> None:
    """Load the engine that `choose` tries first, in a worker whose proof is not there yet."""
    for engine in faster()[:1]:
        make(engine, folder)


@dataclass(frozen=True, slots=True)
class Proof:
    """Real documents and what the reference makes of them, for another engine to prove itself on."""

    texts: pa.Array = field(compare=False)
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
    """Why it is not a faster one, for the user."""


def prove(reference: Encoder, texts: pa.Array) -> tuple[Proof, dict[str, Any]]:
    """What a faster engine has to give, and the same as the ledger records it: about the reference's ids alone, so
    that it does not depend on which engine is used.
    """
    flat, lengths = reference.encode(texts)
    record = {"documents": len(texts), "tokens": int(lengths.sum()), "sha256": _digest(flat)}
    return Proof(texts, _digest(flat, lengths), uuid.uuid4().hex), record


def choose(folder: Path, proof: Proof) -> Chosen:
    """The fastest engine that proves itself in this process; the reference where none does."""
    refused: list[str] = []
    for engine in faster():
        try:
            encode = make(engine, folder).encode
            if _digest(*encode(proof.texts)) == proof.digest:
                return Chosen(engine, encode, _said(refused, engine))
            refused.append(f"{engine} gives other ids than tokenizers on real documents")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it raises, a panic too: another does the work
            refused.append(f"{engine} refuses this tokenizer ({error})")
    warning = "neither the kernels nor fastokens are there: encoding with tokenizers, ten times slower or more"
    return Chosen(REFERENCE, make(REFERENCE, folder).encode, _said(refused, REFERENCE) or warning)


def _said(refused: list[str], engine: str) -> str:
    return f"WARNING: {' and '.join(refused)}: encoding with {engine}" if refused else ""


def _digest(flat: np.ndarray, lengths: np.ndarray | None = None) -> str:
    digest = hashlib.sha256(flat.astype("<u4").tobytes())
    if lengths is not None:
        digest.update(lengths.astype("<i8").tobytes())
    return digest.hexdigest()
