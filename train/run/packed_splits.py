"""Training and validation rows of packed datasets, opened whole or shard by shard.

In: the folders of rows, and their ledgers. Out: rows by number, how many each dataset and shard has, and their tokens.
Invariants: both ways number the rows alike: dataset by dataset, shard by shard. By shard no training row is opened:
rows and tokens are the counts in the heads of the shards, whose sums are those of the ledger; each row has the mean of
its shard, rounded so that a shard's sum is exact.
Cost: whole, the segments of all rows, about a second per million; by shard, the first 4 KiB of each shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from corpus.pipeline.errors import DamageError, TrainError
from corpus.pipeline.storage.row_shards import counts_of, open_rows
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger
from corpus.train.data.collate import Rows
from corpus.train.data.mixture import sizes
from corpus.train.data.shard_rows import ShardRows
from corpus.train.objective import Items

Counts = Callable[[str], Mapping[str, int] | None]
"""The counts of a shard by its path in the workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """The rows of a run."""

    train: Items
    rows: Mapping[str, int]
    """Training rows of each dataset that has any."""
    tokens: np.ndarray
    """[rows] tokens of each training row, padding left out."""
    validation: Mapping[str, Items]
    shards: Sequence[str] = ()
    """Paths of the training shards in the workspace, when they are opened one by one."""
    shard_rows: Sequence[int] | None = None
    """Training rows of each shard."""


def whole(workspace: Workspace, area: str, names: Sequence[str]) -> Splits:
    """The rows of these datasets, all files opened."""
    splits = {name: open_rows(workspace.root / area / name) for name in names}
    parts = [rows["train"] for rows in splits.values() if len(rows.get("train", ()))]
    _check_any(parts, names)
    train = Rows(parts)
    return Splits(
        train=train, tokens=sizes(train),
        rows={name: len(rows["train"]) for name, rows in splits.items() if len(rows.get("train", ()))},
        validation={
            name: Rows([rows["validation"]]) for name, rows in splits.items() if len(rows.get("validation", ()))
        },
    )  # fmt: skip


def by_shard(
    workspace: Workspace, area: str, ledgers: Mapping[str, Ledger], *, counts: Counts,
    await_shard: Callable[[Path], None] | None = None,
) -> Splits:  # fmt: skip
    """The rows of these datasets, a shard opened when a row of it is read; `await_shard` as `ShardRows` takes it.

    Raises:
        DamageError: a shard has no counts, or all have others than the ledger.

    """
    found = {name: _Shards.of(workspace, f"{area}/{name}", ledger, counts) for name, ledger in ledgers.items()}
    train = {name: shards["train"] for name, shards in found.items() if sum(shards["train"].rows)}
    _check_any(list(train), list(ledgers))
    paths = [path for shards in train.values() for path in shards.paths]
    shard_rows = [rows for shards in train.values() for rows in shards.rows]
    tokens = [count for shards in train.values() for count in shards.tokens]
    return Splits(
        train=ShardRows([workspace.root / path for path in paths], shard_rows, await_shard),
        rows={name: sum(shards.rows) for name, shards in train.items()},
        tokens=np.concatenate([_spread(count, rows) for count, rows in zip(tokens, shard_rows, strict=True)]),
        validation={
            name: ShardRows([workspace.root / path for path in shards["validation"].paths], shards["validation"].rows)
            for name, shards in found.items()
            if sum(shards["validation"].rows)
        },
        shards=paths, shard_rows=shard_rows,
    )  # fmt: skip


def head_counts(workspace: Workspace) -> Counts:
    """The counts of shards on this machine's disk."""
    return lambda path: counts_of(partial(_head, workspace.root / path))


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


@dataclass(frozen=True, slots=True)
class _Shards:
    """The shards of a split."""

    paths: Sequence[str]
    rows: Sequence[int]
    tokens: Sequence[int]

    @classmethod
    def of(cls, workspace: Workspace, folder: str, ledger: Ledger, counts: Counts) -> dict[str, _Shards]:
        """Those of a folder of rows, by split; empty where there are none."""
        found = {}
        for split in ("train", "validation"):
            state = workspace.root / folder / split / "state.json"
            names = (
                [file["filename"] for file in json.loads(state.read_bytes())["_data_files"]] if state.exists() else []
            )
            paths = [f"{folder}/{split}/{name}" for name in names]
            read = [_counts(counts, workspace, path) for path in paths]
            shards = cls(paths, [each["rows"] for each in read], [each["tokens"] for each in read])
            shards._check(workspace, folder, split, ledger)
            found[split] = shards
        return found

    def _check(self, workspace: Workspace, folder: str, split: str, ledger: Ledger) -> None:
        """Raise DamageError where the shards have other sums than the ledger."""
        books = ledger.counts.get("splits", {}).get(split, {"rows": 0, "tokens": 0})
        for what, values in {"rows": self.rows, "tokens": self.tokens}.items():
            if sum(values) != books[what]:
                raise DamageError(
                    f"{workspace.root / folder}: the shards of {split} have {sum(values):,} {what}, the ledger says "
                    f"{books[what]:,}",
                    hint="Run `corpus pack` again, and copy the rows again where they were copied.",
                )


def _counts(counts: Counts, workspace: Workspace, path: str) -> Mapping[str, int]:
    found = counts(path)
    if found is None:
        raise DamageError(
            f"{workspace.root / path} does not say how many rows it has", hint="Run `corpus pack` again, or leave "
            "--shuffle out.",
        )  # fmt: skip
    return found


def _spread(count: int, rows: int) -> np.ndarray:
    """[rows] whole numbers with this sum, as equal as can be."""
    edges = np.arange(rows + 1, dtype=np.int64) * count // max(1, rows)
    return np.diff(edges)


def _check_any(found: Sequence[object], names: Sequence[str]) -> None:
    if not found:
        raise TrainError(
            f"{', '.join(names)}: there is no row to train on",
            hint="`corpus trace --rejected too_short` shows what was dropped.",
        )
