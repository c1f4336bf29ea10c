"""Which documents of a dataset are used: all but those that `corpus dedup`, `decontaminate` and `quality` leave out.

In: `documents/<dataset>/`, the lists of these stages (`storage.removal_lists`), `exclude.txt`.
Out: the used documents, with their shard and line.
Invariants: documents are never rewritten, so references stay valid. A list made from other documents is refused.
Cost: the paths of the lists, and the lists of one documents shard at a time, in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import checked_parts, document_ref, part_number, read_part, split_ref
from corpus.pipeline.storage.removal_lists import index_path, list_path, read_index, read_list
from corpus.pipeline.storage.removals import REASON, listed, of_dataset
from corpus.pipeline.workspace.checked import check_all, checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, read_ledger
from corpus.pipeline.workspace.remote import fetched

LISTS = ("dedup", "decontaminate", "quality")
"""Stages that leave documents out, in order: each skips what those before it leave out."""


@dataclass(frozen=True, slots=True)
class ShardSelection:
    """What is left out of one documents shard."""

    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """[documents] int64: lines of documents left out whole, sorted."""
    cuts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Spans of characters left out, in order, by line."""

    def kept(self, line: int, count: int) -> np.ndarray:
        """[used] positions, from 0, of the used documents among `count` from `line` on."""
        out = self.lines[np.searchsorted(self.lines, line) : np.searchsorted(self.lines, line + count)] - line
        return np.delete(np.arange(count), out)

    def cut(self, line: int, text: str) -> str:
        """A document's text without the spans left out."""
        spans = self.cuts.get(line)
        if not spans:
            return text
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        return "".join([text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)])


@dataclass(slots=True)
class Selection:
    """What is left out of one dataset."""

    lists: dict[int, list[Path]] = field(default_factory=dict)
    """The lists of each documents shard, by its number."""
    excluded: dict[int, np.ndarray] = field(default_factory=dict)
    """[documents] int64: lines of documents on the removal list, sorted, by the number of their shard."""
    documents: Counter[str] = field(default_factory=Counter)
    """Documents left out, by split."""
    characters: Counter[str] = field(default_factory=Counter)
    """Characters left out, by split."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents and spans left out, by reason."""
    inputs: list[FileDigest] = field(default_factory=list)
    """The indexes of the lists."""
    removed: list[str] = field(default_factory=list)
    """Ids of documents that only the removal list leaves out, sorted."""
    known: set[str] = field(default_factory=set)
    """Ids on the removal list that the dataset has, used or not."""

    def of(self, paths: Iterable[Path]) -> Selection:
        """The same for some documents shards, without the books: what a worker needs."""
        numbers = list(map(part_number, paths))
        lists = {number: self.lists[number] for number in numbers if number in self.lists}
        return Selection(lists, {number: self.excluded[number] for number in numbers if number in self.excluded})

    def shard(self, number: int) -> ShardSelection:
        """What is left out of a documents shard. Raises DamageError if a list cannot be read."""
        columns = ["document", "start", "end", "whole"]
        lines, cuts = self.excluded.get(number, np.zeros(0, dtype=np.int64)), dict[int, list[tuple[int, int]]]()
        for path in self.lists.get(number, ()):
            table = read_list(path, columns)
            whole = table["whole"].to_numpy()
            lines = np.union1d(lines, table["document"].to_numpy()[whole] - document_ref(number, 0))
            for row in table.filter(pa.array(~whole)).to_pylist() if not whole.all() else ():
                cuts.setdefault(split_ref(row["document"])[1], []).append((row["start"], row["end"]))
        for line in {*cuts}.intersection(lines.tolist()) if cuts else ():
            del cuts[line]
        return ShardSelection(lines, {line: _united(spans) for line, spans in cuts.items()})

    def digests(self, groups: Iterable[Iterable[int]]) -> list[str]:
        """For each group of shards, the SHA-256 of what is left out of them."""
        found = list[str]()
        for group in groups:
            digest = hashlib.sha256()
            for number in group:
                out = self.shard(number)
                digest.update(document_ref(number, out.lines).tobytes())
                cuts = [(document_ref(number, line), spans) for line, spans in sorted(out.cuts.items())]
                digest.update(repr((number, cuts)).encode())
            found.append(digest.hexdigest())
        return found


def load(workspace: Workspace, dataset: str, *, removals: bool = False, areas: Sequence[str] = LISTS) -> Selection:
    """What the lists of a dataset leave out; with `removals` also the removal list, which rows follow and the tokenizer
    does not. A document that several lists have counts for the first.

    Raises:
        WorkspaceError: a list was made from other documents, or by an earlier version.
        DamageError: a list cannot be read.

    """
    selection, apart = Selection(), True
    for area in areas:
        path = index_of(workspace, area, dataset)
        if path is None:
            continue
        index, ledger = read_index(path), read_ledger(workspace.root / area)
        knows = ledger is not None and {*selection.inputs} <= {*ledger.inputs}
        apart &= knows and selection.reasons.total() == selection.documents.total()  # all whole, none cut before
        selection.inputs.append(workspace.file_digest(path))
        selection.documents.update(index.documents)
        selection.characters.update(index.characters)
        selection.reasons.update(index.reasons)
        own = f"{path.relative_to(workspace.root / area).with_suffix('').as_posix()}/"
        outputs = ledger.outputs if ledger else ()
        fetched(workspace.root / area, [output for output in outputs if output.path.startswith(own)])
        for name in index.shards:
            place = checked(workspace, list_path(workspace.root / area, dataset, name))
            selection.lists.setdefault(part_number(place), []).append(place)
    if not apart:
        _count_again(selection)
    if removals:
        _remove(workspace, dataset, selection)
    return selection


