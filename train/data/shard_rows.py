"""Packed rows by number, from shards that are opened when a row of them is read.

In: the paths of the shards, and how many rows each has. Out: rows as Arrow tables.
Invariants: a shard that may not be there yet is waited for; one that the cache may delete (its link is gone) is closed.
Cost: opening a shard reads the heads of its batches, about a millisecond; rows are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from corpus.pipeline.errors import DamageError


class ShardRows:
    """Rows of shards, numbered one shard after another; `await_shard` returns once a path is there."""

    def __init__(
        self, paths: Sequence[Path], rows: Sequence[int], await_shard: Callable[[Path], None] | None = None
    ) -> None:
        self._paths, self._await = paths, await_shard
        self._ends = np.cumsum(rows)
        self._open: dict[int, tuple[list[pa.RecordBatch], np.ndarray]] = {}

    def __len__(self) -> int:
        """Rows over all shards."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> pa.Table:
        """One row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> pa.Table:
        """Rows by number, in this order."""
        numbers = np.asarray(rows, dtype=np.int64)
        shards = np.searchsorted(self._ends, numbers, side="right")
        self._open = {shard: opened for shard, opened in self._open.items() if self._paths[shard].exists()}
        pieces = list[pa.RecordBatch]()
        for number, shard in zip(numbers.tolist(), shards.tolist(), strict=True):
            batches, ends = self._opened(shard)
            place = number - (int(self._ends[shard - 1]) if shard else 0)
            batch = int(np.searchsorted(ends, place, side="right"))
            pieces.append(batches[batch].slice(place - (int(ends[batch - 1]) if batch else 0), 1))
        return pa.Table.from_batches(pieces) if pieces else pa.table({})

    def __getstate__(self) -> dict[str, object]:
        """Without open shards, for a process that makes batches."""
        return {**self.__dict__, "_open": {}}

    def _opened(self, shard: int) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The batches of a shard, and the rows up to the end of each."""
        if shard not in self._open:
            path = self._paths[shard]
            if self._await is not None:
                self._await(path)
            try:
                with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
                    batches = [batch.replace_schema_metadata(None) for batch in reader]
            except (OSError, pa.ArrowException) as error:
                hint = "`corpus verify` names every damaged file and how to rebuild it."
                raise DamageError(f"{path} cannot be opened: {error}", hint=hint) from error
            ends = np.cumsum([batch.num_rows for batch in batches])
            expected = int(self._ends[shard]) - (int(self._ends[shard - 1]) if shard else 0)
            if (int(ends[-1]) if len(ends) else 0) != expected:
                raise DamageError(f"{path} has not the {expected:,} rows that its counts say", hint="Delete it.")
            self._open[shard] = batches, ends
        return self._open[shard]
