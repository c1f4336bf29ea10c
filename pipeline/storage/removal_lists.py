"""Lists of what a stage leaves out of the rows: a file for each documents shard, and an index for each dataset.

In: rows of `REMOVED_SCHEMA`. Out: `lists/<dataset>/part-NNNNN.parquet` in the stage's folder for each documents shard
of which something is left out, and `lists/<dataset>.json`, written last: which files there are, and their sums.
Invariants: the index holds the digest of each file, so whoever depends on the index depends on all of them.
Cost: a reader of a documents shard reads the list of that shard alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import DamageError
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, part_name, parts, reading_part
from corpus.pipeline.workspace.files import atomic, write_atomic

FOLDER = "lists"
_SHARD = np.int64(32)


@dataclass(frozen=True, slots=True)
class ListIndex:
    """The index of the lists of one dataset."""

    documents: Counter[str] = field(default_factory=Counter)
    """Documents left out whole, by split."""
    characters: Counter[str] = field(default_factory=Counter)
    """Characters left out, by split."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents and spans left out, by reason."""
    shards: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each list, by the name of its file."""

    def add(self, rows: pa.Table) -> None:
        """Count the rows of a list."""
        keys = ["split", "reason", "whole"]
        sums = rows.group_by(keys).aggregate([("start", "sum"), ("end", "sum"), ("document", "count")])
        for row in sums.to_pylist():
            self.reasons[row["reason"]] += row["document_count"]
            self.characters[row["split"]] += row["end_sum"] - row["start_sum"]
            if row["whole"]:
                self.documents[row["split"]] += row["document_count"]


def index_path(folder: Path, dataset: str) -> Path:
    """The index of a dataset's lists in a stage's folder."""
    return folder / FOLDER / f"{dataset}.json"


def list_path(folder: Path, dataset: str, part: str) -> Path:
    """The list of one documents shard in a stage's folder."""
    return folder / FOLDER / dataset / part


def by_shard(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Rows in order of their documents, as (number of the documents shard, its rows)."""
    shards = rows["document"].to_numpy() >> _SHARD
    numbers, begins = np.unique(shards, return_index=True)
    for number, (begin, end) in zip(numbers.tolist(), pairwise([*begins.tolist(), len(shards)]), strict=True):
        yield number, rows.slice(begin, end - begin)


def write(
    folder: Path, dataset: str, lists: Iterable[tuple[int, pa.Table]], digest: Callable[[Path], str]
) -> list[Path]:
    """Write the lists of a dataset, and delete those that it had. Returns the files, the index first.

    Args:
        folder: the stage's folder.
        dataset: the name of the dataset.
        lists: the number of a documents shard and its rows, in order; of a shard without rows no file is written.
        digest: the SHA-256 of a file.

    """
    index, written = ListIndex(), list[Path]()
    for number, rows in lists:
        if rows.num_rows:
            path = list_path(folder, dataset, part_name(number))
            with atomic(path) as out:
                pq.write_table(rows.select(REMOVED_SCHEMA.names).cast(REMOVED_SCHEMA), out, compression="zstd")
            index.add(rows)
            index.shards[path.name] = digest(path)
            written.append(path)
    for path in parts(folder / FOLDER / dataset):
        if path.name not in index.shards:
            path.unlink()
    values = {"documents": index.documents, "characters": index.characters, "reasons": index.reasons}
    place = index_path(folder, dataset)
    text = json.dumps({**values, "shards": index.shards}, ensure_ascii=False, sort_keys=True, indent=1)
    write_atomic(place, f"{text}\n".encode())
    return [place, *written]


def delete_others(folder: Path, datasets: Sequence[str], tables: Sequence[str]) -> None:
    """Delete the lists of other datasets, and tables beside the lists that are not among `tables`."""
    for path in (folder / FOLDER).glob("*.json"):
        if path.stem not in datasets:
            for part in parts(path.with_suffix("")):
                part.unlink()
            path.unlink()
    for path in folder.glob("*.parquet"):  # before version 3 of dedup a list was one file of its dataset
        if path.name not in tables:
            path.unlink()


def read_index(path: Path) -> ListIndex:
    """An index from its file. Raises DamageError if it cannot be read."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        documents, characters, reasons = (Counter(values[name]) for name in ("documents", "characters", "reasons"))
        return ListIndex(documents, characters, reasons, dict(values["shards"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{path} cannot be read: {error}", hint="`corpus verify` says how to rebuild it.") from error


def read_list(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a list. Raises DamageError if it cannot be read."""
    with reading_part(path), pq.ParquetFile(path) as file:
        return file.read(columns=columns)
