"""Which documents of a dataset are used: all but those that `corpus dedup`, `decontaminate` and `quality` leave out.

In: `documents/<dataset>/`, `<dataset>.parquet` in `dedup/`, `decontaminate/` and `quality/`, `exclude.txt`.
Out: the used documents, with their shard and line.
Invariants: documents are never rewritten, so references stay valid. A list made from other documents is refused.
Cost: one row of a list for each document left out, in memory.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import checked_parts, document_ref, read_part, reading_part
from corpus.pipeline.storage.removals import REASON, listed, of_dataset
from corpus.pipeline.workspace.checked import check_all, checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, read_ledger

LISTS = ("dedup", "decontaminate", "quality")
"""Stages that leave documents out, in order: each skips what those before it leave out."""


@dataclass(slots=True)
class Selection:
    """What is left out of one dataset."""

    whole: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[documents] int64: references of documents left out whole, sorted."""
    cuts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Spans of characters left out, in order, by document."""
    documents: Counter[str] = field(default_factory=Counter)
    """Documents left out, by split."""
    characters: Counter[str] = field(default_factory=Counter)
    """Characters left out, by split."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents and spans left out, by reason."""
    inputs: list[FileDigest] = field(default_factory=list)
    """The lists that were read."""
    removed: list[str] = field(default_factory=list)
    """Ids of documents that only the removal list leaves out, sorted."""
    known: set[str] = field(default_factory=set)
    """Ids on the removal list that the dataset has, used or not."""

    def kept(self, shard: int, line: int, count: int) -> np.ndarray:
        """[used] positions, from 0, of the used documents among `count` from `line` on."""
        first, last = document_ref(shard, line), document_ref(shard, line + count)
        out = self.whole[np.searchsorted(self.whole, first) : np.searchsorted(self.whole, last)] - first
        return np.delete(np.arange(count), out)

    def digests(self, groups: Iterable[Iterable[int]]) -> list[str]:
        """For each group of shards, the SHA-256 of what is left out of them."""
        found, cuts = list[str](), sorted(self.cuts.items())
        for group in groups:
            digest = hashlib.sha256()
            for shard in group:
                first, last = document_ref(shard, 0), document_ref(shard + 1, 0)
                begin, end = np.searchsorted(self.whole, (first, last))
                digest.update(self.whole[begin:end].tobytes())
                begin, end = (bisect_left(cuts, reference, key=itemgetter(0)) for reference in (first, last))
                digest.update(repr((shard, cuts[begin:end])).encode())
            found.append(digest.hexdigest())
        return found

    def of_shard(self, shard: int) -> Selection:
        """What is left out of one shard, without counts."""
        first, last = document_ref(shard, 0), document_ref(shard + 1, 0)
        begin, end = np.searchsorted(self.whole, (first, last))
        cuts = {document: spans for document, spans in self.cuts.items() if first <= document < last}
        return Selection(whole=self.whole[begin:end], cuts=cuts)

    def cut(self, document: int, text: str) -> str:
        """A document's text without the spans left out."""
        spans = self.cuts.get(document)
        if not spans:
            return text
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        return "".join([text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)])


def load(workspace: Workspace, dataset: str, *, removals: bool = False, lists: Sequence[str] = LISTS) -> Selection:
    """What the lists of a dataset leave out; with `removals` also the removal list, which rows follow and the tokenizer
    does not. A document that several lists have counts for the first.

    Raises:
        WorkspaceError: a list was made from other documents.
        DamageError: a list cannot be read.

    """
    selection, columns = Selection(), ["document", "split", "reason", "start", "end", "whole"]
    for path in [path for area in lists if (path := list_of(workspace, area, dataset))]:
        selection.inputs.append(workspace.file_digest(path))
        with reading_part(path):
            table = pq.read_table(path, columns=columns)
        table = table.filter(~np.isin(table["document"].to_numpy(), selection.whole))
        whole = table.filter(table["whole"])["document"].to_numpy()
        selection.whole = np.union1d(selection.whole, whole)
        for document, split, reason, start, end, all_of_it in zip(
            *(table[name].to_numpy().tolist() for name in columns), strict=True
        ):
            selection.reasons[reason] += 1
            selection.characters[split] += end - start
            if all_of_it:
                cuts = selection.cuts.pop(document, ())
                selection.characters[split] -= sum(last - first for first, last in cuts)
                selection.documents[split] += 1
            else:
                selection.cuts.setdefault(document, []).append((start, end))
    if removals:
        _remove(workspace, dataset, selection)
    return selection


