"""The decontaminate stage: keeps evaluation items out of the training data.

In: `documents/<dataset>/` of every dataset, the lists of dedup where there are any, and evaluation files. Out:
`decontaminate/lists/`, for each documents shard the documents and spans to leave out; `decontaminate/hits.parquet`,
why; `decontaminate/evals/`, copies of the evaluation files, for later runs. Until it is finished `matches/` holds what
the pieces found.
Invariants: every document is searched, or was left out by dedup; no document is rewritten and no prompt cut; the lists
depend on documents, evaluation files and settings alone, so workers, shares and interruption change nothing.
Cost: a worker holds the index and one row group of documents; the command holds one row for each hit.
"""

from __future__ import annotations

import contextlib
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from corpus.pipeline import pieces
from corpus.pipeline.decontaminate import eval_files, matches
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.lists import HITS_SCHEMA, count_hits, hit_rows, notes_on, removal_list, write_lists
from corpus.pipeline.decontaminate.matching import PhraseFilter
from corpus.pipeline.decontaminate.ngram_index import Index
from corpus.pipeline.decontaminate.search import (
    SearchShard,
    check_books,
    collect,
    list_shards,
    open_index,
    search_shard,
)
from corpus.pipeline.errors import SourceError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.read.items import is_among
from corpus.pipeline.storage.selection import Selection, datasets_of, documents_of, load
from corpus.pipeline.workers import worker_count
from corpus.pipeline.workspace.files import disk_errors, sha256_file, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, Report, Stopwatch, read_ledger
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun

STAGE = "decontaminate"
VERSION = 2
_EVALS = "evals"