def _count_again(selection: Selection) -> None:
    """Count the rows of lists where several may have the same document."""
    documents, characters, reasons = Counter[str](), Counter[str](), Counter[str]()
    for number in selection.lists:
        whole, spans = set[int](), dict[tuple[str, int], list[tuple[int, int]]]()
        for path in selection.lists[number]:
            before = frozenset(whole)
            for row in read_list(path, ["document", "split", "reason", "start", "end", "whole"]).to_pylist():
                document, split = row["document"], row["split"]
                if document in before:
                    continue
                reasons[row["reason"]] += 1
                spans.setdefault((split, document), []).append((row["start"], row["end"]))
                if row["whole"]:
                    documents[split] += 1
                    whole.add(document)
        for (split, _), own in spans.items():
            characters[split] += _size(_united(own))
    selection.documents, selection.characters, selection.reasons = documents, characters, reasons


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order; those that overlap, as of two lists, are one."""
    found = list[tuple[int, int]]()
    for begin, end in sorted(spans):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _size(spans: Iterable[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in spans)


def _remove(workspace: Workspace, dataset: str, selection: Selection) -> None:
    """Leave out the documents on the removal list."""
    wanted = of_dataset(listed(workspace), dataset)
    if not wanted:
        return
    values = pa.array(sorted(wanted), pa.string())
    for path in checked_parts(workspace, workspace.documents(dataset)):
        if not any(pc.any(_named(batch, values)).as_py() for _, _, batch in read_part(path, ["id"])):
            continue  # so the texts of most shards are not read
        number, found = part_number(path), list[int]()
        out = selection.shard(number)
        for _, line, batch in read_part(path, ["id", "text", "split"]):
            hits = pc.indices_nonzero(_named(batch, values))
            lines = (line + hits.to_numpy().astype(np.int64)).tolist()
            found += lines
            for own, document in zip(lines, batch.take(hits).to_pylist(), strict=True):
                selection.known.add(document["id"].strip())
                if own not in out.lines:
                    _remove_one(selection, out.cuts.get(own, []), document)
        selection.excluded[number] = np.array(found, dtype=np.int64)
    selection.removed.sort()


def _named(batch: pa.RecordBatch, values: pa.Array) -> pa.Array:
    """[documents] bool: whether an id is among `values`; blanks around it do not count."""
    return pc.is_in(pc.utf8_trim_whitespace(batch["id"]), value_set=values)


def _remove_one(selection: Selection, spans: Sequence[tuple[int, int]], document: dict[str, str]) -> None:
    """Count a document that was used, less the spans already left out."""
    selection.removed.append(document["id"].strip())
    selection.reasons[REASON] += 1
    selection.documents[document["split"]] += 1
    selection.characters[document["split"]] += len(document["text"]) - _size(spans)


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


def documents_of(workspace: Workspace, dataset: str, progress: Progress = SILENT, *, read: bool = True) -> Ledger:
    """The ledger of a dataset's documents, after checking the shards against it.

    Of a workspace in a storage the shards are brought for that, unless a `StageRun` is to `read` them, which brings
    them when the stage is due.

    Raises:
        WorkspaceError: there are no documents.
        DamageError: a shard is not what the ledger says.

    """
    folder = workspace.documents(dataset)
    ledger = read_ledger(folder)
    if ledger is None:
        raise WorkspaceError(f"{dataset} has no documents", hint=f"Run `corpus ingest --dataset {dataset}` first.")
    if read or workspace.remote is None:
        check_all(workspace, folder, ledger.outputs, progress)
    return ledger


def index_of(workspace: Workspace, area: str, dataset: str) -> Path | None:
    """The index of the lists that a stage of `LISTS` made for a dataset; None where it did not read the dataset.

    Raises:
        WorkspaceError: the lists were made from other documents, or by an earlier version.
        DamageError: the index is not what its ledger says.

    """
    folder = workspace.root / area
    ledger, path = read_ledger(folder), index_path(folder, dataset)
    if ledger is None or read_ledger(workspace.documents(dataset)) is None:
        return None
    documents = workspace.file_digest(workspace.documents(dataset) / LEDGER)
    seen = [entry for entry in ledger.inputs if entry.path == documents.path]
    if not seen:
        return None
    again = f"Run `corpus {area}` again."
    if seen != [documents]:
        made = f"{area}/{path.relative_to(folder)} was made from other documents than there are now"
        raise WorkspaceError(made, hint=again)
    if path.relative_to(folder).as_posix() not in {output.path for output in ledger.outputs}:
        made = f"{area}/ holds the lists of {dataset} as an earlier version of corpus-zh wrote them"
        raise WorkspaceError(made, hint=again)
    return checked(workspace, path)


def read_selected(
    path: Path, columns: Sequence[str], selection: Selection
) -> Iterator[tuple[int, np.ndarray, pa.RecordBatch]]:
    """The used documents of one shard, as (shard number, [documents] their lines, batch)."""
    out = selection.shard(part_number(path))
    for shard, line, batch in read_part(path, columns):
        lines, chosen = select(batch, line, out)
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


def select(batch: pa.RecordBatch, line: int, out: ShardSelection) -> tuple[np.ndarray, pa.RecordBatch]:
    """The used documents of a batch that begins at `line` of a shard, with their lines."""
    kept = out.kept(line, batch.num_rows)
    if len(kept) < batch.num_rows:
        batch = batch.take(pa.array(kept))
    lines = line + kept
    column = batch.schema.get_field_index("text")
    if column >= 0 and not out.cuts.keys().isdisjoint(lines.tolist()):
        texts = map(out.cut, lines.tolist(), batch["text"].to_pylist())
        batch = batch.set_column(column, batch.schema.field(column), pa.array(texts, pa.string()))
    return lines, batch
