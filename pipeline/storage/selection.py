"""What of a dataset's documents is used: all but what `corpus dedup` and `corpus decontaminate` keep out.

In: `documents/<dataset>/`, `dedup/<dataset>.parquet`, `decontaminate/<dataset>.parquet`, `exclude.txt`. Out: documents
as everything after them sees them, with their own shard and line.
Invariants: documents are never rewritten, so a reference stays good; a list belongs to the documents it was made from,
and one made from others is refused.
Cost: one row of a list for each document kept out, in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.manifest import DATASETS
from corpus.pipeline.storage import removals as exclude
from corpus.pipeline.storage.document_shards import document_ref, parts, read_part, reading_part
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, read_ledger

LISTS = ("dedup", "decontaminate")


@dataclass(slots=True)
class Selection:
    """What is kept out of one dataset."""

    whole: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[documents] references of documents that are out, sorted."""
    cuts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Spans of characters that are out, in order, by document."""
    documents: Counter[str] = field(default_factory=Counter)
    """Documents out, by split."""
    characters: Counter[str] = field(default_factory=Counter)
    """Characters out, by split."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents and spans out, by reason."""
    inputs: list[FileDigest] = field(default_factory=list)
    """The lists it was read from."""
    removed: list[str] = field(default_factory=list)
    """Ids of documents that only the removal list takes out, sorted."""
    known: set[str] = field(default_factory=set)
    """Ids on the removal list that are documents of the dataset, whether they were used or not."""

    def kept(self, shard: int, line: int, count: int) -> np.ndarray:
        """[kept] which of `count` documents from `line` on are used, as positions from 0."""
        first, last = document_ref(shard, line), document_ref(shard, line + count)
        out = self.whole[np.searchsorted(self.whole, first) : np.searchsorted(self.whole, last)] - first
        return np.delete(np.arange(count), out)

    def cut(self, document: int, text: str) -> str:
        """A document's text without the spans that are out."""
        spans = self.cuts.get(document)
        if not spans:
            return text
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        return "".join([text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)])


def load(workspace: Workspace, dataset: str, *, removals: bool = False) -> Selection:
    """What is kept out of a dataset, as its lists say; nothing when there are none.

    With `removals` also what the removal list names: rows are made without it, but a tokenizer stays as it is.

    Raises:
        WorkspaceError: a list was made from other documents.
        DamageError: a list cannot be read.

    """
    selection = _of_lists(workspace, dataset)
    if removals:
        _remove(workspace, dataset, selection)
    return selection


def _of_lists(workspace: Workspace, dataset: str) -> Selection:
    selection = Selection()
    tables: list[pa.Table] = []
    for area in LISTS:
        path = list_of(workspace, area, dataset)
        if path is None:
            continue
        selection.inputs.append(workspace.file_digest(path))
        with reading_part(path):
            tables.append(pq.read_table(path, columns=["document", "split", "reason", "start", "end", "whole"]))
    if not tables:
        return selection
    table = pa.concat_tables(tables)
    documents, whole = table["document"].to_numpy(), table["whole"].to_numpy()
    selection.whole = np.unique(documents[whole])
    splits, reasons = table["split"].to_pylist(), table["reason"].to_pylist()
    starts, ends = table["start"].to_pylist(), table["end"].to_pylist()
    for document, split, reason, start, end, all_of_it in zip(
        documents.tolist(), splits, reasons, starts, ends, whole.tolist(), strict=True
    ):
        selection.reasons[reason] += 1
        selection.characters[split] += end - start
        if all_of_it:
            selection.documents[split] += 1
        else:
            selection.cuts.setdefault(document, []).append((start, end))
    return selection


def _remove(workspace: Workspace, dataset: str, selection: Selection) -> None:
    """Take out the documents that the removal list names."""
    wanted = exclude.of_dataset(exclude.listed(workspace), dataset)
    if not wanted:
        return
    values, out = pa.array(sorted(wanted), pa.string()), set(selection.whole.tolist())
    found: list[int] = []
    for path in parts(workspace.documents(dataset)):
        if not any(pc.any(_named(batch, values)).as_py() for _, _, batch in read_part(path, ["id"])):
            continue  # most shards hold none, and their texts need not be read
        for shard, line, batch in read_part(path, ["id", "text", "split"]):
            hits = pc.indices_nonzero(_named(batch, values))
            references = document_ref(shard, line + hits.to_numpy().astype(np.int64)).tolist()
            found += references
            for reference, document in zip(references, batch.take(hits).to_pylist(), strict=True):
                selection.known.add(document["id"].strip())
                if reference not in out:
                    _remove_one(selection, reference, document)
    selection.removed.sort()
    selection.whole = np.union1d(selection.whole, np.array(found, dtype=np.int64))


