"""From a row back to the records it was made of.

In: the number of a row, a document's id, words of a text, or a reason.
Out: its text and the chain behind it: document, file, byte offset, raw record, the rules that changed it. The record is
cleaned and encoded again to check that it gives the same tokens.
Cost: one row group of documents and one record are read. A compressed file is unpacked up to the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from corpus.pipeline import templates
from corpus.pipeline.documents.transform import ingested, rebuild
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect import shared
from corpus.pipeline.quality.scores import score_at
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.records import record_at
from corpus.pipeline.read.spans import RecordFile
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import checked_parts, document_at, document_ref, read_part, split_ref
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentOrigin:
    """A document and where it came from."""

    dataset: str
    id: str
    split: str
    text: str
    prompt_length: int
    source_file: str
    source_offset: int
    container: str = ""
    """The file in `raw/` that holds the record; empty, as the next ones, where the archives were deleted."""
    raw: bytes = b""
    """The record before parsing."""
    rules: tuple[str, ...] = ()
    """The cleaning rules that changed it."""
    rebuilt: bool | None = None
    """Whether cleaning the record again gives the same text and prompt length."""
    turns: tuple[int, ...] | None = None
    """Where the later turns of a conversation begin; None for other documents."""
    score: tuple[float, bool] | None = None
    """Its learned quality score, and whether it is left out for it; None where it was not scored."""
    runs: tuple[shared.SharedRun, ...] = ()
    """What it shares with earlier documents, where that was looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A segment of a row, decoded."""

    text: str
    start: int
    length: int
    origin: DocumentOrigin
    rebuilt: bool
    """Whether encoding the document again gives the same tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A record that was dropped."""

    dataset: str
    source_file: str
    source_offset: int
    reason: str
    detail: str
    raw: bytes


def row(workspace: Workspace, dataset: str, split: str, number: int, form: str = "text") -> tuple[list[Segment], int]:
    """The segments of a packed row of a form, and how many slots are padding.

    Raises:
        WorkspaceError: there is no such row.

    """
    found = _row(workspace, dataset, split, number, form)
    chosen = selection.load(workspace, dataset)
    checked(workspace, workspace.tokenizer / "tokenizer.json")
    model = files.load(workspace.tokenizer)
    ids = found["input_ids"][0].as_py()
    segments: list[Segment] = []
    position = 0
    for entry in found["segments"][0].as_py():
        length, start = entry["length"], entry["start"]
        origin = _origin(workspace, dataset, entry["document"])
        part = ids[position : position + length]
        shard, line = split_ref(entry["document"])
        used = chosen.shard(shard).cut(line, origin.text)
        whole = _tokens(model, used, origin, form)
        text, rebuilt = model.decode(part, skip_special_tokens=False), whole[start : start + length] == part
        segments.append(Segment(text=text, start=start, length=length, origin=origin, rebuilt=rebuilt))
        position += length
    return segments, len(ids) - position


def documents(
    workspace: Workspace, datasets: tuple[str, ...], *, name: str = "", text: str = "", limit: int = 3
) -> Iterator[DocumentOrigin]:
    """Documents whose id is `name`, or whose text holds these words, in order, without those on the removal list.

    Raises:
        WorkspaceError: `name` is on the removal list, or no document has it.

    """
    column, wanted = ("id", name) if name else ("text", text)
    names, most = removals.listed(workspace), limit
    for dataset in datasets:
        removed = removals.of_dataset(names, dataset)
        for path in checked_parts(workspace, workspace.documents(dataset)):
            for shard, line, batch in read_part(path, [column]):
                values = batch[column]
                hits = pc.equal(values, wanted) if name else pc.match_substring(values, wanted)
                for hit in pc.indices_nonzero(hits).to_pylist():
                    origin = _origin(workspace, dataset, document_ref(shard, line + hit))
                    if origin.id.strip() in removed:
                        if name:
                            raise WorkspaceError(
                                f"{dataset}:{name} was removed", hint=f"{workspace.root / removals.LIST} names it."
                            )
                        continue
                    yield origin
                    limit -= 1
                    if limit == 0:
                        return
    if name and limit == most:
        raise WorkspaceError(
            f"no document of {', '.join(datasets)} has the id {name!r}",
            hint=f"Ids look like {_an_id(workspace, datasets)}; `corpus trace --text WORDS` shows those of documents.",
        )


def _an_id(workspace: Workspace, datasets: tuple[str, ...]) -> str:
    """The id of the first document there is."""
    every = (
        batch["id"]
        for name in datasets
        for path in checked_parts(workspace, workspace.documents(name))
        for _, _, batch in read_part(path, ["id"])
    )
    return next((str(ids[0]) for ids in every if len(ids)), "qid_1@FILE:0")


def rejected(workspace: Workspace, datasets: tuple[str, ...], reason: str, *, limit: int = 3) -> Iterator[Dropped]:
    """Records dropped for a reason, in order.

    Raises:
        WorkspaceError: no record was dropped for it; the hint lists the reasons there are.

    """
    ledgers = [read_ledger(workspace.documents(dataset)) for dataset in datasets]
    there = sorted({name for ledger in ledgers if ledger for name in ledger.counts["dropped"]})
    if reason not in there:
        known = f"There are: {', '.join(there)}." if there else "No record was dropped."
        raise WorkspaceError(f"no record of {', '.join(datasets)} was dropped for {reason!r}", hint=known)
    found = (
        Dropped(dataset=dataset, **entry)
        for dataset in datasets
        for path in checked_parts(workspace, workspace.documents(dataset) / "rejected")
        for _, _, batch in read_part(path, [each.name for each in dataclasses.fields(Dropped)[1:]])
        for entry in batch.filter(pc.equal(batch["reason"], reason)).to_pylist()
    )
    return itertools.islice(found, limit)


def _tokens(model: Tokenizer, text: str, origin: DocumentOrigin, form: str) -> list[int | None]:
    """The tokens of a document's text in a form; empty where the form cannot use it."""
    encode = functools.partial(model.encode, add_special_tokens=False)
    if form == "text":
        return [*encode(text).ids, model.token_to_id(special_tokens.SEPARATOR)]
    if origin.turns is None:
        turns: Sequence[str] | None = templates.turn(text, origin.prompt_length)
    else:
        turns = templates.turns(text, origin.turns)
    names = (special_tokens.USER, special_tokens.ASSISTANT, special_tokens.SEPARATOR)
    user, assistant, separator = map(model.token_to_id, names)
    ids: list[int | None] = []
    for at, side in enumerate(turns or ()):
        ids += [assistant, *encode(side).ids, separator] if at % 2 else [user, *encode(side).ids]
    return ids


