"""The stage that keeps evaluation sets out of the training data.

In: `documents/<dataset>/` of every dataset, `dedup/<dataset>.parquet` where there is one, and evaluation files. Out:
`decontaminate/<dataset>.parquet`, the documents and spans to leave out; `decontaminate/hits.parquet`, why;
`decontaminate/evals/`, the evaluation files as they came, so that the next run need not be given them.
Invariants: every document is looked at, or was left out by dedup; no document is rewritten and no prompt cut; the lists
depend on documents, evaluation files and settings alone, so workers change nothing.
Cost: a worker holds one row group of documents and the passages, the command one row a hit.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate import eval_files, ngram_index
from corpus.pipeline.decontaminate.ngram_index import Hit, Index, Phrases
from corpus.pipeline.errors import BooksError, SourceError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import (
    REMOVED_SCHEMA,
    document_ref,
    part_number,
    parts,
    read_part,
    reading_part,
    split_ref,
)
from corpus.pipeline.storage.selection import Selection, datasets_of, documents_of, list_of, select
from corpus.pipeline.workers import run_pieces, sensible
from corpus.pipeline.workspace.layout import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    Workspace,
    atomic,
    changes,
    disk_errors,
    fingerprint,
    read_ledger,
    remove_leftovers,
    sha256_file,
    write_atomic,
    write_ledger,
)

STAGE = "decontaminate"
VERSION = 1
REASON = "contaminated"
HITS_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("dataset", pa.string()),
            ("document", pa.int64()),
            ("id", pa.string()),
            ("split", pa.string()),
            ("file", pa.string()),
            ("item", pa.int32()),
            ("field", pa.string()),
            ("items", pa.int32()),
            ("share", pa.float64()),
            ("span_start", pa.int32()),
            ("span_end", pa.int32()),
            ("span", pa.string()),
        )
    ]
)
"""What documents share with evaluation items, in order of dataset, document, file and item: `share` of the text of a
field of an item, the first of `items` of its file with that text; `span` is the longest piece of the document."""
_SPAN_CHARACTERS = 200
_DETAIL_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminateConfig:
    """What is kept out, and of which datasets."""

    against: tuple[Path, ...] = ()
    """Evaluation files, which join those that the workspace has."""
    fields: tuple[str, ...] = ()
    """Dotted names of the fields of items that count; all when empty."""
    datasets: tuple[str, ...] = ()
    """Datasets to look through; all that have documents when empty."""
    cut: bool = False
    """Whether prose loses only what it shares; questions and translations go whole all the same."""
    min_share: float = ngram_index.MIN_SHARE
    """Least share of an item's text that a document must hold; a long span counts below it."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not 0 < self.min_share <= 1:
            raise ValueError(f"--min-share must be above 0 and at most 1, is {self.min_share}")
        if not all(self.fields):
            raise ValueError("--field must not be empty")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


@dataclass(frozen=True, slots=True)
class Shard:
    """What one worker looks through."""

    path: Path
    duplicates: np.ndarray
    """[documents] references of documents that dedup has left out, sorted."""


@dataclass(slots=True)
class Suspect:
    """A document that shares something with passages."""

    document: int
    id: str
    split: str
    characters: int
    prompt_length: int
    hits: list[tuple[Hit, str]]
    """What it shares, with the beginning of the longest span."""


@dataclass(slots=True)
class Found:
    """What was seen of a shard, or of a dataset."""

    documents: Counter[str] = field(default_factory=Counter)
    """Documents looked at, by split."""
    skipped: int = 0
    """Documents that dedup has left out."""
    suspects: list[Suspect] = field(default_factory=list)


