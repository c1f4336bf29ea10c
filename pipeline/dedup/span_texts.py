"""The texts of first documents that others repeat, in one temporary file, and the comparison of runs with them.

In: documents shards and runs. Out: runs whose characters are those of the first document; their texts.
Invariants: a run that differs from its first document somewhere is divided there, and what is shorter than a run goes.
Cost: four bytes on disk for each character that others repeat, once however many do; one run in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from corpus.pipeline.dedup import places
from corpus.pipeline.dedup.places import Runs
from corpus.pipeline.signatures.files import SignatureShard, range_slice, read_batches
from corpus.pipeline.text.codepoints import codes_of, text_of
from corpus.pipeline.workspace.files import disk_errors, open_for_owner

_CODE_BYTES = 4


@dataclass(frozen=True, slots=True)
class StoredTexts:
    """Stretches of the texts of a shard that are stored."""

    path: Path
    lines: np.ndarray
    """[stretches] int64, ascending."""
    begins: np.ndarray
    lengths: np.ndarray
    offset: int
    """Where the first lies in the file, in characters; the others follow."""


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs of a shard that are compared with stored texts."""

    path: Path
    first: int
    runs: Runs
    """In order of their documents."""
    offsets: np.ndarray
    """[runs] int64: where the text of the first document lies in the file, in characters."""


class SpanTexts:
    """Passages: stretches of first documents that runs repeat; those that overlap are one."""

    def __init__(self, path: Path, runs: Runs) -> None:
        self.path = path
        begins = _without_rank(runs.firsts)
        order = np.argsort(begins, kind="stable")
        self.begins, ends, _ = places.united(begins[order], runs.lengths[order])
        """[passages] uint64: where each begins, in order of documents."""
        self.lengths = (ends - self.begins).astype(np.int64)
        """[passages] int64."""
        self.offsets = np.cumsum(self.lengths) - self.lengths
        """[passages] int64: where each lies in the file, in characters."""

    def passages_of(self, firsts: np.ndarray) -> np.ndarray:
        """[runs] int64: the passage that each repeats a part of."""
        return np.searchsorted(self.begins, _without_rank(firsts), side="right") - 1

    def text(self, first: np.uint64, length: int) -> str:
        """The characters of a run, by its place in its first document."""
        (offset,) = self._offsets(np.array([first]))
        with disk_errors(self.path), self.path.open("rb", buffering=0) as opened:
            return text_of(_read(opened, int(offset), length))

    def pieces(self, shards: Iterable[SignatureShard]) -> list[StoredTexts]:
        """What is stored of each shard."""
        found, documents, positions = [], places.documents_of(self.begins), places.positions_of(self.begins)
        for shard in shards:
            own = range_slice(documents, shard.first, shard.count)
            if own.start < own.stop:
                lines = documents[own] - shard.first
                offset = int(self.offsets[own.start])
                found.append(StoredTexts(shard.path, lines, positions[own], self.lengths[own], offset))
        return found

    def checks(self, shards: Iterable[SignatureShard], runs: Runs) -> list[ComparedRuns]:
        """The runs of each shard, with what they are compared with."""
        runs = runs.in_order()
        found, documents, offsets = [], places.documents_of(runs.places), self._offsets(runs.firsts)
        for shard in shards:
            own = range_slice(documents, shard.first, shard.count)
            if own.start < own.stop:
                found.append(ComparedRuns(shard.path, shard.first, runs.take(own), offsets[own]))
        return found

    def _offsets(self, firsts: np.ndarray) -> np.ndarray:
        passages = self.passages_of(firsts)
        within = _without_rank(firsts) - self.begins[passages]
        return np.asarray(self.offsets[passages] + within.astype(np.int64))


def _without_rank(firsts: np.ndarray) -> np.ndarray:
    """[runs] uint64: places in order of documents, whatever the split."""
    return places.places_of(np.zeros_like(firsts), places.documents_of(firsts), places.positions_of(firsts))


def write(piece: StoredTexts, *, file: Path) -> int:
    """Write the stretches of a shard at their offset; runs in a worker. Returns how many characters."""
    with disk_errors(file), os.fdopen(open_for_owner(str(file), os.O_WRONLY | os.O_CREAT), "wb") as out:
        out.seek(piece.offset * _CODE_BYTES)
        for number, text in _texts(piece.path, piece.lines):
            begin = int(piece.begins[number])
            out.write(codes_of(text[begin : begin + int(piece.lengths[number])]).tobytes())
    return int(piece.lengths.sum())


def compare(piece: ComparedRuns, *, file: Path, least: int) -> Runs:
    """The runs of a shard as far as they are equal to their first documents; runs in a worker."""
    runs, kept = piece.runs, list[tuple[int, int, int]]()
    positions = places.positions_of(runs.places)
    with disk_errors(file), file.open("rb", buffering=0) as opened:
        for number, text in _texts(piece.path, places.documents_of(runs.places) - piece.first):
            begin, length = int(positions[number]), int(runs.lengths[number])
            own, stored = codes_of(text[begin : begin + length]), _read(opened, int(piece.offsets[number]), length)
            kept += [(number, *stretch) for stretch in places.equal_stretches(own, stored, least)]
    which, begins, ends = np.array(kept, dtype=np.int64).reshape(-1, 3).T
    moved = begins.astype(np.uint64)
    return Runs(runs.places[which] + moved, ends - begins, runs.firsts[which] + moved)


def _texts(path: Path, lines: np.ndarray) -> Iterable[tuple[int, str]]:
    """The text of each line, for lines that ascend and may repeat, with its place among them."""
    single, counts = np.unique(lines, return_counts=True)
    number, sizes = 0, iter(counts.tolist())
    for texts, _ in read_batches(path, single):
        for text in texts:
            for _ in range(next(sizes)):
                yield number, text
                number += 1


def _read(file: IO[bytes], offset: int, length: int) -> np.ndarray:
    """[length] uint32 codes of the file."""
    return np.frombuffer(os.pread(file.fileno(), length * _CODE_BYTES, offset * _CODE_BYTES), dtype="<u4")


def stretches(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The characters of documents that are in runs, each once: [stretches] documents, begins and ends."""
    begins = _without_rank(runs.places)
    order = np.argsort(begins, kind="stable")
    starts, reach, _ = places.united(begins[order], runs.lengths[order])
    positions = places.positions_of(starts)
    return places.documents_of(starts), positions, positions + (reach - starts).astype(np.int64)
