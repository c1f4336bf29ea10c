"""Random documents: kept, changed, dropped or left out, before and after.

In: a workspace.
Out: a seeded sample of documents and records, with what was done to each and where a document differs from its record.
Invariants: the same seed gives the same documents of the same workspace. Nothing is written.
Cost: a few shards, and for each the records between the first and the last shown; never the whole dataset.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline.clean.pii_recognizers import PLACEHOLDERS
from corpus.pipeline.dedup.stage import CLUSTERS, EXACT, NEAR
from corpus.pipeline.documents.transform import ingested, rebuild
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.records import records_at
from corpus.pipeline.read.spans import RecordFile
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import document_at, part_number, parts, reading_part
from corpus.pipeline.storage.removal_lists import read_list
from corpus.pipeline.workspace.checked import checked
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger

STATES = ("kept", "changed", "dropped", "left-out")
_SHARDS = 4
_READ_FOR_EACH = 40
_READ_FOR_RULE = 10_000
"""Documents read for each one shown, and in all when those that a given rule changed are asked for."""
_CHARACTERS, _COMPARED = 600, 1800
"""Characters of each text that are shown, and that are compared."""
_AROUND = 24
"""Characters shown of the same text on each side of a difference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One document or record, and what was done to it."""

    dataset: str
    id: str
    state: str
    """One of STATES."""
    why: str
    """The rules that changed it, or the reason it is not used, with its detail."""
    before: str
    """The record's fields joined, before cleaning; for a duplicate the document that is used in its place."""
    after: str
    """The document; empty for a dropped record."""
    source_file: str
    source_offset: int
    """Where its record lies."""
    pieces: Sequence[tuple[str, str]] = field(default=())
    """The text as ("same" | "gone" | "new" | "more", piece); "more" stands for text that is not shown."""