def _remove(workspace: Workspace, dataset: str, selection: Selection) -> None:
    """Leave out the documents on the removal list."""
    wanted = of_dataset(listed(workspace), dataset)
    if not wanted:
        return
    values, out = pa.array(sorted(wanted), pa.string()), set(selection.whole.tolist())
    found: list[int] = []
    for path in checked_parts(workspace, workspace.documents(dataset)):
        if not any(pc.any(_named(batch, values)).as_py() for _, _, batch in read_part(path, ["id"])):
            continue  # so the texts of most shards are not read
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
    """[documents] bool: whether an id is among `values`; blanks around it do not count."""
    return pc.is_in(pc.utf8_trim_whitespace(batch["id"]), value_set=values)


def _remove_one(selection: Selection, reference: int, document: dict[str, str]) -> None:
    """Count a document that was used, less the spans already left out."""
    spans = selection.cuts.pop(reference, [])
    selection.removed.append(document["id"].strip())
    selection.reasons[REASON] += 1
    selection.documents[document["split"]] += 1
    selection.characters[document["split"]] += len(document["text"]) - sum(end - start for start, end in spans)


def datasets_of(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    """The datasets asked for, or all that have documents, in the order of the manifests.

    Raises:
        WorkspaceError: one of them has no documents, or there are no documents at all.

    """
    finished, known = workspace.finished("documents"), workspace.datasets()
    for name in wanted:
        if name not in finished or name not in known:
            raise WorkspaceError(f"{name} has no documents", hint=f"Run `corpus ingest --dataset {name}` first.")
    names = [name for name in known if name in (wanted or finished)]
    if not names:
        raise WorkspaceError("there are no documents to look through", hint="Run `corpus ingest` first.")
    return names


def documents_of(workspace: Workspace, dataset: str, progress: Progress = SILENT) -> Ledger:
    """The ledger of a dataset's documents, after checking the shards against it.

    Raises:
        WorkspaceError: there are no documents.
        DamageError: a shard is not what the ledger says.

    """
    folder = workspace.documents(dataset)
    ledger = read_ledger(folder)
    if ledger is None:
        raise WorkspaceError(f"{dataset} has no documents", hint=f"Run `corpus ingest --dataset {dataset}` first.")
    check_all(workspace, folder, ledger.outputs, progress)
    return ledger


def list_of(workspace: Workspace, area: str, dataset: str) -> Path | None:
    """The list that a stage of `LISTS` made for a dataset; None where it did not read the dataset.

    Raises:
        WorkspaceError: the list was made from other documents.
        DamageError: the list is not what its ledger says.

    """
    folder = workspace.root / area
    ledger, path = read_ledger(folder), folder / f"{dataset}.parquet"
    if ledger is None or read_ledger(workspace.documents(dataset)) is None:
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
    return checked(workspace, path)


def read_selected(
    path: Path, columns: Sequence[str], selection: Selection
) -> Iterator[tuple[int, np.ndarray, pa.RecordBatch]]:
    """The used documents of one shard, as (shard number, [documents] their lines, batch)."""
    for shard, line, batch in read_part(path, columns):
        lines, chosen = select(batch, shard, line, selection)
        yield shard, lines, chosen


def read_split(
    paths: Iterable[Path], split: str, columns: Sequence[str], selection: Selection
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """The used documents of one split in some shards, as ([documents] their references, batch)."""
    for path in paths:
        for shard, lines, batch in read_selected(path, [*columns, "split"], selection):
            wanted = pc.indices_nonzero(pc.equal(batch["split"], split)).to_numpy()
            if len(wanted):
                used = batch.take(wanted) if len(wanted) < batch.num_rows else batch
                yield document_ref(shard, lines[wanted]), used


def select(batch: pa.RecordBatch, shard: int, line: int, selection: Selection) -> tuple[np.ndarray, pa.RecordBatch]:
    """The used documents of a batch that begins at `line` of a shard, with their lines."""
    kept = selection.kept(shard, line, batch.num_rows)
    if len(kept) < batch.num_rows:
        batch = batch.take(pa.array(kept))
    references = document_ref(shard, line + kept).tolist() if selection.cuts else []
    column = batch.schema.get_field_index("text")
    if column >= 0 and not selection.cuts.keys().isdisjoint(references):
        texts = map(selection.cut, references, batch["text"].to_pylist())
        batch = batch.set_column(column, batch.schema.field(column), pa.array(texts, pa.string()))
    return line + kept, batch
