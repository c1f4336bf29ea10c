"""Search for runs of characters that stand in several documents (ExactSubstr of Lee et al., 2022).

In: documents shards, and which documents are searched.
Out: the runs of at least `least` characters of a document that an earlier document has too, with the first document
that has them; the texts of the runs, in a temporary file, while the search is open.
Invariants: wherever `least` characters stand that an earlier document has, they are in runs, as few as have them all. A
run names the first document with each `least` characters of it, and their first place there, and is compared with it
character by character. Workers and partitions change nothing. What one document alone repeats is no run.
Method: fingerprints (`dedup.winnowing`) that two documents share show where a common run may stand. Around these the
hashes of all stretches of `least` characters are grouped by value, so what thousands share costs as much as it is long.
Cost: in memory, a documents shard or a partition in each worker, 100 bytes for each row of a partition, of which there
are at most 2 million up to 500 million rows; and 120 bytes for each run. In temporary files, 16 bytes for each
fingerprint, of which there is one for a quarter of `least` characters; then 16 for each character near a shared
fingerprint, and 16 for each of these where a run goes on; then four for each character that others repeat.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from corpus.pipeline.dedup import clusters, places, span_files, span_texts
from corpus.pipeline.dedup.places import Runs
from corpus.pipeline.dedup.span_files import Partition, Scratch
from corpus.pipeline.dedup.span_texts import SpanTexts
from corpus.pipeline.dedup.winnowing import Parts, fingerprints, gram_hashes, shape
from corpus.pipeline.progress import Progress
from corpus.pipeline.signatures.files import KEEP_FIRST, SignatureShard, SignatureStore, read_batches
from corpus.pipeline.signatures.minhash import concat_ranges
from corpus.pipeline.workers import kept, run_pieces, worker_count

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FoundSpans:
    """The runs of all documents, while their texts are at hand."""

    runs: Runs
    """By document, position and length."""
    texts: SpanTexts
    counts: dict[str, int]
    """Fingerprints, those that documents share, and characters where a common run could begin."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """A documents shard, and the file that is written for it."""

    path: Path
    first: int
    """Number of its first document."""
    count: int
    out: Path


@contextlib.contextmanager
def search(
    store: SignatureStore, stays: np.ndarray, least: int, folder: Path, *, workers: int, progress: Progress,
    partitions: int = 0,
) -> Iterator[FoundSpans]:  # fmt: skip
    """Find the runs of at least `least` characters that documents share, among those that stay ([documents] bool).

    Temporary files lie in `folder` until the block ends. With `partitions` rows are grouped in so many, else in as many
    as bound the memory.
    """
    with kept(), span_files.scratch_files(folder) as scratch:

        def each(what: str, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
            made = []
            with progress.bar(f"dedup: {what}", len(pieces), "pieces"):
                for one in run_pieces(work, pieces, workers=worker_count(workers, len(pieces)), here=True):
                    made.append(one)
                    progress.advance(1)
            return made

        shards = [shard for shard in store.shards if stays[shard.first : shard.first + shard.count].any()]
        texts = [(_shard(shard, scratch, "prints"), _lines(stays, shard)) for shard in shards]
        edges = each("fingerprints", partial(fingerprint_rows, least=least), texts)
        files = [(shard.out, own) for (shard, _), own in zip(texts, edges, strict=True)]
        shared = span_files.partitions(files, scratch, "shared", partitions)
        marked = each("shared fingerprints", shared_places, shared)
        scratch.delete("prints")
        around = [_shard(shard, scratch, "stretches") for shard in shards]
        work = partial(stretch_rows, marked=[part.out for part in shared], least=least)
        stretches = each("stretches", work, around)
        scratch.delete("shared")
        files_ = [(shard.out, own) for shard, own in zip(around, stretches, strict=True)]
        repeated = span_files.partitions(files_, scratch, "repeated", partitions)
        each("repeated stretches", repeated_places, repeated)
        scratch.delete("stretches")
        found = places.joined(each("runs", partial(runs_of, rows=[part.out for part in repeated], least=least), around))
        scratch.delete("repeated")
        held = SpanTexts(scratch.path("texts"), found)
        each("texts", partial(span_texts.write, file=held.path), held.pieces(shards))
        checked = each(
            "comparing", partial(span_texts.compare, file=held.path, least=least), held.checks(shards, found)
        )
        counts = {
            "fingerprints": sum(int(own[-1]) for own in edges),
            "shared_fingerprints": sum(marked),
            "candidate_characters": sum(int(own[-1]) for own in stretches),
        }
        yield FoundSpans(places.joined(checked).in_order(), held, counts)


def _shard(shard: SignatureShard, scratch: Scratch, kind: str) -> _Shard:
    return _Shard(shard.path, shard.first, shard.count, scratch.path(kind, shard.first))


def _lines(stays: np.ndarray, shard: SignatureShard) -> np.ndarray:
    return np.flatnonzero(stays[shard.first : shard.first + shard.count])


def fingerprint_rows(piece: tuple[_Shard, np.ndarray], *, least: int) -> np.ndarray:
    """Write the fingerprints of some lines of a shard; runs in a worker. Returns where each range begins."""
    shard, lines = piece
    values, found, done = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], 0
    for texts, splits in read_batches(shard.path, lines):
        prints = fingerprints(texts, least)
        owners = np.repeat(np.arange(len(texts)), prints.counts)
        ranks = np.array(list(map(KEEP_FIRST.index, splits)))[owners]
        values.append(prints.hashes)
        found.append(places.places_of(ranks, lines[done + owners] + shard.first, prints.positions))
        done += len(texts)
    return span_files.write_rows(shard.out, np.concatenate(values), np.concatenate(found))


def shared_places(partition: Partition) -> int:
    """Write the places of the fingerprints that two documents share, in order; runs in a worker. Returns how many."""
    ordered, _, opens, elsewhere = _grouped(*span_files.rows_of(partition))
    shared = np.logical_or.reduceat(elsewhere, opens) if len(opens) else elsewhere
    kept = np.sort(ordered[np.repeat(shared, np.diff(opens, append=len(ordered)))])
    span_files.write_columns(partition.out, kept)
    return len(kept)


def repeated_places(partition: Partition) -> int:
    """Write the places of stretches that an earlier document has, and where it has them first; runs in a worker.

    Returns how many.
    """
    ordered, firsts, _, elsewhere = _grouped(*span_files.rows_of(partition))
    ordered, firsts = ordered[elsewhere], firsts[elsewhere]
    order = np.argsort(ordered)
    span_files.write_columns(partition.out, ordered[order], firsts[order])
    return len(order)


def _grouped(values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by value, without most of those whose value no other row has.

    Returns:
        [rows] their places, [rows] the first place with the value, [values] the first row of each value, and [rows]
        whether a row is in another document than the first place.

    """
    rows = clusters.repeated_rows(values)
    order = np.argsort(values[rows], kind="stable")  # in linear time: they are in order but for their lower bits
    found, of = found[rows][order], values[rows][order]
    changes = np.ones(len(of), dtype=np.bool_)
    changes[1:] = of[1:] != of[:-1]
    opens = np.flatnonzero(changes)
    least = np.minimum.reduceat(found, opens) if len(opens) else found
    firsts = np.repeat(least, np.diff(opens, append=len(found)))
    return found, firsts, opens, places.owners_of(found) != places.owners_of(firsts)


