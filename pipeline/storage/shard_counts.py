"""What each documents shard of a dataset holds, from one file: `timings.json`, which its stage writes with the ledger.

In: the folder of documents. Out: documents, characters and row groups of each shard.
Invariants: they count only with the very ledger that they were written with; where that does not hold, or the stage
did not note them, the footer of the shard says it.
Cost: the file is read once, however many shards it names.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from corpus.pipeline.workspace.ledger import LEDGER, TIMINGS

KEY = "shards"
"""Where they are in `timings.json`."""


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """The counts of one shard."""

    documents: int
    characters: Mapping[str, int]
    """By split."""
    groups: tuple[int, ...] | None
    """Documents of each row group; None where no receipt told them."""


def entry(documents: int, characters: Mapping[str, int], groups: tuple[int, ...] | None) -> dict[str, Any]:
    """The counts of a shard for `timings.json`."""
    known = {"documents": documents, "characters": dict(sorted(characters.items()))}
    return known | ({} if groups is None else {"groups": list(groups)})


def known(path: Path) -> ShardCounts | None:
    """The counts of a shard; None where only its footer says them."""
    return _all(path.parent).get(path.name)


def _all(folder: Path) -> Mapping[str, ShardCounts]:
    """The counts of the shards of a folder, by their file names."""
    try:
        stamps = [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in map(Path.stat, _files(folder))]
    except OSError:
        return {}
    return _read(folder, tuple(stamps))


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / LEDGER, folder / TIMINGS


@functools.lru_cache(maxsize=16)
def _read(folder: Path, _stamps: tuple[tuple[int, int, int], ...]) -> Mapping[str, ShardCounts]:
    """Both files; their stamps are part of the cache key."""
    try:
        ledger, noted = (path.read_bytes() for path in _files(folder))
        values = json.loads(noted)
        if values["ledger_sha256"] != hashlib.sha256(ledger).hexdigest():
            return {}
        found = {name: _counts(each) for name, each in values[KEY].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return MappingProxyType(found)


def _counts(values: Mapping[str, Any]) -> ShardCounts:
    groups = values.get("groups")
    characters = {str(split): int(count) for split, count in values["characters"].items()}
    return ShardCounts(int(values["documents"]), characters, None if groups is None else tuple(map(int, groups)))