def _named(batch: pa.RecordBatch, values: pa.Array) -> pa.Array:
    """[documents] bool: whose ids are on a list; blanks around an id do not count."""
    return pc.is_in(pc.utf8_trim_whitespace(batch["id"]), value_set=values)


def _remove_one(selection: Selection, reference: int, document: dict[str, str]) -> None:
    """Count a document that is out only now, without the spans that were out before."""
    spans = selection.cuts.pop(reference, [])
    selection.removed.append(document["id"].strip())
    selection.reasons[exclude.REASON] += 1
    selection.documents[document["split"]] += 1
    selection.characters[document["split"]] += len(document["text"]) - sum(end - start for start, end in spans)


def datasets_of(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    """The datasets that a list is made for, in the order of all: those asked for, or all that have documents.

    Raises:
        WorkspaceError: one of them has no documents, or none has.

    """
    finished = workspace.finished("documents")
    for name in wanted:
        if name not in finished or name not in DATASETS:
            raise WorkspaceError(f"{name} has no documents", hint=f"Run `corpus ingest --dataset {name}` first.")
    names = [name for name in DATASETS if name in (wanted or finished)]
    if not names:
        raise WorkspaceError("there are no documents to look through", hint="Run `corpus ingest` first.")
    return names


def documents_of(workspace: Workspace, dataset: str) -> Ledger:
    """The ledger of a dataset's documents, when all of them are as it says.

    Raises:
        WorkspaceError: there are no documents.
        DamageError: a documents shard is not what the ledger says.

    """
    folder = workspace.documents(dataset)
    ledger = read_ledger(folder)
    if ledger is None:
        raise WorkspaceError(f"{dataset} has no documents", hint=f"Run `corpus ingest --dataset {dataset}` first.")
    for output in ledger.outputs:
        path = folder / output.path
        if not path.is_file() or workspace.digest(path) != output.sha256:
            raise DamageError(
                f"{path} is not what its ledger says",
                hint=f"Delete it and run `corpus ingest --dataset {dataset}`: only it is made again.",
            )
    return ledger


def list_of(workspace: Workspace, area: str, dataset: str) -> Path | None:
    """What `dedup` or `decontaminate` keeps out of a dataset, or None when it did not see the dataset.

    Raises:
        WorkspaceError: the list was made from other documents.
        DamageError: the list is not what its ledger says.

    """
    folder = workspace.root / area
    ledger, path = read_ledger(folder), folder / f"{dataset}.parquet"
    if ledger is None or not (workspace.documents(dataset) / LEDGER).is_file():
        return None
    documents = workspace.file_digest(workspace.documents(dataset) / LEDGER)
    seen = [entry for entry in ledger.inputs if entry.path == documents.path]
    if not seen:
        return None
    if seen != [documents]:
        raise WorkspaceError(
            f"{area}/{dataset}.parquet was made from other documents than there are now",
            hint=f"Run `corpus {area}` again.",
        )
    if not path.is_file() or not workspace.is_as_written(path, folder, ledger):
        raise DamageError(f"{path} is not what its ledger says", hint=f"Delete it and run `corpus {area}` again.")
    return path


def read_selected(
    path: Path, columns: Sequence[str], selection: Selection
) -> Iterator[tuple[int, np.ndarray, pa.RecordBatch]]:
    """The documents of one shard that are used, as (shard number, [documents] their lines, batch)."""
    for shard, line, batch in read_part(path, columns):
        lines, chosen = select(batch, shard, line, selection)
        yield shard, lines, chosen


def select(batch: pa.RecordBatch, shard: int, line: int, selection: Selection) -> tuple[np.ndarray, pa.RecordBatch]:
    """The documents of a batch that begins at a line of a shard that are used, with their lines."""
    kept = selection.kept(shard, line, batch.num_rows)
    if len(kept) < batch.num_rows:
        batch = batch.take(pa.array(kept))
    if selection.cuts and "text" in batch.schema.names:
        batch = _without_spans(batch, document_ref(shard, line + kept).tolist(), selection)
    return line + kept, batch


def _without_spans(batch: pa.RecordBatch, references: list[int], selection: Selection) -> pa.RecordBatch:
    if selection.cuts.keys().isdisjoint(references):
        return batch
    texts = [
        selection.cut(reference, text) for reference, text in zip(references, batch["text"].to_pylist(), strict=True)
    ]
    column = batch.schema.get_field_index("text")
    return batch.set_column(column, batch.schema.field(column), pa.array(texts, pa.string()))
