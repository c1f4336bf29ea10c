"""The order of rows: a seeded permutation for each epoch, cut into steps, the steps into passes.

In: the rows of each group, the rows that a run takes of it, and the seed. Out: lists of row numbers, one for each
forward pass of this process.
Invariants: the rows of a step depend on seed and step alone, not on workers, processes or passes; each row of a group
comes once in each of its epochs; no row is lost at the end of an epoch or a run. Rows of different length are sorted
within a step, so that little of a pass is padding, and every process has its share of the long ones. Groups are mixed
evenly: a run is cut into blocks in which the most repeated group is seen once, and every block has its share of each
group.
Cost: any step is found by sorting one block's random numbers (0.1 s per million rows), wherever it is in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from corpus.train.data.schedule import Steps


@dataclass(frozen=True, slots=True)
class ShuffleGroup:
    """Rows that are shuffled together; the rows of a run are numbered group by group."""

    rows: int
    """Its rows."""
    taken: int
    """Rows that the run takes, over all its epochs."""


class Order(Sampler[list[int]]):
    """A batch sampler for process `rank` of the `world` processes of a run.

    `steps.total` is the sum of the rows that the run takes of its groups (`parts`), at least one. A pass has at most
    `micro_batch_size` rows. `first_step` gives the number of steps done when an iteration begins. `lengths` [rows] are
    the tokens to which each row is padded, None where all are alike.
    """

    def __init__(
        self,
        *,
        parts: Sequence[ShuffleGroup],
        steps: Steps,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first_step: Callable[[], int] = lambda: 0,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.parts = parts
        self.steps = steps
        self.accumulation = -(-steps.batch_size // (micro_batch_size * world))
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.first_step = first_step
        self.lengths = lengths
        self.before_step: Callable[[int], object] = lambda _: None
        """Called with the number of a step before its first pass is given."""
        self._most = max(parts, key=lambda part: part.taken / max(1, part.rows))
        self._offsets = np.cumsum([0, *(part.rows for part in parts)])
        self._block: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Passes of the whole run, also where an iteration begins later."""
        return self.steps.count * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        """The passes from `first_step` on; an empty list is a pass without rows, which becomes padding."""
        for step in range(self.first_step(), self.steps.count):
            self.before_step(step)
            yield from self.passes(step)

    def step(self, number: int) -> np.ndarray:
        """[at most batch_size] row numbers of a step."""
        position, end = self.steps.begin(number), self.steps.begin(number + 1)
        pieces = []
        while position < end:
            block = self.block_at(position)
            start = self.block_begin(block)
            piece = self.block(block)[position - start : end - start]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def passes(self, number: int) -> list[list[int]]:
        """The rows of a step for this process, pass by pass; every step and process has the same number of passes.

        A smaller step has its rows in the first passes; the others are empty.
        """
        rows = self.step(number)
        if self.lengths is not None:
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
        used = -(-len(rows) // (self.micro_batch_size * self.world))
        shares = np.array_split(rows, self.world * used)[self.rank :: self.world]
        return [share.tolist() for share in shares] + [[] for _ in range(self.accumulation - used)]

    # --- blocks -----------------------------------------------------------------------------------------------------

    def block(self, number: int) -> np.ndarray:
        """The row numbers of a block, in order."""
        if self._block is None or self._block[0] != number:
            slices = [
                self._slice(index, self.taken_before(index, number), self.taken_before(index, number + 1))
                for index in range(len(self.parts))
            ]
            self._block = number, slices[0] if len(slices) == 1 else self.mixed(slices, number)
        return self._block[1]

    def mixed(self, slices: Sequence[np.ndarray], number: int) -> np.ndarray:
        """The rows of several groups in a block, in one order."""
        rows = np.concatenate(slices)
        mixed: np.ndarray = rows[permutation(len(rows), self.seed, number, len(self.parts))]
        return mixed

    def block_at(self, position: int) -> int:
        """The block of a position."""
        block = position * self._most.taken // (self._most.rows * self.steps.total)
        while self.block_begin(block + 1) <= position:
            block += 1
        return block

    def block_begin(self, number: int) -> int:
        """Rows before a block."""
        return sum(self.taken_before(index, number) for index in range(len(self.parts)))

    def taken_before(self, part: int, block: int) -> int:
        """Rows of a group before a block, in integer arithmetic, so that every process agrees."""
        taken = self.parts[part].taken
        return min(taken, block * self._most.rows * taken // self._most.taken)

    def epoch(self, part: int, number: int) -> np.ndarray:
        """[rows] the permutation of a group in one of its epochs, numbered from 0."""
        return permutation(self.parts[part].rows, self.seed, number, part)

    def _slice(self, part: int, begin: int, end: int) -> np.ndarray:
        """The row numbers between two positions of a group's concatenated epochs."""
        rows = self.parts[part].rows
        pieces = [np.zeros(0, dtype=np.int64)]
        while begin < end:
            number, start = divmod(begin, rows)
            piece = self.epoch(part, number)[start : start + end - begin]
            pieces.append(piece + self._offsets[part])
            begin += len(piece)
        return np.concatenate(pieces)


def permutation(rows: int, seed: int, number: int, stream: int) -> np.ndarray:
    """[rows] numbers in a seeded order, from Philox's raw numbers, which are stable across versions of numpy."""
    raw = np.random.Philox(counter=[0, 0, 0, stream], key=[seed, number]).random_raw(rows)
    return np.argsort(raw, kind="stable")
