"""Clusters of similar documents, and which document of each is kept. Pure: works on numbers, reads no text.

In: values of documents, which are numbered from 0, and a similarity of pairs.
Out: clusters, and the document that is kept for each member.
Invariants: a document is tested at most `MAX_ROUNDS` times for each value it shares, whatever the size of the group,
and with no other document twice. The result depends on the numbers and values alone.
Method: documents that share a value are tested against the first of them, those not similar to it against the first
that remains, and so on. Clusters are a union-find (Tarjan, 1975) on whole arrays. Each is then divided, so that every
member is similar to the document kept for it.
Cost: four bytes a document for the clusters, 24 for each place in a group, eight for each pair that is not similar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_ROUNDS = 8
"""Tests of a document for each shared value: in groups of up to nine documents every pair is tested."""

MAX_TURNS = 64
"""Rounds in which a cluster is divided; this bounds the cost of a long chain."""

_HALF = np.uint64(32)

PairTest = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From pairs, as two arrays of documents, to [pairs] bool: whether they are similar."""
Similarity = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""From pairs, as two arrays of documents, to [pairs] float64: their similarity, exact where at least the float."""


class Clusters:
    """Documents from 0 on, each in one cluster, which is named by its smallest document."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count, dtype=np.uint32)

    def find(self, documents: np.ndarray) -> np.ndarray:
        """[documents] uint32: the cluster of each."""
        while True:
            parents = self._parents[documents]
            above = self._parents[parents]
            if np.array_equal(parents, above):
                return np.asarray(parents)
            self._parents[documents] = above

    def union(self, first: np.ndarray, second: np.ndarray) -> None:
        """Merge the clusters of each pair."""
        while len(first):
            one, other = self.find(first), self.find(second)
            apart = one != other
            first, second = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(self._parents, second, first)

    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """[members] uint32 documents in clusters of two and more, in order, and [members] uint32 their clusters."""
        followers = np.flatnonzero(self._parents != np.arange(len(self._parents), dtype=np.uint32)).astype(np.uint32)
        members = np.union1d(followers, self.find(followers))
        return members, self.find(members)


@dataclass(frozen=True, slots=True)
class Groups:
    """Documents that share a value."""

    members: np.ndarray
    """[members] uint32: documents, group by group, in order within a group."""
    numbers: np.ndarray
    """[members] uint32: the group of each, ascending."""

    def leaders(self) -> np.ndarray:
        """[members] uint32: the first document of each member's group."""
        opens = np.flatnonzero(_row_changes(self.numbers))
        return np.repeat(self.members[opens], np.diff(opens, append=len(self.numbers)))

    def of_many(self) -> Groups:
        """Those of two members and more, numbered anew."""
        many = self.where(_repeated(self.numbers))
        return Groups(many.members, (np.cumsum(_row_changes(many.numbers)) - 1).astype(np.uint32))

    def where(self, chosen: np.ndarray) -> Groups:
        """The members for which `chosen` ([members] bool) is true."""
        return Groups(self.members[chosen], self.numbers[chosen])


def groups_by_value(values: np.ndarray, documents: np.ndarray) -> Groups:
    """Groups of two and more documents with one value, from [rows] uint64 and [rows] uint32, in any order."""
    rows = repeated_rows(values)
    order = np.argsort(values[rows])
    ordered = values[rows[order]]
    again = _repeated(ordered)
    numbers = (np.cumsum(_row_changes(ordered[again])) - 1).astype(np.uint64)
    joined = numbers << _HALF | documents[rows[order[again]]]
    joined.sort()
    return Groups(joined.astype(np.uint32), (joined >> _HALF).astype(np.uint32))


def repeated_rows(values: np.ndarray) -> np.ndarray:
    """[rows] int64: the rows of values ([rows] uint64) that another row may have, and all that another one has.

    numpy sorts numbers several times as fast as it finds their order. So the upper bits of each value are sorted with
    the place of its row in the lower ones; only rows whose upper bits another row has are to be compared whole.
    """
    shift = np.uint64(max(1, len(values).bit_length()))
    packed = values >> shift << shift | np.arange(len(values), dtype=np.uint64)
    packed.sort()
    rows = packed[_repeated(packed >> shift)] & (np.uint64(1) << shift) - np.uint64(1)
    return np.asarray(rows.astype(np.int64))


def _repeated(ordered: np.ndarray) -> np.ndarray:
    """[values] bool: which of sorted values are there twice or more."""
    again = np.zeros(len(ordered) + 1, dtype=np.bool_)
    again[1:-1] = ordered[1:] == ordered[:-1]
    return again[:-1] | again[1:]


