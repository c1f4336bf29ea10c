"""Characters that documents share, as `corpus dedup --spans` listed them.

In: a workspace.
Out: the passages that most documents repeat; the runs of one document.
Invariants: files that are not as the ledger of dedup says are refused. Nothing is written.
Cost: the table of passages, or the runs of one documents shard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from corpus.pipeline.dedup.span_lists import PASSAGES, SPANS
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.storage.document_shards import part_name, reading_part, split_ref
from corpus.pipeline.storage.selection import index_of
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A passage of a document that others repeat."""

    documents: int
    """Documents that repeat a part of it."""
    runs: int
    characters: int
    """Runs that repeat a part of it, and their characters."""
    dataset: str
    document: int
    id: str
    start: int
    end: int
    text: str
    """The part that is repeated most often, in the first document that has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedRun:
    """Characters of a document that an earlier one has too."""

    start: int
    end: int
    first_dataset: str
    first_id: str
    first_start: int


def passages(workspace: Workspace, datasets: Collection[str], *, limit: int) -> Iterator[Passage]:
    """The passages of these datasets that most documents repeat.

    Raises:
        WorkspaceError: dedup has not searched for runs, has found none, or has searched other documents.
        DamageError: the table is not what its ledger says.

    """
    hint = "Run `corpus dedup --spans 200`."
    ledger = read_ledger(workspace.dedup)
    if ledger is None or "spans" not in ledger.config:
        raise WorkspaceError("runs of characters that documents share were not looked for", hint=hint)
    for name in datasets:
        index_of(workspace, "dedup", name)  # which refuses what was made from other documents
    path = checked(workspace, workspace.dedup / PASSAGES)
    with reading_part(path):
        rows = pq.read_table(path).to_pylist()
    found = [row for row in rows if row["dataset"] in datasets]
    if not found:
        least = ledger.config["spans"]
        raise WorkspaceError(
            f"no document repeats {least:,} or more characters of another one in {', '.join(datasets)}"
        )
    yield from (Passage(**row) for row in found[:limit])


def runs_of(workspace: Workspace, dataset: str, document: int) -> list[SharedRun]:
    """The runs of a document that earlier ones have too.

    Raises:
        WorkspaceError: the runs are of other documents than there are now.
        DamageError: the file is not what its ledger says.

    """
    path = workspace.dedup / SPANS / dataset / part_name(split_ref(document)[0])
    if index_of(workspace, "dedup", dataset) is None or not path.is_file():
        return []
    columns = [*SharedRun.__slots__]
    with reading_part(checked(workspace, path)):
        rows: list[dict[str, Any]] = pq.read_table(
            path, columns=columns, filters=[("document", "=", document)]
        ).to_pylist()
    return [SharedRun(**row) for row in rows]
