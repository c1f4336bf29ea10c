"""Places of characters in all documents as single numbers, and the runs that pairs of places make up. Pure.

A place is the rank of the document's split, the document's number and a position in its text, in one uint64. So numbers
ascend in the order in which documents are preferred (test, validation, train; number), and within one by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_POSITION = np.uint64(30)
"""Bits of a position: a record has at most 16 MiB, so no text has 2^30 characters."""
_RANK = np.uint64(62)
_NUMBER = np.uint64(2**32 - 1)
_POSITIONS = np.uint64(2**30 - 1)


def places_of(ranks: np.ndarray, documents: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """[places] uint64 from ranks of splits, numbers of documents and positions."""
    upper = ranks.astype(np.uint64) << _RANK | documents.astype(np.uint64) << _POSITION
    return np.asarray(upper | positions.astype(np.uint64))


def owners_of(places: np.ndarray) -> np.ndarray:
    """[places] uint64: document and rank of each, equal where the document is."""
    return np.asarray(places >> _POSITION)


def documents_of(places: np.ndarray) -> np.ndarray:
    """[places] int64: the document of each."""
    return (places >> _POSITION & _NUMBER).astype(np.int64)


def ranks_of(places: np.ndarray) -> np.ndarray:
    """[places] int64: the rank of each document's split."""
    return (places >> _RANK).astype(np.int64)


def positions_of(places: np.ndarray) -> np.ndarray:
    """[places] int64: the position of each in its text."""
    return (places & _POSITIONS).astype(np.int64)


def edges_of(rank: int, first: int, count: int) -> np.ndarray:
    """[2] uint64: the places of a split in `count` documents from `first` on lie from the one to below the other."""
    return np.array([(rank << 62) + (number << 30) for number in (first, first + count)], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of characters that stand in an earlier document too."""

    places: np.ndarray
    """[runs] uint64: where each begins."""
    lengths: np.ndarray
    """[runs] int64."""
    firsts: np.ndarray
    """[runs] uint64: where the same characters begin in the first document that has them."""

    def take(self, which: np.ndarray | slice) -> Runs:
        """Some of the runs."""
        return Runs(self.places[which], self.lengths[which], self.firsts[which])

    def in_order(self) -> Runs:
        """The same by document, position and length."""
        return self.take(np.lexsort((self.lengths, positions_of(self.places), documents_of(self.places))))


def no_runs() -> Runs:
    """Not a single one."""
    return Runs(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64))


def joined(parts: list[Runs]) -> Runs:
    """The runs of all parts."""
    parts = [no_runs(), *parts]
    return Runs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("places", "lengths", "firsts")))


def runs_of(places: np.ndarray, firsts: np.ndarray, least: int) -> Runs:
    """Runs from places where `least` characters begin that an earlier document has at `firsts`."""
    order = np.argsort(places)
    places, firsts = places[order], firsts[order]
    opens = np.ones(len(places), dtype=np.bool_)
    one = np.uint64(1)
    opens[1:] = (places[1:] != places[:-1] + one) | (firsts[1:] != firsts[:-1] + one)
    starts = np.flatnonzero(opens)
    return Runs(places[starts], np.diff(starts, append=len(places)) + least - 1, firsts[starts])


def fewest(runs: Runs) -> Runs:
    """The fewest of some runs, which are in order of their places, that have all characters of them.

    Where a character is repeated, a run begins at nearly each place; and next to what thousands share, a few characters
    more are those of another document by chance. Of runs that go on from a place it is the longest.
    """
    begins, ends = runs.places, runs.places + runs.lengths.astype(np.uint64)
    reach = np.maximum.accumulate(ends)
    longer = np.ones(len(ends), dtype=np.bool_)
    longer[1:] = ends[1:] > reach[:-1]
    longest = np.maximum.accumulate(np.where(longer, np.arange(len(ends)), 0))  # of the runs up to each
    kept, at = list[int](), 0
    while at < len(begins):
        end = begins[at]
        while True:
            at = int(np.searchsorted(begins, end, side="right"))
            best = int(longest[at - 1])
            if ends[best] <= end:
                break
            kept.append(best)
            end = ends[best]
    return runs.take(np.array(kept, dtype=np.int64))


def equal_stretches(one: np.ndarray, other: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Where two arrays of codes of one length agree for at least `least` codes in a row, as (begin, end)."""
    differ = np.flatnonzero(one != other).tolist()
    return [(begin + 1, end) for begin, end in pairwise([-1, *differ, len(one)]) if end - begin - 1 >= least]


def united(begins: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretches that overlap or touch, as one: [stretches] begins and ends, and [runs] the stretch of each.

    `begins` ascend.
    """
    reach = np.maximum.accumulate(begins + lengths.astype(begins.dtype))
    opens = np.ones(len(begins), dtype=np.bool_)
    opens[1:] = begins[1:] > reach[:-1]
    starts = np.flatnonzero(opens)
    return begins[starts], reach[np.append(starts[1:], len(begins))[: len(starts)] - 1], np.cumsum(opens) - 1