def groups_by_half(packed: np.ndarray) -> Groups:
    """The same for the lower half of values, from [documents] `<u8` of value << 32 | document; sorts it in place."""
    packed.sort()
    values = packed.view("<u4")[1::2]
    again = np.zeros(len(packed) + 1, dtype=np.bool_)
    again[1:-1] = values[1:] == values[:-1]
    grouped = again[:-1] | again[1:]
    opens = ~again[:-1][grouped]
    return Groups(packed[grouped].astype(np.uint32), (np.cumsum(opens) - 1).astype(np.uint32))


def groups_by_columns(members: np.ndarray, *columns: np.ndarray) -> Groups:
    """Groups of members with equal values in all columns."""
    order = np.lexsort((members, *columns))
    opens = _row_changes(*(column[order] for column in columns))
    return Groups(members[order], (np.cumsum(opens) - 1).astype(np.uint32))


def join_similar(groups: Groups, clusters: Clusters, is_similar: PairTest) -> tuple[int, int]:
    """Merge the clusters of similar documents within groups. Returns the numbers of tested and of similar pairs.

    In a round each document is tested against the first of each of its groups, the smallest number first, until it is
    in that one's cluster. All groups take part at once, and a pair is tested once, however many groups have it: so
    neither the order of the groups nor how they are divided changes anything.
    """
    tested = found = 0
    failed = np.zeros(0, dtype=np.uint64)
    for _ in range(MAX_ROUNDS):
        leaders = groups.leaders()
        apart = _apart(clusters, groups.members, leaders)
        groups, leaders = groups.where(apart), leaders[apart]
        if not len(leaders):
            break
        pairs = np.sort(groups.members.astype(np.uint64) << _HALF | leaders)
        pairs = pairs[_row_changes(pairs)]
        pairs = pairs[~_among(pairs, failed)]
        differ = [failed]
        while len(pairs):
            turn = _row_changes(pairs >> _HALF)  # one pair of each document
            second, first = _halves(pairs[turn])
            passed = is_similar(first, second)
            clusters.union(first[passed], second[passed])
            differ.append(pairs[turn][~passed])
            tested, found = tested + len(passed), found + int(passed.sum())
            pairs = pairs[~turn]
            second, first = _halves(pairs)
            pairs = pairs[_apart(clusters, second, first)]
        failed = np.sort(np.concatenate(differ))
        groups = groups.where(_apart(clusters, groups.members, leaders))
    return tested, found


def _apart(clusters: Clusters, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[documents] bool: whether two documents are in different clusters."""
    return np.asarray(clusters.find(one) != clusters.find(other))


def _halves(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and lower 32 bits of uint64."""
    return (packed >> _HALF).astype(np.uint32), packed.astype(np.uint32)


def _among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[values] bool: which are among others; both are sorted."""
    places = np.searchsorted(others, values)
    found = np.zeros(len(values), dtype=np.bool_)
    inside = places < len(others)
    found[inside] = others[places[inside]] == values[inside]
    return found


def pick_kept(
    members: np.ndarray, numbers: np.ndarray, ranks: np.ndarray, similarity: Similarity, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pick the documents to keep: the first of a cluster, then the first of those not similar to it, and so on.

    A cluster may be a chain whose ends have little in common, so each member is compared with the kept document itself.
    After `MAX_TURNS` rounds the remaining members are kept.

    Args:
        members: [members] documents in order.
        numbers: [members] the cluster of each.
        ranks: [members] order within a cluster; documents of equal rank are in order of their numbers.
        similarity: the similarity of pairs, exact where at least its last argument.
        threshold: minimum similarity.

    Returns:
        [members] the document kept for each, and [members] float64 the similarity to it.

    """
    order = np.lexsort((members, ranks, numbers))
    left = Groups(order, numbers[order])
    kept, values = members.copy(), np.ones(len(members))
    for _ in range(MAX_TURNS):
        if not len(left.members):
            break
        leaders = left.leaders()
        shared = similarity(members[leaders], members[left.members], threshold)
        passed = shared >= threshold
        kept[left.members[passed]], values[left.members[passed]] = members[leaders[passed]], shared[passed]
        left = left.where(~passed)
    return kept, values


def _row_changes(*columns: np.ndarray) -> np.ndarray:
    """[rows] bool: whether a row differs from the one before in any column; true for the first."""
    opens = np.zeros(len(columns[0]), dtype=np.bool_)
    opens[:1] = True
    for column in columns:
        opens[1:] |= column[1:] != column[:-1]
    return opens
