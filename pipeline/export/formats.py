"""The formats of other trainers: where their files lie, and what stands in them beside tokens or text.

In: pieces of documents, in order. Out: the file of each piece; headers and indices as bytes.
Invariants: a piece is whole in one file; pieces of one file are consecutive. Integers are little-endian.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.errors import ExportError
from corpus.pipeline.manifest import SPLITS

LINEAGE = "lineage"
PIECES = "pieces"
"""Folder of the pieces that are not yet in their files."""
SHARD_PIECES = 10
"""Pieces in a shard of llm.c: some 100 million tokens."""
_SHORT = {"validation": "val"}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """A format, and which trainers take it."""

    name: str
    readers: str
    suffix: str
    """Ending of the files that hold the data."""
    unit_characters: int
    """Characters of documents in one piece."""
    tokens: bool = True
    """Whether it holds token ids; else text."""
    header: int = 0
    """Bytes before the first token of a file."""

    @property
    def is_flat(self) -> bool:
        """Whether a file holds ids alone, one document after another, so that places in it are counted in tokens."""
        return self.tokens and self.suffix == ".bin"


_TOKEN_UNIT, _TEXT_UNIT = 12 << 20, 32 << 20
FORMATS = {
    each.name: each
    for each in (
        Format("nanogpt", "nanoGPT", ".bin", _TOKEN_UNIT),
        Format("llmc", "llm.c", ".bin", _TOKEN_UNIT, header=1024),
        Format("megatron", "Megatron-LM", ".bin", _TOKEN_UNIT),
        Format("mds", "MosaicML streaming", ".mds", _TOKEN_UNIT),
        Format("jsonl", "datasets, LLaMA-Factory", ".jsonl", _TEXT_UNIT, tokens=False),
        Format("parquet", "datasets, LLaMA-Factory", ".parquet", _TEXT_UNIT, tokens=False),
    )
}


@dataclass(frozen=True, slots=True)
class Piece:
    """The used documents of one split in a few documents shards: the work of a worker."""

    dataset: str
    split: str
    number: int
    parts: tuple[Path, ...]
    characters: int
    licence: str
    """As the dataset's manifest states it."""
    file: str = ""
    """The file it is a part of, in the folder of the export."""

    @property
    def name(self) -> str:
        """Its name in its receipt."""
        return f"{self.dataset}-{self.split}-{self.number:05d}"

    @property
    def lineage(self) -> str:
        """The file that names its documents, in the folder of the export."""
        return f"{LINEAGE}/{self.name}.parquet"

    @property
    def data(self) -> str:
        """The file of its tokens or texts until they are in `file`."""
        return f"{PIECES}/{self.name}.data"

    @property
    def documents(self) -> str:
        """The file of its documents until `lineage` is written, or that becomes it."""
        return f"{PIECES}/{self.name}.documents"


def placed(pieces: Sequence[Piece], form: Format) -> list[Piece]:
    """The pieces with the file of each; `pieces` are in order of split and dataset."""
    found: list[Piece] = []
    for split, group in groupby(pieces, lambda piece: piece.split):
        found += _placed(list(group), form, _SHORT.get(split, split))
    return found


def _placed(pieces: Sequence[Piece], form: Format, short: str) -> Iterable[Piece]:
    """Those of one split."""
    total, before = sum(piece.characters for piece in pieces), 0
    shards = math.ceil(total / (SHARD_PIECES * max(piece.characters for piece in pieces)))
    for piece in pieces:
        match form.name:
            case "nanogpt":
                file = f"{short}.bin"
            case "llmc":  # shards of about one size: llm.c refuses one that is shorter than a step
                file = f"{short}_{before * shards // total:06d}.bin"
            case "megatron":
                file = f"{piece.dataset}_{piece.split}.bin"
            case "mds":
                file = f"{piece.dataset}/{piece.split}/shard.{piece.number:05d}.mds"
            case _:
                file = f"{piece.dataset}/{piece.split}/part-{piece.number:05d}{form.suffix}"
        before += piece.characters
        yield replace(piece, file=file)


def token_type(form: Format, vocab_size: int) -> np.dtype[Any]:
    """The type of token ids in a format.

    Raises:
        ExportError: the format has none for a vocabulary of this size.

    """
    if form.name == "nanogpt" and vocab_size > 1 << 16:
        raise ExportError(
            f"nanoGPT reads 16-bit ids, and the tokenizer has {vocab_size:,} entries",
            hint="Export with --format llmc, megatron or mds, or train a tokenizer of at most 65,536 entries.",
        )
    if form.name == "megatron":  # as its own preprocessing decides
        return np.dtype("<u2" if vocab_size < 65_500 else "<i4")
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def llmc_header(kind: np.dtype[Any], tokens: int) -> bytes:
    """The first 256 integers of a shard of llm.c: magic, version, number of tokens; of GPT-2 or of Llama 3."""
    magic, version = (20240520, 1) if kind.itemsize == 2 else (20240801, 7)
    return struct.pack("<3i", magic, version, tokens).ljust(1024, b"\0")


