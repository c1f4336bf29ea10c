"""Which documents belong together, and which of them stay: on numbers alone.

In: values of documents that are numbered from 0, and how alike pairs are. Out: clusters, and who is kept for each.
Invariants: a document is tested at most `ROUNDS` times for each value it shares, however many share it; what comes out
depends on the numbers and values alone.
Method: documents that share a value are tested against the first of them; those that are not like it are tested
against the first that remains, and so on. Clusters are a union-find (Tarjan, 1975) worked on whole arrays, and are
taken apart again into those that are like the one that is kept.
Cost: four bytes a document for the clusters, eight for each document whose values are being compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 8
"""First ones that a document with a shared value is tested against: groups of up to nine are tested pair by pair."""

STARS = 64
"""Turns in which a chain of likes is taken apart; its cost is bounded, however long it is."""

Test = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Pairs as two arrays of documents to [pairs] bool: whether they are alike."""
Similarity = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Pairs as two arrays of documents to [pairs] float64: how alike they are, if at least so much."""


class Clusters:
    """Documents from 0 on, each in one cluster, which goes by its smallest number."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count, dtype=np.uint32)

    def find(self, documents: np.ndarray) -> np.ndarray:
        """[documents] uint32: the smallest number of each one's cluster."""
        while True:
            parents = self._parents[documents]
            above = self._parents[parents]
            if np.array_equal(parents, above):
                return np.asarray(parents)
            self._parents[documents] = above

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """Put the clusters of each pair together."""
        while len(first):
            one, other = self.find(first), self.find(second)
            apart = one != other
            first, second = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(self._parents, second, first)

    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """[members] uint32 documents that are not alone, in order, and [members] uint32 the number of their cluster."""
        followers = np.flatnonzero(self._parents != np.arange(len(self._parents), dtype=np.uint32)).astype(np.uint32)
        members = np.union1d(followers, self.find(followers))
        return members, self.find(members)


@dataclass(frozen=True, slots=True)
class Groups:
    """Documents that share a value."""

    members: np.ndarray
    """[members] uint32: documents, group by group, in order within a group."""
    numbers: np.ndarray
    """[members] uint32: the number of each one's group, ascending."""

    def leaders(self) -> np.ndarray:
        """[members] uint32: the first document of each one's group."""
        opens = np.flatnonzero(_opens(self.numbers))
        return np.repeat(self.members[opens], np.diff(opens, append=len(self.numbers)))

    def only(self, chosen: np.ndarray) -> Groups:
        """Those for which `chosen` ([members] bool) is true."""
        return Groups(self.members[chosen], self.numbers[chosen])


def group(packed: np.ndarray) -> Groups:
    """The groups of two and more among [documents] `<u8` of value << 32 | document; the array is sorted in place."""
    packed.sort()
    values = packed.view("<u4")[1::2]
    again = np.zeros(len(packed) + 1, dtype=np.bool_)
    again[1:-1] = values[1:] == values[:-1]  # shares its value with the one before
    grouped = again[:-1] | again[1:]
    opens = ~again[:-1][grouped]
    return Groups(packed[grouped].astype(np.uint32), (np.cumsum(opens) - 1).astype(np.uint32))


def same(members: np.ndarray, *columns: np.ndarray) -> Groups:
    """The groups of members that have equal values in all columns."""
    order = np.lexsort((members, *columns))
    opens = _opens(*(column[order] for column in columns))
    return Groups(members[order], (np.cumsum(opens) - 1).astype(np.uint32))


def join(groups: Groups, clusters: Clusters, alike: Test) -> tuple[int, int]:
    """Unite what is alike within groups. Returns how many pairs were tested and how many of them were alike."""
    tested = found = 0
    for _ in range(ROUNDS):
        leaders = groups.leaders()
        apart = clusters.find(groups.members) != clusters.find(leaders)
        groups, leaders = groups.only(apart), leaders[apart]
        if not len(leaders):
            break
        passed = alike(leaders, groups.members)
        clusters.unite(leaders[passed], groups.members[passed])
        tested, found = tested + len(passed), found + int(passed.sum())
        groups = groups.only(clusters.find(groups.members) != clusters.find(leaders))
    return tested, found


def stars(
    members: np.ndarray, numbers: np.ndarray, ranks: np.ndarray, similarity: Similarity, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Who is kept: of a cluster the first, then the first of those that are not like it, and so on.

    A cluster is a chain, whose ends may have little in common. So each is compared with the first itself, and leaves
    only when like it. After `STARS` turns those that are left count as like the first of them.

    Args:
        members: [members] documents in order.
        numbers: [members] the number of each one's cluster.
        ranks: [members] of two documents of a cluster the one of lower rank, then of lower number, is first.
        similarity: tells how alike documents are, exactly where it is at least the last argument.
        threshold: least similarity of what is alike.

    Returns:
        [members] the document that is kept for each, and [members] float64 the similarity to it.

    """
    order = np.lexsort((members, ranks, numbers))
    left = Groups(order, numbers[order])
    kept, values = members.copy(), np.ones(len(members))
    for turn in range(STARS):
        if not len(left.members):
            break
        leaders, least = left.leaders(), threshold if turn < STARS - 1 else 0.0
        alike = similarity(members[leaders], members[left.members], least)
        passed = alike >= least
        kept[left.members[passed]], values[left.members[passed]] = members[leaders[passed]], alike[passed]
        left = left.only(~passed)
    return kept, values


def _opens(*columns: np.ndarray) -> np.ndarray:
    """[rows] bool: where a row differs from the one before in any column; the first does."""
    opens = np.zeros(len(columns[0]), dtype=np.bool_)
    opens[:1] = True
    for column in columns:
        opens[1:] |= column[1:] != column[:-1]
    return opens