def _row(workspace: Workspace, dataset: str, split: str, number: int, form: str) -> pa.Table:
    folder = workspace.packed(dataset, form)
    ledger = read_ledger(folder)
    rows = ledger.counts["splits"].get(split, {}).get("rows", 0) if ledger else 0
    if not 0 <= number < rows:
        raise WorkspaceError(
            f"{workspace.relative(folder / split)} has no row {number}: it has {rows:,}",
            hint="`corpus status` lists what is packed; rows are counted from 0.",
        )
    left = number
    for path in sorted((folder / split).glob("data-*.arrow")):
        with pa.memory_map(str(checked(workspace, path))) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                if left < batch.num_rows:
                    return pa.Table.from_batches([batch.slice(left, 1)])
                left -= batch.num_rows
    raise WorkspaceError(f"{folder} has fewer rows than its ledger says", hint="Run `corpus verify`.")


def _origin(workspace: Workspace, dataset: str, reference: int) -> DocumentOrigin:
    """A document, and its record, read and cleaned again, while the archives are there."""
    document = document_at(workspace, dataset, reference)
    raw_folder, given = workspace.raw(dataset), ("id", "split", "text", "prompt_length", "source_file", "source_offset")
    turns = tuple(document["turns"]) if "turns" in document else None
    score, runs = None, list[shared.SharedRun]()
    with contextlib.suppress(WorkspaceError):  # the scores are of other documents
        score = score_at(workspace, dataset, reference)
    with contextlib.suppress(WorkspaceError):
        runs = shared.runs_of(workspace, dataset, reference)
    own = {name: document[name] for name in given}
    found = DocumentOrigin(dataset=dataset, turns=turns, score=score, runs=tuple(runs), **own)
    if read_ledger(raw_folder) is None:
        return found
    manifest = ingested(workspace, dataset)
    file = next((file for file in _files(workspace, dataset) if file.path == document["source_file"]), None)
    if file is None:
        raise WorkspaceError(
            f"{document['source_file']} is no longer in {raw_folder}",
            hint=f"Run `corpus download --dataset {dataset}`.",
        )
    raw = record_at(raw_folder, file, document["source_offset"])
    rebuilt = rebuild(manifest, file, raw)
    same = (rebuilt.text, rebuilt.prompt_length) == (document["text"], document["prompt_length"])
    return replace(found, container=file.container, raw=raw, rules=rebuilt.rules, rebuilt=same)


@functools.cache
def _files(workspace: Workspace, dataset: str) -> list[RecordFile]:
    return list_files(workspace.raw(dataset), workspace.manifest(dataset))