def megatron_index(kind: np.dtype[Any], documents: int, lengths: Callable[[], Iterable[np.ndarray]]) -> Iterator[bytes]:
    """The index of Megatron-LM: tokens of each document, byte offsets, and which sequences are documents: all.

    `lengths` gives the tokens of each document, in order, in arrays of any size; it is called twice.
    """
    code = {"<u2": 8, "<i4": 4}[kind.str]
    yield b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, documents, documents + 1)
    for some in lengths():
        yield some.astype("<i4").tobytes()
    start = 0
    for some in lengths():
        ends = start + np.cumsum(some, dtype=np.int64) * kind.itemsize
        yield (ends - some * kind.itemsize).astype("<i8").tobytes()
        start = int(ends[-1]) if len(ends) else start
    for first in range(0, documents + 1, _CHUNK):
        yield np.arange(first, min(first + _CHUNK, documents + 1), dtype="<i8").tobytes()


def mds_config(kind: np.dtype[Any]) -> dict[str, Any]:
    """What each shard of MDS says of its columns."""
    return {
        "version": 2, "format": "mds", "compression": None, "hashes": [], "size_limit": None,
        "column_names": ["id", "tokens"], "column_encodings": ["str", f"ndarray:{kind.name}"],
        "column_sizes": [None, None],
    }  # fmt: skip


def mds_shard(kind: np.dtype[Any], ids: Sequence[str], tokens: Sequence[np.ndarray]) -> bytes:
    """One shard of MDS: number and offsets of the samples, the configuration, the samples."""
    config = json.dumps(mds_config(kind), sort_keys=True).encode()
    samples = [_mds_sample(name.encode(), each) for name, each in zip(ids, tokens, strict=True)]
    offsets = np.cumsum([4 + 4 * (len(samples) + 1) + len(config), *map(len, samples)])
    return b"".join([struct.pack("<I", len(samples)), offsets.astype("<u4").tobytes(), config, *samples])


def _mds_sample(name: bytes, tokens: np.ndarray) -> bytes:
    """Sizes of both columns, then the columns: a string, and an array with one axis, whose length comes first."""
    width = 0 if len(tokens) < 1 << 8 else 1 if len(tokens) < 1 << 16 else 2
    head = bytes([1 << 2 | width]) + len(tokens).to_bytes(1 << width, "little")
    data = tokens.tobytes()
    return struct.pack("<2I", len(name), len(head) + len(data)) + name + head + data


def mds_index(kind: np.dtype[Any], shards: Iterable[tuple[str, int, int]]) -> bytes:
    """`index.json` of one folder of MDS, from (file name, bytes, samples) of its shards."""
    found = [
        mds_config(kind)
        | {"raw_data": {"basename": name, "bytes": size, "hashes": {}}, "zip_data": None, "samples": samples}
        for name, size, samples in shards
    ]
    return (json.dumps({"version": 2, "shards": found}, sort_keys=True) + "\n").encode()


def llama_factory(pieces: Iterable[Piece], *, chat: bool) -> bytes:
    """`dataset_info.json`, by which LLaMA-Factory finds the folders of text."""
    columns: Mapping[str, Any] = {"columns": {"prompt": "text"}}
    if chat:
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        columns = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    folders = {(piece.dataset, piece.split) for piece in pieces}
    names = {dataset for dataset, _ in folders}
    found = {
        _llama_factory_name(*each, names): {"file_name": "/".join(each), **columns} for each in folders
    }  # fmt: skip
    return (json.dumps(found, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()


def _llama_factory_name(dataset: str, split: str, datasets: Collection[str]) -> str:
    """The name of a folder for --dataset: `q`, `q_test`; `q.test` where a dataset is called `q_test`.

    A dataset's name has no dot, so no two folders have one name.
    """
    if split == "train":
        return dataset
    name = f"{dataset}_{split}"
    return f"{dataset}.{split}" if name in datasets else name


def owned(place: Path, form: Format, datasets: Iterable[str]) -> set[Path]:
    """The files in a folder that an export in this format may have written, whole or not, but no other file."""
    pairs = [(dataset, split) for dataset in datasets for split in SPLITS]
    match form.name:
        case "nanogpt":
            patterns = [f"{_SHORT.get(split, split)}.bin*" for split in SPLITS]
        case "llmc":
            patterns = [f"{_SHORT.get(split, split)}_??????.bin*" for split in SPLITS]
        case "megatron":
            patterns = [f"{dataset}_{split}.{end}" for dataset, split in pairs for end in ("bin*", "idx")]
        case _:
            stem = "shard" if form.name == "mds" else "part"
            patterns = [f"{dataset}/{split}/{stem}?*{form.suffix}*" for dataset, split in pairs]
            patterns += [f"{dataset}/{split}/index.json" for dataset, split in pairs]
    patterns += [f"{LINEAGE}/*-?????.parquet", f"{PIECES}/*-?????.data", f"{PIECES}/*-?????.documents"]
    return {path for pattern in patterns for path in place.glob(pattern)}
