"""What the lists of a stage, or a selection of documents, leave out of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, document_ref
from corpus.pipeline.storage.removal_lists import index_path, list_path, read_index, read_list
from corpus.pipeline.storage.selection import Selection


def rows_of(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """The rows of all lists of a dataset in a stage's folder."""
    tables = [read_list(list_path(folder, dataset, name)) for name in read_index(index_path(folder, dataset)).shards]
    assert all(table.schema.equals(REMOVED_SCHEMA) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def documents_out(chosen: Selection) -> list[int]:
    """The documents that are left out whole."""
    numbers = sorted({*chosen.lists, *chosen.excluded})
    return [document_ref(number, line) for number in numbers for line in chosen.shard(number).lines.tolist()]


def spans_out(chosen: Selection) -> dict[int, list[tuple[int, int]]]:
    """The spans that are left out, by document."""
    shards = {number: chosen.shard(number) for number in sorted({*chosen.lists, *chosen.excluded})}
    return {document_ref(number, line): spans for number, shard in shards.items() for line, spans in shard.cuts.items()}
