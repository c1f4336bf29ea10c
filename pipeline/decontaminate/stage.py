"""The stage that keeps evaluation sets out of the training data.

In: `documents/<dataset>/` of every dataset, `dedup/<dataset>.parquet` where there is one, and evaluation files. Out:
`decontaminate/<dataset>.parquet`, the documents and spans to leave out; `decontaminate/hits.parquet`, why;
`decontaminate/evals/`, the evaluation files as they came, so that the next run need not be given them.
Invariants: every document is looked at, or was left out by dedup; no document is rewritten and no prompt cut; the lists
depend on documents, evaluation files and settings alone, so workers change nothing.
Cost: a worker holds one row group of documents and the passages, the command one row a hit.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate import eval_files
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.lists import HITS_SCHEMA, count_hits, hit_rows, notes_on, removal_list, write_lists
from corpus.pipeline.decontaminate.ngram_index import Phrases
from corpus.pipeline.decontaminate.search import Found, Shard, list_shards, open_index, search_all, search_shard
from corpus.pipeline.errors import BooksError, SourceError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import (
    part_number,
    split_ref,
)
from corpus.pipeline.storage.selection import datasets_of, documents_of, list_of
from corpus.pipeline.workers import worker_count
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers, sha256_file, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    changes,
    fingerprint,
    read_ledger,
    write_ledger,
)

STAGE = "decontaminate"
VERSION = 1


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
    index, items = open_index(folder / "evals", config.fields, identity)
    (folder / LEDGER).unlink(missing_ok=True)
    search = partial(search_shard, evaluations=folder / "evals", config=config, identity=identity)
    shards = {name: list(list_shards(workspace, name, duplicates.get(name))) for name in ledgers}
    found, phrases = search_all(search, shards, ledgers, config, Phrases(index, config.min_share), progress)
    _check_books(shards, ledgers, found)
    lists = {name: removal_list(found[name], index, config, ledgers[name]) for name in ledgers}
    hits = pa.Table.from_pylist(list(hit_rows(found, index)), HITS_SCHEMA)
    outputs = {f"{name}.parquet": table for name, table in (*lists.items(), ("hits", hits))}
    write_lists(folder, outputs)
    ledger = Ledger(
        stage=STAGE, dataset=None, version=VERSION, config=settings, inputs=inputs,
        outputs=workspace.file_digests([folder / name for name in sorted(outputs)], folder),
        counts=count_hits(found, lists, index, items, phrases), fingerprint=identity,
    )  # fmt: skip
    write_ledger(folder, ledger, {"seconds": watch.seconds, "workers": worker_count(config.workers, None)})
    return Report(
        ledger=ledger, folder=folder, reasons=tuple(reasons), notes=notes_on(ledger.counts), seconds=watch.seconds
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
