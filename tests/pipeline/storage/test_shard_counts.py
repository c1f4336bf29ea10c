"""Counts of documents shards: as the footers say them, without the footers where the ledger's run noted them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import DamageError
from corpus.pipeline.storage import shard_counts
from corpus.pipeline.storage.document_shards import characters_of, document_count, group_count, part_metadata, parts
from corpus.pipeline.workspace.layout import Workspace
from tests.support.ingested import PLAIN
from tests.support.records import LayRaw


@pytest.fixture
def shards(workspace: Workspace, lay_raw: LayRaw) -> list[Path]:
    lay_raw("baike2018qa", PLAIN)
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=7000), workspace)
    return parts(workspace.documents("baike2018qa"))


def counts(path: Path) -> tuple[int, int, dict[str, int]]:
    return document_count(path), group_count(path), dict(characters_of(path))


def of_the_footer(path: Path) -> tuple[int, int, dict[str, int]]:
    footer, metadata = pq.read_metadata(path), part_metadata(path)
    assert metadata
    return footer.num_rows, footer.num_row_groups, dict(metadata[1]["characters"])


def test_no_footer_is_read(shards: list[Path]) -> None:
    expected = [of_the_footer(path) for path in shards]
    assert len(expected) > 3
    for path in shards:
        path.write_bytes(b"not opened")
    assert [counts(path) for path in shards] == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda noted: noted.pop(shard_counts.KEY),  # as an earlier version wrote it
        lambda noted: noted.update(ledger_sha256="0" * 64),  # with another ledger
        lambda noted: noted.update({shard_counts.KEY: {"part-00000.parquet": []}}),
        lambda noted: [each.pop("groups") for each in noted[shard_counts.KEY].values()],
    ],
)
def test_where_nothing_is_noted_the_footer_says_it(shards: list[Path], change: Callable[[Any], object]) -> None:
    expected = [of_the_footer(path) for path in shards]
    place = shards[0].with_name("timings.json")
    noted = json.loads(place.read_bytes())
    change(noted)
    place.write_text(json.dumps(noted))
    assert [counts(path) for path in shards] == expected
    shards[1].write_bytes(b"torn")
    with pytest.raises(DamageError, match="part-00001"):
        group_count(shards[1])


def test_a_shard_that_was_kept_without_its_receipt(workspace: Workspace, shards: list[Path]) -> None:
    expected = [of_the_footer(path) for path in shards]
    shards[0].with_name("ledger.json").unlink()
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1, piece_bytes=7000), workspace)
    found = [shard_counts.known(path) for path in shards]
    assert [(each.documents, each.groups) for each in found if each] == [(rows, None) for rows, _, _ in expected]
    assert [counts(path) for path in shards] == expected