def sample(
    workspace: Workspace,
    datasets: Sequence[str],
    *,
    state: str = "",
    reason: str = "",
    limit: int = 20,
    seed: int = 1,
    thorough: bool = True,
) -> Iterator[Example]:
    """Random documents in a state, or for a reason (a filter rule, a cleaning rule, a kind of mask, a list's reason).

    For a reason all shards are read. Unless `thorough`, only a few are: the first ones for what cleaning changed, so
    that no compressed file is unpacked to its end. Where the archives were deleted no changed document is shown, and a
    dropped record as it came.

    Raises:
        WorkspaceError: nothing to show, or the reason is unknown; the hint lists those there are. Or documents that
            are left out are asked for, and the lists were made from other documents.

    """
    random_ = random.Random(seed)  # noqa: S311  # a choice of examples
    for name in datasets if state == "left-out" else ():
        selection.load(workspace, name)  # which refuses stale lists
    known = {name: reasons(workspace, name) for name in datasets}
    there = sorted({each for states in known.values() for found in states.values() for each in found})
    if reason and reason not in there:
        raise WorkspaceError(
            f"no document was dropped, changed or left out for {reason!r}", hint=f"There are: {', '.join(there)}."
        )
    jobs: list[tuple[str, str]] = []
    for name in datasets:
        wanted = [each for each in ([state] if state else STATES) if not reason or reason in known[name].get(each, ())]
        jobs += [(name, each) for each in wanted if each == "kept" or known[name].get(each)]
    gone = {name for name in datasets if read_ledger(workspace.raw(name)) is None}
    possible = [(name, each) for name, each in jobs if each != "changed" or name not in gone]
    if jobs and not possible:
        raise WorkspaceError(
            f"raw/{jobs[0][0]} was deleted, and with it what the documents were before cleaning",
            hint=f"`corpus download --dataset {jobs[0][0]}` brings the records back.",
        )
    jobs, names = possible, removals.listed(workspace)
    removed = {name: removals.of_dataset(names, name) for name in datasets}
    found = 0
    for left, (name, each) in zip(range(len(jobs), 0, -1), jobs, strict=True):
        share = -(-(limit - found) // left)
        if share <= 0:
            return
        for shown in _FINDERS[each](workspace, name, reason, share, random_, None if thorough else _SHARDS):
            if shown.id.strip() in removed[name]:
                continue
            found += 1
            yield shown
    if not found:
        raise WorkspaceError("there is nothing to show", hint="`corpus status` says what the workspace holds.")


def reasons(workspace: Workspace, dataset: str) -> dict[str, list[str]]:
    """For each state the reasons for which a dataset has documents in it."""
    ledger = read_ledger(workspace.documents(dataset))
    if ledger is None:
        raise WorkspaceError(f"{dataset} has no documents", hint=f"Run `corpus ingest --dataset {dataset}` first.")
    left_out = _left_out_of(workspace, dataset).reasons
    return {
        "changed": [*ledger.counts["cleaned"], *ledger.counts["masked"]],
        "dropped": list(ledger.counts["dropped"]),
        "left-out": sorted(left_out),
    }


def marked(before: str, after: str) -> list[tuple[str, str]]:
    """The differences of two texts, character by character; long stretches without any are shortened.

    More is compared than is shown: at the end of a comparison, text whose counterpart lies beyond it looks new.
    """
    pieces: list[tuple[str, str]] = []
    pairs = enumerate(zip(before, after, strict=False))
    same = next((index for index, (old, new) in pairs if old != new), min(len(before), len(after)))
    if same > _CHARACTERS // 2 and before != after:
        skipped = same - 2 * _AROUND
        pieces, before, after = [("more", "... ")], before[skipped:], after[skipped:]
    clipped = len(before) > _CHARACTERS or len(after) > _CHARACTERS
    whole = max(len(before), len(after)) <= _COMPARED
    before, after = before[:_COMPARED], after[:_COMPARED]
    for tag, first, last, begin, end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        rest = _CHARACTERS - max(first, begin) if clipped else _COMPARED
        if rest <= 0:
            break
        gone, new = before[first:last][:rest], after[begin:end][:rest]
        if tag == "equal":
            pieces += _shortened(new, first=first == 0, last=last == len(before))
        elif whole or (last < len(before) and end < len(after)):
            pieces += [(kind, text) for kind, text in (("gone", gone), ("new", new)) if text]
    return [*pieces, ("more", " ...")] if clipped else pieces


def _shortened(text: str, *, first: bool, last: bool) -> list[tuple[str, str]]:
    head, tail = (0 if first else _AROUND), (0 if last else _AROUND)
    if len(text) <= 4 * _AROUND or (first and last):
        return [("same", text)]
    return [("same", text[:head]), ("more", " ... "), ("same", text[len(text) - tail :] if tail else "")]


def _kept(
    workspace: Workspace, dataset: str, _reason: str, limit: int, random_: random.Random, _most: int | None
) -> Iterator[Example]:
    chosen, gone = _left_out_of(workspace, dataset), dict[int, set[str]]()
    paths = parts(workspace.documents(dataset))
    most = limit + min(chosen.documents.total(), limit * _READ_FOR_EACH)

    def is_used(row: dict[str, Any]) -> bool:
        if row["part"] not in gone:
            lists = [read_list(path, ["id", "whole"]) for path in chosen.lists.get(row["part"], ())]
            gone[row["part"]] = {name for table in lists for name in table.filter(table["whole"])["id"].to_pylist()}
        return row["id"] not in gone[row["part"]]

    for row in itertools.islice(filter(is_used, _rows(workspace, paths, most, random_)), limit):
        yield _example(dataset, row, "kept", row["split"], row["text"], row["text"])


def _changed(
    workspace: Workspace, dataset: str, reason: str, limit: int, random_: random.Random, most: int | None
) -> Iterator[Example]:
    raw, manifest = workspace.raw(dataset), ingested(workspace, dataset)
    files = {file.path: file for file in list_files(raw, manifest)}
    paths = parts(workspace.documents(dataset))[:most]
    if reason:
        rows = list(
            _rows(workspace, paths, _READ_FOR_RULE, random_, shards=len(paths), holding=PLACEHOLDERS.get(reason, ""))
        )
    else:
        rows = list(_rows(workspace, paths, limit * _READ_FOR_EACH, random_))
    for row, record in _with_records(workspace, dataset, files, rows, random_):
        rebuilt = rebuild(manifest, files[row["source_file"]], record)
        if rebuilt.rules and (not reason or reason in {rule.removeprefix("mask ") for rule in rebuilt.rules}):
            yield _example(dataset, row, "changed", ", ".join(rebuilt.rules), rebuilt.before, row["text"])
            limit -= 1
            if not limit:
                return


def _dropped(
    workspace: Workspace, dataset: str, reason: str, limit: int, random_: random.Random, most: int | None
) -> Iterator[Example]:
    raw, manifest = workspace.raw(dataset), ingested(workspace, dataset)
    there = list_files(raw, manifest) if read_ledger(raw) else ()
    files = {file.path: file for file in there}
    paths = parts(workspace.documents(dataset) / "rejected")
    paths = random_.sample(paths, min(len(paths), most or len(paths)))
    for row in _rows(workspace, paths, limit, random_, shards=len(paths) if reason else _SHARDS, reason=reason):
        rebuilt = rebuild(manifest, files[row["source_file"]], row["raw"]) if row["source_file"] in files else None
        before = (rebuilt and rebuilt.before) or row["raw"][: 4 * _CHARACTERS].decode("utf-8", "backslashreplace")
        row["id"] = row["id"] or f"{row['source_file']}:{row['source_offset']}"
        after = (rebuilt and rebuilt.text) or before
        yield _example(dataset, row, "dropped", f"{row['reason']}: {row['detail']}", before, "", after)


def _left_out(
    workspace: Workspace, dataset: str, reason: str, limit: int, random_: random.Random, _most: int | None
) -> Iterator[Example]:
    chosen = selection.load(workspace, dataset)
    where = [
        (path, line)
        for number in sorted(chosen.lists)
        for path in chosen.lists[number]
        for line, each in enumerate(read_list(path, ["reason"])["reason"].to_pylist())
        if not reason or each == reason
    ]
    for path, line in random_.sample(where, min(limit, len(where))):
        (row,) = read_list(path).slice(line, 1).to_pylist()
        document = document_at(workspace, dataset, row["document"])
        text = document["text"]
        duplicate = row["reason"] in {EXACT, NEAR}
        instead = _used_instead(workspace, dataset, row["document"]) if duplicate else text
        if instead is not None:  # else the removal list names that one
            used = text if row["whole"] else text[: row["start"]] + text[row["end"] :]
            yield _example(dataset, document, "left-out", f"{row['reason']}: {row['detail']}", instead, used)


def _example(
    dataset: str, row: dict[str, Any], state: str, why: str, before: str, after: str, compared: str = ""
) -> Example:
    """`before` is marked against `after`, or against `compared` if given."""
    return Example(
        dataset=dataset, id=row["id"], state=state, why=why, before=before, after=after,
        source_file=row["source_file"], source_offset=row["source_offset"], pieces=marked(before, compared or after),
    )  # fmt: skip


_FINDERS = {"kept": _kept, "changed": _changed, "dropped": _dropped, "left-out": _left_out}


def _left_out_of(workspace: Workspace, dataset: str) -> selection.Selection:
    """What is left out of a dataset; nothing where its lists are stale."""
    try:
        return selection.load(workspace, dataset)
    except WorkspaceError:
        return selection.Selection()


def _rows(
    workspace: Workspace,
    paths: Sequence[Path],
    limit: int,
    random_: random.Random,
    *,
    shards: int = _SHARDS,
    reason: str = "",
    holding: str = "",
) -> Iterator[dict[str, Any]]:
    """Random rows of a few random shards; with `reason` or `holding` only those with this reason or string."""
    all_groups = bool(reason or holding) or shards > _SHARDS
    chosen = random_.sample(list(paths), min(len(paths), shards))
    for left, path in zip(range(len(chosen), 0, -1), chosen, strict=True):
        if limit <= 0:
            return
        with reading_part(checked(workspace, path)), pq.ParquetFile(path) as file:
            groups = list(range(file.num_row_groups))
            table = file.read_row_groups(groups if all_groups else groups and [random_.choice(groups)])
        if holding:
            table = table.filter(pc.match_substring(table["text"], holding))
        if reason:
            table = table.filter(table["reason"].to_numpy(zero_copy_only=False) == reason)
        lines = sorted(random_.sample(range(table.num_rows), min(table.num_rows, -(-limit // left))))
        limit -= len(lines)
        yield from (row | {"part": part_number(path)} for row in table.take(pa.array(lines, pa.int64())).to_pylist())


def _with_records(
    workspace: Workspace,
    dataset: str,
    files: dict[str, RecordFile],
    rows: Sequence[dict[str, Any]],
    random_: random.Random,
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Documents with the records they were made of, file by file, in random order."""
    for name in dict.fromkeys(row["source_file"] for row in rows):
        own_rows = [row for row in rows if row["source_file"] == name]
        if name not in files:
            raise WorkspaceError(
                f"{name} is no longer in {workspace.raw(dataset)}", hint=f"Run `corpus download --dataset {dataset}`."
            )
        records = records_at(workspace.raw(dataset), files[name], [row["source_offset"] for row in own_rows])
        random_.shuffle(own_rows)
        yield from ((row, records[row["source_offset"]]) for row in own_rows)


def _used_instead(workspace: Workspace, dataset: str, document: int) -> str | None:
    """The text of the document that its cluster keeps in place of a duplicate; None where the removal list names it."""
    path = workspace.dedup / CLUSTERS
    with reading_part(checked(workspace, path)):
        (own,) = pq.read_table(path, filters=[("dataset", "=", dataset), ("document", "=", document)]).to_pylist()
        (kept,) = pq.read_table(path, filters=[("cluster", "=", own["cluster"]), ("kept", "=", True)]).to_pylist()
    if kept["id"].strip() in removals.of_dataset(removals.listed(workspace), kept["dataset"]):
        return None
    return str(document_at(workspace, kept["dataset"], kept["document"], ["text"])["text"])