def stretch_rows(shard: _Shard, *, marked: Sequence[Path], least: int) -> np.ndarray:
    """Write the hashes of all stretches of a shard with a marked fingerprint; runs in a worker.

    Returns where each range begins.
    """
    (at,) = span_files.of_documents(marked, 1, shard.first, shard.count)
    owners = places.documents_of(at) - shard.first
    order = np.lexsort((at, owners))  # by line, whatever the split
    at, owners = at[order], owners[order]
    lines, counts = np.unique(owners, return_counts=True)
    heads = at[np.cumsum(counts) - counts] - places.positions_of(at[np.cumsum(counts) - counts]).astype(np.uint64)
    ends = np.concatenate(([0], np.cumsum(counts)))
    values, found, done = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], 0
    for texts, _ in read_batches(shard.path, lines) if len(lines) else ():
        own = slice(done, done + len(texts))
        positions = places.positions_of(at[ends[own.start] : ends[own.stop]])
        hashes, of, begins = stretches_around(texts, positions, counts[own], least)
        values.append(hashes)
        found.append(heads[own][of] | begins.astype(np.uint64))
        done += len(texts)
    return span_files.write_rows(shard.out, np.concatenate(values), np.concatenate(found))


def stretches_around(
    texts: Sequence[str], positions: np.ndarray, counts: np.ndarray, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stretches of `least` characters that hold a fingerprint.

    Args:
        texts: texts of at least so many characters.
        positions: [fingerprints] where they begin in their texts, text by text.
        counts: [texts] how many each text has.
        least: characters of a stretch.

    Returns:
        [stretches] uint64 hashes, [stretches] their texts, and [stretches] where each begins in its text.

    """
    _, window = shape(least)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    of = np.repeat(np.arange(len(texts)), counts)
    begins = starts[of] + np.maximum(positions - window + 1, 0)
    ends = starts[of] + np.minimum(positions, lengths[of] - least) + 1
    begins, ends, _ = places.united(begins, ends - begins)
    owners, sizes = np.searchsorted(starts, begins, side="right") - 1, ends - begins
    hashes = gram_hashes(texts, Parts(owners, begins - starts[owners], sizes), least)
    return hashes, np.repeat(owners, sizes), concat_ranges(begins - starts[owners], sizes)


def runs_of(shard: _Shard, *, rows: Sequence[Path], least: int) -> Runs:
    """The runs of a shard; runs in a worker."""
    at, firsts = span_files.of_documents(rows, 2, shard.first, shard.count)
    return places.fewest(places.runs_of(at, firsts, least))
