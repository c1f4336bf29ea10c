"""Bands on disk: groups and clusters depend neither on the number of partitions nor on the order of the files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from corpus.pipeline.dedup import keys, search, stage
from corpus.pipeline.errors import DamageError
from corpus.pipeline.progress import SILENT
from corpus.pipeline.signatures import bands
from corpus.pipeline.signatures.files import SignatureStore
from corpus.pipeline.storage.selection import documents_of
from corpus.pipeline.workspace.layout import Workspace
from tests.support.copies import lay, make, sample


def test_ranges_are_shared_out_whole() -> None:
    for count in (1, 3, 7, 64):
        runs = bands.partitions(0, count)
        assert (runs[0][0], runs[-1][1], len(runs)) == (0, bands.RANGES, count)
        assert all(one[1] == other[0] for one, other in pairwise(runs))
    assert len(bands.partitions(10)) == 1
    assert len(bands.partitions(10**12)) == bands.RANGES


def written(folder: Path, seed: int) -> tuple[np.ndarray, list[tuple[Path, int]]]:
    """Bands of 90 documents in three files, with values that many share, and the files."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**64, 25, dtype=np.uint64)[random.integers(0, 25, (90, 4))]
    files = []
    for part in range(3):
        path, first = folder / f"part-{part}.parquet", part * 30
        with path.open("wb") as out:
            groups = bands.write(out, "made", values[first : first + 30], np.arange(30) % 5 > 0)
        assert sum(groups) == 4 * 24
        files.append((path, first))
    return values, files


@pytest.mark.parametrize("count", [1, 3, 64])
def test_groups_are_those_of_all_documents_that_share_a_value(tmp_path: Path, count: int) -> None:
    values, files = written(tmp_path, count)
    chosen = np.arange(90) % 7 > 0
    used = [place for place in range(90) if chosen[place] and place % 5]
    sharing = [[place for place in used for own in values[place] if own == value] for value in np.unique(values)]
    expected = [group for group in sharing if len(group) > 1]
    for order in (files, files[::-1], [files[1], files[0], files[2]]):
        found = []
        for begin, end in bands.partitions(0, count):
            every = search.groups_of(bands.Partition(begin, end, order))
            groups = every.where(chosen[every.members]).of_many()
            edges = np.flatnonzero(np.diff(groups.numbers, prepend=-1, append=-1))
            found += [groups.members[one:other].tolist() for one, other in pairwise(edges.tolist())]
        assert found == expected


def test_partitions_and_workers_change_nothing(tmp_path: Path) -> None:
    workspace = lay(Workspace(tmp_path), sample())
    make(workspace)
    ledgers = {name: documents_of(workspace, name) for name in sample()}
    shards = keys.shards_of(workspace, ledgers, stage.THRESHOLD)
    results = [
        search.search(
            SignatureStore(shards), stage.THRESHOLD, tmp_path / "scratch", workers=workers, progress=SILENT,
            partitions=count,
        )
        for count, workers in ((1, 1), (3, 1), (64, 2))
    ]  # fmt: skip
    assert len(results[0].members) > 60
    for other in results[1:]:
        for name in ("members", "kept", "exact", "similarity"):
            assert np.array_equal(getattr(results[0], name), getattr(other, name)), name
        assert other.counts == results[0].counts
    assert not list(tmp_path.glob(".*tmp"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    _, files = written(tmp_path, 1)
    content = bytearray(files[1][0].read_bytes())
    content[len(content) // 3] ^= 1
    files[1][0].write_bytes(content)
    with pytest.raises(DamageError, match="part-1"):
        search.groups_of(bands.Partition(0, bands.RANGES, files))