def run(config: DecontaminateConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Find the documents that hold evaluation items; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no evaluation files, or the lists of dedup are stale.
        SourceError: an evaluation file cannot be read, or holds no text to search for.
        DamageError: a documents shard or a list of dedup is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    ready = prepare(config, workspace, progress)
    stage, ledgers = ready.stage, ready.ledgers
    if report := stage.skipped():
        return report
    index, sets = ready.index()
    items = {found.file: found.items for found in sets}
    shards, kept = ready.shards(), stage.finished_pieces()
    if kept:
        progress.say(f"decontaminate: {len(kept)} of {len(shards)} shards have been searched")
    made = pieces.make(stage, shards, kept, ready.search(), workers=config.workers)
    with contextlib.closing(made):
        phrases = PhraseFilter(index, config.min_share)
        found, common = collect(shards.values(), made, stage.folder, ledgers, phrases, progress)
    lists = {name: removal_list(found[name], index, config, ledgers[name]) for name in ledgers}
    hits = pa.Table.from_pylist(list(hit_rows(found, index)), HITS_SCHEMA)
    written = write_lists(workspace, lists, hits)
    counts = count_hits(found, lists, index, items, common)
    report = stage.finish(
        outputs=written,
        counts=counts,
        check_books=partial(check_books, ledgers, found),
        timings={"workers": worker_count(config.workers, None)},
        notes=(*notes_on(counts), *_notes(config, sets)),
    )
    shutil.rmtree(stage.folder / matches.FOLDER, ignore_errors=True)
    return report


def run_share(
    config: DecontaminateConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT
) -> ShareReport:
    """Search a share of the documents shards; the caller holds `workspace.sharing()`. Raises as `run`."""
    ready = prepare(config, workspace, progress, share)
    if ready.stage.skipped():
        return ready.stage.already_finished()
    ready.index()  # so that a file that cannot be read is named before the first shard
    return pieces.make_share(ready.stage, ready.shards(), pieces.run_all(ready.search(), config.workers))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A run of the stage, or of a share of it, with what it reads."""

    config: DecontaminateConfig
    workspace: Workspace
    stage: StageRun
    ledgers: Mapping[str, Ledger]
    """Of the documents of each dataset."""
    duplicates: Mapping[str, Selection]

    def index(self) -> tuple[Index, Sequence[eval_files.Evaluation]]:
        """The index of the evaluation files, and these."""
        return open_index(self.stage.folder / _EVALS, self.config.fields, self.stage.fingerprint)

    def shards(self) -> dict[str, SearchShard]:
        """The pieces, by their names."""
        return list_shards(self.workspace, self.duplicates)

    def search(self) -> Callable[[SearchShard], Receipt]:
        """What searches a shard."""
        folder = self.stage.folder
        return partial(
            search_shard, folder=folder, evaluations=folder / _EVALS, config=self.config,
            identity=self.stage.fingerprint,
        )  # fmt: skip


def prepare(config: DecontaminateConfig, workspace: Workspace, progress: Progress, share: Share | None = None) -> Ready:
    """Take the evaluation files, read what decides the lists, and compare the stage with it."""
    watch, folder = Stopwatch(), workspace.decontaminate
    names = datasets_of(workspace, config.datasets)
    ledgers = {name: documents_of(workspace, name, progress, read=False) for name in names}
    duplicates = {name: load(workspace, name, areas=("dedup",)) for name in ledgers}
    evals = folder / _EVALS
    _forget_eval_files(config, evals, progress)
    _add_eval_files(config, evals, progress)
    if not eval_files.list_files(evals) and read_ledger(folder) is None:
        raise WorkspaceError("there are no evaluation files", hint="Give some: `corpus decontaminate --against FILE`.")
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER) for name in ledgers]
    inputs += [entry for found in duplicates.values() for entry in found.inputs]
    inputs += map(workspace.file_digest, eval_files.list_files(evals))
    settings = {
        "datasets": list(ledgers),
        "fields": sorted({*config.fields}),
        "cut": config.cut,
        "min_share": config.min_share,
        "opencc": version("OpenCC"),
        "unicode": unicodedata.unidata_version,
    }
    stage = StageRun(
        workspace, folder, stage=STAGE, version=VERSION, config=settings,
        inputs=inputs, watch=watch, progress=progress, share=share,
    )  # fmt: skip
    return Ready(config=config, workspace=workspace, stage=stage, ledgers=ledgers, duplicates=duplicates)


def _add_eval_files(config: DecontaminateConfig, folder: Path, progress: Progress) -> None:
    """Copy the given evaluation files into the workspace, each once it has been parsed."""
    digests = {path.name: sha256_file(path) for path in eval_files.list_files(folder)}
    for path in config.against:
        try:
            digest = sha256_file(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        if digests.get(path.name, digest) != digest:
            raise SourceError(
                f"{path} differs from the evaluation file of that name in the workspace",
                hint=f"Rename it; or add `--forget {path.name}`, which takes the older one out first.",
            )
        if path.name not in digests:
            eval_files.read(path, config.fields)
            with disk_errors(folder):
                write_atomic(folder / path.name, path.read_bytes())
            digests[path.name] = digest
            progress.say(f"{path.name} is added to the evaluation files of the workspace: {len(digests)} in all")


def _forget_eval_files(config: DecontaminateConfig, folder: Path, progress: Progress) -> None:
    """Delete evaluation files from the workspace."""
    known = {path.name: path for path in eval_files.list_files(folder)}
    for name in dict.fromkeys(config.forget):
        if name not in known:
            there = f"There are: {', '.join(known)}." if known else "The workspace has no evaluation files."
            raise WorkspaceError(f"--forget {name}: no evaluation file has this name", hint=there)
    for name in dict.fromkeys(config.forget):
        with disk_errors(folder):
            known.pop(name).unlink()
        progress.say(f"{name} is forgotten: {len(known)} evaluation files are left")


def _notes(config: DecontaminateConfig, sets: Iterable[eval_files.Evaluation]) -> Iterator[str]:
    """The evaluation files of which all fields were searched for, since they lack those asked for."""
    for found in sets:
        if config.fields and not any(is_among(field, config.fields) for field in found.fields):
            yield f"{found.file} has no field {' or '.join(config.fields)}: all of its fields are searched for"
