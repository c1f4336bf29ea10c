"""Encoders: texts in, token ids out, by the reference or by the compiled kernel, which gives the same ids.

In: batches of texts, as Arrow holds them. Out: one flat array of ids and the number of ids of each text, without
separators.
Invariants: `tokenizers` is the reference; a process uses the kernel only after the kernel gave the reference's ids on
real documents in this run; both encode special strings in texts as ordinary text.
Cost: on one core the reference does 1-4 MB/s, the kernel 40-70 in 5 MB of memory, without Python strings.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from corpus.pipeline import kernels
from corpus.pipeline.tokenizer import files, trainer, vocabulary
from corpus.pipeline.workers import start

REFERENCE = trainer.REFERENCE
KERNEL = "kernels"
Encode = Callable[[pa.Array], tuple[np.ndarray, np.ndarray]]
"""From an array of strings: [tokens] uint32 ids, one text after another; [texts] int64 ids of each text."""


def encode_by_reference(tokenizer: Tokenizer, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Encode with the `tokenizers` library."""
    encodings = tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = np.fromiter((token for part in ids for token in part), dtype=np.uint32, count=int(lengths.sum()))
    return flat, lengths


def encode_by_kernel(entries: object, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Encode with the compiled loop of `_bpe.c` and the entries that `vocabulary.of` made."""
    texts = texts.cast(pa.string())
    lengths = np.zeros(len(texts), dtype=np.int64)
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, dtype=np.uint32), lengths
    ends = np.frombuffer(offsets, dtype=np.int32)[[texts.offset, texts.offset + len(texts)]]
    ids = np.empty(int(ends[1] - ends[0]), dtype=np.uint32)
    count = kernels.compiled.encode(entries, offsets, data, texts.offset, len(texts), ids, lengths)
    return ids[:count], lengths


def make(engine: str, folder: Path) -> Encode:
    """The encoder of an engine for the tokenizer in `folder`."""
    if engine == KERNEL:
        return partial(encode_by_kernel, vocabulary.of((folder / "tokenizer.json").read_text(encoding="utf-8")))
    return partial(encode_by_reference, files.load(folder))


def load(folder: Path) -> None:
    """Load what `choose` tries first, in a worker that has no proof yet."""
    if kernels.compiled is not None:
        make(KERNEL, folder)


@dataclass(frozen=True, slots=True)
class Proof:
    """Real documents and a digest of the reference's ids of them, against which the kernel is checked."""

    texts: pa.Array = field(compare=False)
    digest: str
    """Of the ids and their number for each text."""
    run: str
    """Unique to a run, which has its own proof."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The encoder that a process uses."""

    engine: str
    encode: Encode
    warning: str = ""
    """Why it is not the kernel, for the user."""


def prove(reference: Encode, texts: pa.Array) -> tuple[Proof, dict[str, Any]]:
    """The proof that the kernel must pass, and its record in the ledger: of the reference's ids alone, so that the
    ledger does not depend on the engine used.
    """
    flat, lengths = reference(texts)
    record = {"documents": len(texts), "tokens": int(lengths.sum()), "sha256": _digest(flat)}
    return Proof(texts, _digest(flat, lengths), uuid.uuid4().hex), record


def start_and_prove(
    folder: Path, model: Tokenizer, sample: Callable[[], pa.Array], *, workers: int, pieces: int
) -> tuple[Proof, dict[str, Any]]:
    """Start the workers of a stage, within `workers.kept()`; `prove` on a sample, which is read while they load."""
    start(workers, partial(load, folder), pieces=pieces)
    return prove(partial(encode_by_reference, model), sample())


def choose(folder: Path, proof: Proof) -> Chosen:
    """The kernel if it passes the proof in this process, else the reference."""
    warning = "the kernels were not built: encoding with tokenizers, ten times slower or more"
    if kernels.compiled is not None:
        try:
            encode = make(KERNEL, folder)
            if _digest(*encode(proof.texts)) == proof.digest:
                return Chosen(KERNEL, encode)
            why = "give other ids than tokenizers on real documents"
        except Exception as error:  # noqa: BLE001  # whatever it raises, the reference does the work
            why = f"refuse this tokenizer ({error})"
        warning = f"WARNING: the kernels {why}: encoding with tokenizers"
    return Chosen(REFERENCE, make(REFERENCE, folder), warning)


def _digest(flat: np.ndarray, lengths: np.ndarray | None = None) -> str:
    digest = hashlib.sha256(flat.astype("<u4").tobytes())
    if lengths is not None:
        digest.update(lengths.astype("<i8").tobytes())
    return digest.hexdigest()