def run(config: DecontaminateConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Find the documents that hold evaluation items; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no evaluation files; dedup saw other documents.
        SourceError: an evaluation file cannot be read, or holds nothing to look for.
        DamageError: a documents shard or a list of dedup is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say.

    """
    watch, folder = Stopwatch(), workspace.decontaminate
    ledgers = {name: documents_of(workspace, name) for name in datasets_of(workspace, config.datasets)}
    duplicates = {name: path for name in ledgers if (path := list_of(workspace, "dedup", name))}
    remove_leftovers(folder)
    _take(config, folder / "evals", progress)
    inputs = _inputs(workspace, ledgers, duplicates)
    settings = _settings(config, list(ledgers))
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    before = read_ledger(folder)
    reasons = changes(before, folder, VERSION, settings, inputs, workspace.digest)
    if before is not None and not reasons:
        return Report(ledger=before, folder=folder, skipped=True)
    for reason in reasons:
        progress.say(f"evaluation items are sought again: {reason}")
    index, items = _sets(folder / "evals", config.fields, identity)
    (folder / LEDGER).unlink(missing_ok=True)
    search = partial(search_shard, evaluations=folder / "evals", config=config, identity=identity)
    shards = {name: list(_shards(workspace, name, duplicates.get(name))) for name in ledgers}
    found, phrases = _search(search, shards, ledgers, config, Phrases(index, config.min_share), progress)
    _check_books(shards, ledgers, found)
    lists = {name: _list(found[name], index, config, ledgers[name]) for name in ledgers}
    hits = pa.Table.from_pylist(list(_hits(found, index)), HITS_SCHEMA)
    outputs = {f"{name}.parquet": table for name, table in (*lists.items(), ("hits", hits))}
    _write(folder, outputs)
    ledger = Ledger(
        stage=STAGE, dataset=None, version=VERSION, config=settings, inputs=inputs,
        outputs=workspace.file_digests([folder / name for name in sorted(outputs)], folder),
        counts=_counts(found, lists, index, items, phrases), fingerprint=identity,
    )  # fmt: skip
    write_ledger(folder, ledger, {"seconds": watch.seconds, "workers": sensible(config.workers, None)})
    return Report(
        ledger=ledger, folder=folder, reasons=tuple(reasons), notes=_notes(ledger.counts), seconds=watch.seconds
    )


def _take(config: DecontaminateConfig, folder: Path, progress: Progress) -> None:
    """Bring the evaluation files that were given into the workspace, each under its name and once it can be read."""
    digests = {path.name: sha256_file(path) for path in eval_files.list_files(folder)}
    for path in config.against:
        try:
            digest = sha256_file(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        if digests.get(path.name, digest) != digest:
            raise SourceError(
                f"{path} has other bytes than another evaluation file of that name",
                hint=f"Give it another name; or, to replace the older one, delete {folder / path.name} first.",
            )
        if path.name not in digests:
            eval_files.read(path, config.fields)
            with disk_errors(folder):
                write_atomic(folder / path.name, path.read_bytes())
            digests[path.name] = digest
            progress.say(f"{path.name} joins the evaluation files of the workspace, {len(digests)} now")
    if not digests:
        raise WorkspaceError("there are no evaluation files", hint="Give some: `corpus decontaminate --against FILE`.")


def _inputs(workspace: Workspace, ledgers: Mapping[str, Ledger], duplicates: Mapping[str, Path]) -> list[FileDigest]:
    paths = [workspace.documents(name) / LEDGER for name in ledgers]
    paths += [*duplicates.values(), *eval_files.list_files(workspace.decontaminate / "evals")]
    return [workspace.file_digest(path) for path in paths]


def _settings(config: DecontaminateConfig, names: list[str]) -> dict[str, Any]:
    """Everything that decides the result, as the ledger shows it."""
    return {
        "datasets": names,
        "fields": sorted({*config.fields}),
        "cut": config.cut,
        "min_share": config.min_share,
        "opencc": version("OpenCC"),
        "unicode": unicodedata.unidata_version,
    }


@functools.lru_cache(maxsize=1)
def _sets(folder: Path, fields: Sequence[str], identity: str) -> tuple[Index, Mapping[str, int]]:  # noqa: ARG001  # part of the cache's key: other files give another index
    """The index of all evaluation files, and how many items each has."""
    found = eval_files.read_all(folder, fields)
    index = ngram_index.build(text for evaluation in found for text in evaluation.texts)
    return index, {evaluation.file: evaluation.items for evaluation in found}


def _shards(workspace: Workspace, name: str, duplicates: Path | None) -> Iterator[Shard]:
    out = np.zeros(0, dtype=np.int64)
    if duplicates is not None:
        with reading_part(duplicates):
            table = pq.read_table(duplicates, columns=["document", "whole"])
        out = np.unique(table["document"].to_numpy()[table["whole"].to_numpy()])
    for path in parts(workspace.documents(name)):
        first, last = (document_ref(part_number(path) + more, 0) for more in (0, 1))
        yield Shard(path, out[(out >= first) & (out < last)])


def search_shard(shard: Shard, *, evaluations: Path, config: DecontaminateConfig, identity: str) -> Found:
    """Look through one documents shard; runs in a worker.

    Raises:
        DamageError: the shard cannot be read.

    """
    index, _ = _sets(evaluations, config.fields, identity)
    found, left_out = Found(), Selection(whole=shard.duplicates)
    for number, line, whole in read_part(shard.path, ["id", "text", "prompt_length", "split"]):
        lines, batch = select(whole, number, line, left_out)
        texts = batch["text"].to_pylist()
        found.skipped += len(whole) - len(batch)
        found.documents.update(batch["split"].to_pylist())
        for hit in ngram_index.search(index, texts, config.min_share):
            at, text = hit.document, texts[hit.document]
            document = int(document_ref(number, lines[at]))
            if not found.suspects or found.suspects[-1].document != document:
                name, length, split = (batch[key][at].as_py() for key in ("id", "prompt_length", "split"))
                found.suspects.append(Suspect(document, name, split, len(text), length, []))
            found.suspects[-1].hits.append((hit, text[hit.span[0] : hit.span[1]][:_SPAN_CHARACTERS]))
    return found


def _search(
    search: partial[Found], shards: Mapping[str, list[Shard]], ledgers: Mapping[str, Ledger],
    config: DecontaminateConfig, phrases: Phrases, progress: Progress,
) -> tuple[dict[str, Found], int]:  # fmt: skip
    """What is found in each dataset, and how many hits were phrases of the language."""
    found = {name: Found() for name in ledgers}
    every = [(name, shard) for name in ledgers for shard in shards[name]]
    hits = 0
    progress.begin("decontaminate", sum(ledger.counts["documents"] for ledger in ledgers.values()), "documents")
    try:
        made = run_pieces(search, [shard for _, shard in every], workers=sensible(config.workers, len(every)))
        for (name, _), part in zip(every, made, strict=True):
            found[name].documents += part.documents
            found[name].skipped += part.skipped
            hits += sum(len(suspect.hits) for suspect in part.suspects)
            found[name].suspects += _holding(part.suspects, phrases.add)
            progress.advance(part.documents.total() + part.skipped)
    finally:
        progress.end()
    for dataset in found.values():
        dataset.suspects = _holding(dataset.suspects, phrases.holds)
    return found, hits - sum(len(suspect.hits) for part in found.values() for suspect in part.suspects)


def _holding(suspects: Sequence[Suspect], holds: Callable[[Hit], bool]) -> list[Suspect]:
    """Suspects with the hits that hold, without those that have none left."""
    for suspect in suspects:
        suspect.hits = [(hit, span) for hit, span in suspect.hits if holds(hit)]
    return [suspect for suspect in suspects if suspect.hits]


def _check_books(shards: Mapping[str, list[Shard]], ledgers: Mapping[str, Ledger], found: Mapping[str, Found]) -> None:
    """Every document was looked at or skipped, and every suspect is one of them, once and in order."""
    for name, part in found.items():
        seen, there = part.documents.total() + part.skipped, ledgers[name].counts["documents"]
        if seen != there:
            raise BooksError(f"{name}: {there:,} documents, {seen:,} of them looked at or left out by dedup")
        sizes = {part_number(shard.path): pq.read_metadata(shard.path).num_rows for shard in shards[name]}
        references = [suspect.document for suspect in part.suspects]
        known = all(line < sizes.get(shard, 0) for shard, line in map(split_ref, references))
        if not known or references != sorted({*references}):
            raise BooksError(f"{name}: what was found does not refer to the documents that are there")


def _list(found: Found, index: Index, config: DecontaminateConfig, ledger: Ledger) -> pa.Table:
    rows = list(_removed(found.suspects, index, config.cut, ledger.config["min_length"]))
    return pa.Table.from_pylist(rows, REMOVED_SCHEMA)


def _removed(suspects: Sequence[Suspect], index: Index, cut: bool, least: int) -> Iterator[dict[str, Any]]:
    """Rows of the list of a dataset; a document of which less than half, or than `least`, would be left goes whole."""
    for suspect in suspects:
        spans, whole = [(0, suspect.characters)], True
        if cut and not suspect.prompt_length:
            shared = ngram_index.joined((span for hit, _ in suspect.hits for span in hit.spans), 1)
            left = suspect.characters - sum(end - start for start, end in shared)
            if left >= max(least, suspect.characters / 2):
                spans, whole = shared, False
        for start, end in spans:
            here = [hit for hit in suspect.hits if any(first < end and start < last for first, last in hit[0].spans)]
            best, span = max(here, key=lambda hit: (hit[0].longest, hit[0].share))
            owner = index.owners[best.passage][0]
            detail = f"{owner.file}:{owner.item}: {span[:_DETAIL_CHARACTERS]}".replace("\n", " ")
            yield {
                "document": suspect.document, "id": suspect.id, "split": suspect.split, "reason": REASON,
                "detail": detail, "start": start, "end": end, "whole": whole,
            }  # fmt: skip


def _hits(found: Mapping[str, Found], index: Index) -> Iterator[dict[str, Any]]:
    """Rows of `hits.parquet`: one for each document, text and file that has it."""
    for name, part in found.items():
        for suspect in part.suspects:
            rows = [
                (owners[0], len({owner.item for owner in owners}), hit, span)
                for hit, span in suspect.hits
                for _, group in itertools.groupby(index.owners[hit.passage], key=lambda owner: owner.file)
                if (owners := list(group))
            ]
            for owner, items, hit, span in sorted(rows, key=lambda row: row[0]):
                yield {
                    "dataset": name, "document": suspect.document, "id": suspect.id, "split": suspect.split,
                    **owner._asdict(), "items": items, "share": hit.share, "span_start": hit.span[0],
                    "span_end": hit.span[1], "span": span,
                }  # fmt: skip


def _write(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    for name, table in tables.items():
        with atomic(folder / name) as out:
            pq.write_table(table, out, compression="zstd")
    for path in folder.glob("*.parquet"):
        if path.name not in tables:
            path.unlink()


def _counts(
    found: Mapping[str, Found], lists: Mapping[str, pa.Table], index: Index, items: Mapping[str, int], phrases: int
) -> dict[str, Any]:
    hits = [hit for part in found.values() for suspect in part.suspects for hit, _ in suspect.hits]
    looked_for = {owner[:2] for owners in index.owners for owner in owners}
    hit_items = {owner[:2] for passage in {hit.passage for hit in hits} for owner in index.owners[passage]}
    files = Counter(file for hit in hits for file in {owner.file for owner in index.owners[hit.passage]})
    return {
        "datasets": {
            name: {
                "documents": dict(sorted(part.documents.items())),
                "contaminated": dict(sorted(Counter(suspect.split for suspect in part.suspects).items())),
                "whole": lists[name].filter(lists[name]["whole"]).num_rows,
                "spans": lists[name].num_rows - lists[name].filter(lists[name]["whole"]).num_rows,
                "left_out_by_dedup": part.skipped,
            }
            for name, part in found.items()
        },
        "evals": {
            file: {
                "items": count,
                "items_hit": sum(owner[0] == file for owner in hit_items),
                "items_too_short": count - sum(owner[0] == file for owner in looked_for),
                "hits": files[file],
            }
            for file, count in items.items()
        },
        "passages": len(index.owners),
        "ngrams": len(index.grams),
        "ngrams_too_common": index.phrases,
        "hits_too_common": phrases,
    }


def _notes(counts: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"{file}: {count['items_too_short']:,} of {count['items']:,} items are too short to look for"
        for file, count in counts["evals"].items()
        if count["items_too_short"]
    ]
    if common := counts["hits_too_common"]:
        notes.append(
            f"{common:,} hits do not count: more than {ngram_index.PHRASE_DOCUMENTS} documents share so much of them "
            "that it is a phrase of the language"
        )
    return tuple(notes)
