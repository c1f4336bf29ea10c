"""Which row comes when: a seeded permutation for each epoch, cut into steps, the steps into passes.

In: how many rows there are, how many a run takes, and the seed. Out: lists of row numbers, one for each forward pass of
this process.
Invariants: the rows of a step depend on seed and step alone, not on workers, processes or passes; each row comes once
an epoch; no row is lost at the end of an epoch or a run. Epochs follow each other without a gap, so only a run's last
step can be short.
Cost: any step is found by sorting one epoch's random numbers (0.1 s a million rows), however far the run is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class Order(Sampler[list[int]]):
    """A batch sampler for one process of a run.

    Args:
        rows: rows of the training split.
        total: rows that the run takes, epochs laid end to end.
        batch_size: rows of a step over all processes.
        micro_batch_size: most rows of one pass.
        seed: of the permutations.
        rank: this process among `world`.
        world: how many processes there are.
        first_step: asked when an iteration begins: how many steps are done already.

    """

    def __init__(
        self,
        *,
        rows: int,
        total: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first_step: Callable[[], int] = lambda: 0,
    ) -> None:
        self.rows = rows
        self.total = total
        self.batch_size = batch_size
        self.accumulation = -(-batch_size // (micro_batch_size * world))
        self.seed = seed
        self.rank = rank
        self.world = world
        self.first_step = first_step
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.total // self.batch_size)

    def __len__(self) -> int:
        """Passes of the whole run, also when an iteration begins later."""
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        """The passes from `first_step` on; one that gets no row is an empty list, which the collator makes padding."""
        for step in range(self.first_step(), self.steps):
            yield from self.passes(step)

    def step(self, number: int) -> np.ndarray:
        """[at most batch_size] row numbers of a step."""
        position, end = number * self.batch_size, min((number + 1) * self.batch_size, self.total)
        pieces = []
        while position < end:
            epoch, start = divmod(position, self.rows)
            piece = self.epoch(epoch)[start : start + end - position]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def passes(self, number: int) -> list[list[int]]:
        """The rows of a step that fall to this process, pass by pass: as many passes for every step and process."""
        shares = np.array_split(self.step(number), self.world * self.accumulation)
        return [share.tolist() for share in shares[self.rank :: self.world]]

    def epoch(self, number: int) -> np.ndarray:
        """[rows] the permutation of an epoch, from Philox's raw numbers, which no version of numpy may change."""
        if self._epoch is None or self._epoch[0] != number:
            raw = np.random.Philox(key=[self.seed, number]).random_raw(self.rows)
            self._epoch = number, np.argsort(raw, kind="stable")
        return self._epoch[1]
