"""Documents in Parquet: schemas, shards, and how a row names its documents.

In: shards and document references.
Out: batches of documents, or one document.
Cost: one row group in memory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.storage import shard_counts
from corpus.pipeline.workspace.checked import bring, checked
from corpus.pipeline.workspace.layout import Workspace

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("prompt_length", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)
CHAT_SCHEMA = DOCUMENT_SCHEMA.append(
    pa.field("turns", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False)
)
"""Documents of conversations: `turns` is where each turn but the first begins in the text."""
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)
REMOVED_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("whole", pa.bool_(), nullable=False),
    ]
)
"""What `dedup` and `decontaminate` leave out of the rows, in order of (document, start): characters `start` to `end` of
a document, all of it when `whole`."""
COUNTS_KEY = b"corpus.counts"
FINGERPRINT_KEY = b"corpus.fingerprint"
_CHECK_DOCUMENTS = 256
_CHECK_CHARACTERS = 200_000


def part_name(number: int) -> str:
    """File name of a documents shard.

    >>> part_name(7)
    'part-00007.parquet'
    """
    return f"part-{number:05d}.parquet"


def part_number(path: Path) -> int:
    """The number in a shard's file name."""
    return int(path.stem.rpartition("-")[2])


def document_ref(shard: int, line: int | np.ndarray) -> Any:
    """The reference of a document: shard number in the upper 32 bits, line in the lower."""
    return (shard << 32) | line


def split_ref(document: int) -> tuple[int, int]:
    """Shard number and line of a document.

    >>> split_ref(document_ref(3, 17))
    (3, 17)
    """
    return document >> 32, document & 0xFFFFFFFF


def part_metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts in the metadata of a shard; None if it is unreadable or has no such metadata."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return metadata[FINGERPRINT_KEY].decode(), json.loads(metadata[COUNTS_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def row_groups(path: Path) -> tuple[int, ...]:
    """Rows of each row group of a Parquet file. Raises DamageError if it cannot be read."""
    with reading_part(path):
        metadata = pq.read_metadata(path)
    return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


def document_count(path: Path) -> int:
    """The documents of a shard. Raises DamageError if it cannot be read."""
    counts = shard_counts.known(path)
    return sum(row_groups(path)) if counts is None else counts.documents


def group_count(path: Path) -> int:
    """The row groups of a shard. Raises DamageError if it cannot be read."""
    counts = shard_counts.known(path)
    return len(row_groups(path) if counts is None or counts.groups is None else counts.groups)


def characters_of(path: Path) -> Mapping[str, int]:
    """The characters of a shard by split; none where it cannot be read."""
    if (counts := shard_counts.known(path)) is not None:
        return counts.characters
    metadata = part_metadata(path)
    found: Mapping[str, int] = metadata[1]["characters"] if metadata else {}
    return found


def parts(folder: Path) -> list[Path]:
    """The document shards of a folder in order of their numbers."""
    return sorted(folder.glob("part-*.parquet"), key=part_number)


def checked_parts(workspace: Workspace, folder: Path) -> Iterator[Path]:
    """The document shards of a folder in order, each compared with its ledger before it is given.

    Raises:
        DamageError: a shard is not what its ledger says.

    """
    bring(workspace, folder)
    return (checked(workspace, path) for path in parts(folder))


def part_groups(folder: Path, split: str, characters: int) -> list[tuple[list[Path], int]]:
    """Groups of consecutive shards with up to `characters` of a split, and how many each has; a shard stays whole."""
    groups: list[tuple[list[Path], int]] = []
    for path in parts(folder):
        found = characters_of(path).get(split, 0)
        if not found:
            continue
        if groups and groups[-1][1] + found <= characters:
            groups[-1] = ([*groups[-1][0], path], groups[-1][1] + found)
        else:
            groups.append(([path], found))
    return groups


def read_part(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """The documents of one shard, as (shard number, first line, batch), one row group at a time."""
    line = 0
    with reading_part(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, columns=columns).to_batches():
                yield part_number(path), line, batch
                line += batch.num_rows


def has_turns(path: Path) -> bool:
    """Whether the documents of a shard are conversations."""
    with reading_part(path):
        return "turns" in pq.read_schema(path).names


def first_texts(path: Path, most: int) -> pa.Array:
    """The first texts of a shard, as strings; no more of it is unpacked."""
    with reading_part(path), pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=most, columns=["text"]), None)
        return pa.nulls(0, pa.string()) if batch is None else batch["text"].cast(pa.string())


def check_sample(folder: Path) -> pa.Array:
    """Texts of documents spread over the dataset, on which the kernel is checked."""
    paths = parts(folder)
    chosen = paths if len(paths) <= 8 else [paths[index * len(paths) // 8] for index in range(8)]
    sample = [pa.nulls(0, pa.string())]
    for path in chosen:
        texts = first_texts(path, _CHECK_DOCUMENTS // len(chosen))
        ends = itertools.accumulate(pc.utf8_length(texts).to_pylist())
        short = sum(end < _CHECK_CHARACTERS // len(chosen) for end in ends)
        sample.append(texts.slice(0, short + 1))
    return pa.concat_arrays(sample)


def document_at(
    workspace: Workspace, dataset: str, document: int, columns: Sequence[str] | None = None
) -> dict[str, Any]:
    """A document by its reference.

    Raises:
        WorkspaceError: there is no such document.
        DamageError: its shard is not what its ledger says.

    """
    shard, line = split_ref(document)
    path = checked(workspace, workspace.documents(dataset) / part_name(shard))
    with reading_part(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if line < rows:
                found: dict[str, Any] = file.read_row_group(group, columns=columns).slice(line, 1).to_pylist()[0]
                return found
            line -= rows
    raise WorkspaceError(f"{path} has no document {split_ref(document)[1]}", hint="Run `corpus verify`.")


@contextmanager
def reading_part(path: Path) -> Iterator[None]:
    """Raise DamageError, naming the shard, where it cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DamageError(
            f"{path} cannot be read: {error}", hint="`corpus verify` names every damaged file and how to rebuild it."
        ) from error
