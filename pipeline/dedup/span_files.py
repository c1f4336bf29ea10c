"""Temporary files of the search for common runs: rows of (value, place) in ranges of their values, and places in order.

In: rows of a documents shard. Out: the rows of a partition, a run of ranges of all files; the places of a documents
shard, from the files of all partitions.
Invariants: partitions share no value. A file is written by one worker and read by others; all are gone at the end.
Cost: 16 bytes a row on disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from corpus.pipeline.dedup.places import edges_of
from corpus.pipeline.signatures.files import KEEP_FIRST
from corpus.pipeline.workspace.files import disk_errors, open_for_owner

RANGES = 256
"""Ranges of values in a file: as many partitions there can be."""
ROWS_AT_ONCE = 1 << 21
"""Rows of a partition, while there are not more than `RANGES` of them."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(56)
_ROW_BYTES = 8


@dataclass(frozen=True, slots=True)
class Scratch:
    """Names of the temporary files of one search."""

    folder: Path
    process: int

    def path(self, kind: str, number: int = 0) -> Path:
        """A file of this kind, by its number; what a killed run leaves, `remove_leftovers` deletes."""
        return self.folder / f".spans-{kind}-{number:05d}.{self.process}.tmp"

    def delete(self, kind: str = "*") -> None:
        """Delete the files of a kind, or all."""
        for path in self.folder.glob(f".spans-{kind}-*.{self.process}.tmp"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_files(folder: Path) -> Iterator[Scratch]:
    """Temporary files in a folder, which are deleted when the block ends."""
    scratch = Scratch(folder, os.getpid())
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield scratch
    finally:
        scratch.delete()


def write_rows(path: Path, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Write rows by range. Returns [RANGES + 1] int64, where each range begins.

    The least of many hashes are small, so a range is made of the upper bits of a product.
    """
    ranges = (values * _FACTOR >> _SHIFT).astype(np.uint8)
    order = np.argsort(ranges, kind="stable")  # by radix, in linear time
    write_columns(path, values[order], places[order])
    return np.concatenate(([0], np.cumsum(np.bincount(ranges, minlength=RANGES))))


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows of a run of ranges, in all files."""

    files: Sequence[tuple[Path, int, int, int]]
    """Each file with its first row, its end, and the rows of the whole file."""
    out: Path
    """Where what is found is written."""


def partitions(files: Sequence[tuple[Path, np.ndarray]], scratch: Scratch, kind: str, count: int) -> list[Partition]:
    """As many partitions as bound the memory, or `count`; each writes a file of this kind."""
    total = sum(int(edges[-1]) for _, edges in files)
    count = count or max(1, min(RANGES, -(-total // ROWS_AT_ONCE)))
    bounds = [RANGES * part // count for part in range(count + 1)]
    return [
        Partition(
            [(path, int(edges[begin]), int(edges[end]), int(edges[-1])) for path, edges in files],
            scratch.path(kind, number),
        )
        for number, (begin, end) in enumerate(pairwise(bounds))
    ]


def rows_of(partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """[rows] uint64 values and [rows] uint64 places of a partition."""
    values, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for path, begin, end, total in partition.files:
        if begin < end:
            with disk_errors(path), path.open("rb") as file:
                for column, found in enumerate((values, places)):
                    file.seek((column * total + begin) * _ROW_BYTES)
                    found.append(np.frombuffer(file.read((end - begin) * _ROW_BYTES), dtype="<u8"))
    return np.concatenate(values), np.concatenate(places)


def write_columns(path: Path, *columns: np.ndarray) -> None:
    """Write columns of uint64, one after another."""
    with disk_errors(path), os.fdopen(open_for_owner(str(path), os.O_WRONLY | os.O_CREAT), "wb") as file:
        for column in columns:
            file.write(np.ascontiguousarray(column, dtype="<u8").data)


def of_documents(files: Sequence[Path], columns: int, first: int, count: int) -> list[np.ndarray]:
    """Columns of the rows whose place, the first column, is in `count` documents from `first` on; files are in order
    of places.
    """
    found: list[list[np.ndarray]] = [[np.zeros(0, np.uint64)] for _ in range(columns)]
    for path in files:
        with disk_errors(path):
            if not path.stat().st_size:
                continue
            rows = np.memmap(path, dtype="<u8", mode="r").reshape(columns, -1)
        for rank in range(len(KEEP_FIRST)):
            begin, end = np.searchsorted(rows[0], edges_of(rank, first, count)).tolist()
            if begin < end:
                for column, parts in zip(rows, found, strict=True):
                    parts.append(np.array(column[begin:end]))
    return [np.concatenate(parts) for parts in found]
