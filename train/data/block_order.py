"""The order of rows for shards that come from afar: blocks of shards, the rows permuted within a block.

In: the rows of each shard, and how many shards a block has. Out: as `sampler.Order`; and the blocks that a run needs,
with the positions at which it begins and ends to need each.
Invariants: the shards of a group are permuted by seed and epoch and cut into blocks, and the rows of a block are
permuted (CorgiPile, Xu et al., 2022). A run reads the blocks of a group one after another. Groups are mixed as evenly
as in `Order`, each group's rows in its own order. A row's place depends on seed and step alone.
Cost: as `Order`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corpus.train.data.sampler import Order, ShuffleGroup, permutation

_SHARDS = 1 << 18
"""Stream of random numbers of the first group's shards; each group has the next one."""


@dataclass(frozen=True, slots=True)
class Need:
    """Shards that a run reads rows of, from one position in its rows up to another."""

    begin: int
    end: int
    shards: tuple[int, ...]
    """Numbers of the shards, counted over all groups."""


class BlockOrder(Order):
    """An order in which the rows of `block_shards` shards of a group are read before those of others.

    `shards` are the rows of each shard, group by group.
    """

    def __init__(
        self, *, parts: Sequence[ShuffleGroup], shards: Sequence[int], block_shards: int, **others: Any
    ) -> None:
        super().__init__(parts=parts, **others)
        self.block_shards = block_shards
        edges = np.searchsorted(np.cumsum([0, *shards]), self._offsets)
        self._shards = [np.array(shards[edges[i] : edges[i + 1]], dtype=np.int64) for i in range(len(parts))]
        self._first_shards = edges
        self._labels: tuple[int, np.ndarray] | None = None

    def epoch(self, part: int, number: int) -> np.ndarray:
        """[rows] the two permutations of a group in one of its epochs."""
        rows_s = self._shards[part]
        shards = self.shards_of(part, number)
        counts = rows_s[shards]
        begins, ends = (np.cumsum(rows_s) - rows_s)[shards], np.cumsum(counts)
        rows = np.repeat(begins - (ends - counts), counts) + np.arange(int(counts.sum()))
        blocks = np.repeat(np.arange(len(shards)) // self.block_shards, counts)
        raw = np.random.Philox(counter=[0, 0, 0, part], key=[self.seed, number]).random_raw(len(rows))
        ordered: np.ndarray = rows[np.lexsort((raw, blocks))]
        return ordered

    def shards_of(self, part: int, number: int) -> np.ndarray:
        """[shards] the permutation of a group's shards in one of its epochs."""
        return permutation(len(self._shards[part]), self.seed, number, _SHARDS + part)

    def mixed(self, slices: Sequence[np.ndarray], number: int) -> np.ndarray:
        """The rows of several groups in a block of the run: groups in a random order, the rows of each in its own."""
        labels = self._groups(list(map(len, slices)), number)
        rows = np.empty(len(labels), dtype=np.int64)
        for index, piece in enumerate(slices):
            rows[labels == index] = piece
        return rows

    def _groups(self, lengths: Sequence[int], number: int) -> np.ndarray:
        """[rows] the group of each place in a block of the run."""
        labels = np.repeat(np.arange(len(lengths)), lengths)
        return labels[permutation(len(labels), self.seed, number, len(self.parts))] if len(lengths) > 1 else labels

    # --- what is needed when ------------------------------------------------------------------------------------------

    def needs(self, position: int) -> Iterator[Need]:
        """The blocks of shards that a run needs from a position on, in the order in which it begins to need them."""
        block, total = self.block_at(min(position, self.steps.total - 1)), self.steps.total
        while (begin := self.block_begin(block)) < total:
            taken = [(self.taken_before(i, block), self.taken_before(i, block + 1)) for i in range(len(self.parts))]
            labels = self._groups([end - start for start, end in taken], block)
            found = [
                need
                for part, (start, end) in enumerate(taken)
                for need in self._needs_of(part, start, end, begin + np.flatnonzero(labels == part))
            ]
            yield from sorted((need for need in found if need.end > position), key=lambda need: (need.begin, need.end))
            block += 1

    def _needs_of(self, part: int, start: int, end: int, positions: np.ndarray) -> Iterator[Need]:
        """The needs of a group's rows from `start` to `end`, counted over its epochs, which are at these positions."""
        rows, begun = self.parts[part].rows, start
        while begun < end:
            epoch, within = divmod(begun, rows)
            shards = self.shards_of(part, epoch)
            edges = np.cumsum(self._shards[part][shards])[self.block_shards - 1 :: self.block_shards]
            ends = [*edges.tolist(), rows] if not len(edges) or edges[-1] < rows else edges.tolist()
            first = int(np.searchsorted(ends, within, side="right"))
            for block in range(first, len(ends)):
                last = min(end, epoch * rows + ends[block])
                if last > begun:
                    own = shards[block * self.block_shards : (block + 1) * self.block_shards] + self._first_shards[part]
                    span = positions[[begun - start, last - 1 - start]].tolist()
                    yield Need(span[0], span[1] + 1, tuple(own.tolist()))
                    begun = last
                if begun >= end:
                    return


def most_at_once(needs: Iterator[Need], sizes: Sequence[int], rows: int) -> int:
    """The most bytes that a stretch of `rows` rows needs, and the block that comes next; `sizes` are the shards'."""
    most, open_needs = 0, list[Need]()
    for need in needs:
        open_needs = [each for each in open_needs if each.end > need.begin - rows]
        open_needs.append(need)
        most = max(most, sum(sizes[shard] for shard in {shard for each in open_needs for shard in each.shards}))
    return most
