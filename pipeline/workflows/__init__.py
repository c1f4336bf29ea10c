"""Several stages as one call: what `corpus download`, `clean`, `ingest`, `pack` and `demo` do, for Python programs.

In: a workspace and keyword arguments. Out: files in the workspace, and a frozen result with the report of every stage.
Invariants: arguments are checked before any work starts, and a wrong one is a UsageError; each call holds the
workspace's lock while it writes; a stage's failure is a CorpusError, after which the same call resumes; messages and
amounts go to `progress`, never to the terminal.
Cost: that of the stages. A call loads only the stages that it runs, and torch only in `demo`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import pyarrow as pa

from corpus.pipeline.errors import SourceError, WorkspaceError
from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.pack import dataset_card
from corpus.pipeline.pack import stage as pack_stage
from corpus.pipeline.pack.shard import has_questions
from corpus.pipeline.pack.stage import PackConfig
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.tokenizer import stage as tokenizer_stage
from corpus.pipeline.tokenizer.stage import VOCAB_SIZE, TokenizerConfig
from corpus.pipeline.workers import kept
from corpus.pipeline.workflows import sources
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, read_ledger

if TYPE_CHECKING:
    from corpus.generate.config import Sample
    from corpus.pipeline.documents.stage import IngestConfig
    from corpus.pipeline.download.stage import DownloadConfig

__all__ = [
    "CleaningSettings", "DemoResult", "IngestResult", "LeftOut", "PackResult", "RowSettings", "UsageError", "clean",
    "demo", "download", "ingest", "names_to_pack", "pack", "report_outdated_rows", "used_documents",
]  # fmt: skip

_DEMO_STEPS = 400
_DEMO_PROMPTS = ("我肚子痛了，要怎么办？", "潮汐")
_DEMO_VOCABULARY = 3_000


class UsageError(ValueError):
    """An argument has a wrong value; nothing was done. The message names the flag of the command line."""


class CleaningSettings(TypedDict, total=False):
    """How records become documents: the fields of `IngestConfig` with the same names."""

    min_length: int | None
    off: tuple[str, ...]
    mask: bool
    workers: int


class RowSettings(TypedDict, total=False):
    """How documents become rows: the fields of `PackConfig` with the same names."""

    form: str
    seq_length: int
    strategy: str
    workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Documents of one dataset that the lists of dedup, decontaminate and the learned score leave out."""

    documents: int
    characters: int
    reasons: Mapping[str, int]
    """Documents and spans by reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestResult:
    """What `ingest` did."""

    documents: tuple[Report, ...]
    """Of each dataset, from records to documents."""
    lists: tuple[Report, ...]
    """Of dedup and decontaminate, if they ran."""
    left_out: tuple[LeftOut, ...]
    """What the lists leave out, for each report in `documents`; empty when no list was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackResult:
    """What `pack` did."""

    tokenizer: Report | None
    """Of the tokenizer stage; None if the workspace had a tokenizer."""
    rows: tuple[Report, ...]
    """Of each dataset, from documents to rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What `demo` did."""

    ingest: IngestResult
    pack: PackResult
    train: Report
    samples: tuple[Sample, ...]
    """A continuation of each of two prompts."""


def download(
    workspace: Workspace, *, datasets: Sequence[str] = (), manifests: Sequence[Path] = (), source: str | None = None,
    by_reference: bool = False, progress: Progress = SILENT,
) -> tuple[Report, ...]:  # fmt: skip
    """Fetch the files of datasets into `raw/`; arguments and errors as in `ingest`.

    With `by_reference` the files stay at `source`, a URL, and are read there.
    """
    from corpus.pipeline.download import stage as download_stage

    with _checking():
        names, configs = sources.named(workspace, datasets, manifests, source, by_reference=by_reference)
    with workspace.writing("download"), sources.keep_manifests(workspace, manifests, names, progress):
        found = configs if names else sources.found_at_source(workspace, configs, progress)
        return tuple(download_stage.run(config, workspace, progress=progress) for config in found)


def clean(
    workspace: Workspace, *, datasets: Sequence[str] = (), progress: Progress = SILENT,
    **settings: Unpack[CleaningSettings],
) -> tuple[Report, ...]:  # fmt: skip
    """Turn the downloaded records of datasets, all of them when none is named, into documents.

    Raises:
        UsageError: a setting is out of range, or a rule is unknown.
        WorkspaceError: nothing is downloaded.

    """
    from corpus.pipeline.documents import stage as documents_stage

    with _checking():
        config = documents_stage.IngestConfig(dataset=BUILT_IN, **settings)
    with workspace.writing("clean"), kept():
        names = list(dict.fromkeys(datasets)) or workspace.finished("raw")
        if not names:
            raise WorkspaceError(
                f"{workspace.shown} holds nothing downloaded", hint="Run `corpus download` or `corpus ingest` first."
            )
        return tuple(documents_stage.run(replace(config, dataset=name), workspace, progress=progress) for name in names)


def ingest(
    workspace: Workspace, *, datasets: Sequence[str] = (), manifests: Sequence[Path] = (), source: str | None = None,
    dedup: bool = True, against: Sequence[Path] = (), progress: Progress = SILENT,
    **settings: Unpack[CleaningSettings],
) -> IngestResult:  # fmt: skip
    """Download datasets, turn their records into documents, and list the documents to leave out.

    `manifests` are files that describe datasets of a user's own; the workspace keeps them, and later calls know these
    datasets by name. Without `datasets` and `manifests` it takes the five corpora, or those of the five that `source`
    holds: a folder, an archive, unpacked files or a URL; None for the mirrors. `dedup` lists duplicates among all
    documents of the workspace. `against` are evaluation files; those given in earlier calls count, too.

    Raises:
        UsageError: a name or rule is unknown, or a value out of range.
        ManifestError: a manifest is malformed, or has the name of a built-in dataset.
        SourceError: an evaluation file cannot be read, or `source` holds no dataset.

    """
    from corpus.pipeline.documents.stage import IngestConfig

    with _checking():
        config = IngestConfig(dataset=BUILT_IN, **settings)
        names, downloads = sources.named(workspace, datasets, manifests, source)
    for path in against:
        try:
            path.open("rb").close()
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    with workspace.writing("ingest"), kept(), sources.keep_manifests(workspace, manifests, names, progress):
        found = downloads if names else sources.found_at_source(workspace, downloads, progress)
        return _ingest(workspace, found, config, dedup=dedup, against=against, progress=progress)


def pack(
    workspace: Workspace, *, datasets: Sequence[str] = (), exclude: Iterable[Path] = (),
    vocab_size: int = VOCAB_SIZE, progress: Progress = SILENT, **settings: Unpack[RowSettings],
) -> PackResult:  # fmt: skip
    """Tokenize documents into rows, with a data card beside them; trains the tokenizer first where it is missing.

    Without `datasets` it takes all that have documents. `exclude` are files of document ids to add to the workspace's
    removal list. `vocab_size` is the number of entries of a tokenizer that is trained now.

    Raises:
        UsageError: a value is out of range.
        WorkspaceError: there are no documents, or no questions for the chat form.

    """
    with _checking():
        config, tokenizer = PackConfig(dataset=BUILT_IN, **settings), TokenizerConfig(vocab_size=vocab_size)
    with workspace.writing("pack"):
        excluded = removals.add(workspace, exclude)
        result = _pack(workspace, datasets, config, tokenizer, progress)
        report_outdated_rows(workspace, progress)
        if excluded:
            _report_unused_exclusions(workspace, dict.fromkeys(excluded), result.rows, progress)
    return result


def demo(
    workspace: Workspace, *, max_steps: int = _DEMO_STEPS, progress: Progress = SILENT,
    on_result: Callable[[IngestResult | PackResult | Report], None] = lambda _: None,
) -> DemoResult:  # fmt: skip
    """Ingest and pack the built-in dataset, train a tiny GPT on it, and sample it.

    `on_result` is called with each stage's result as soon as the stage is done.

    Raises:
        UsageError: `max_steps` is below 1.

    """
    from corpus.pipeline.documents.stage import IngestConfig
    from corpus.train.config import TrainConfig  # only a demo trains

    with _checking():
        config = TrainConfig(
            datasets=(BUILT_IN,), model="tiny", max_steps=max_steps, batch_size=8, learning_rate=1e-3, dropout=0.0,
            log_steps=20, eval_steps=max(1, max_steps // 4), sample_prompts=_DEMO_PROMPTS,
        )  # fmt: skip
    cleaning, rows = IngestConfig(dataset=BUILT_IN), PackConfig(dataset=BUILT_IN, seq_length=256)
    tokenizer = TokenizerConfig(vocab_size=_DEMO_VOCABULARY)
    with workspace.writing("demo"):
        _, downloads = sources.named(workspace, (BUILT_IN,), (), None)
        ingested = _ingest(workspace, downloads, cleaning, dedup=True, against=(), progress=progress)
        on_result(ingested)
        packed = _pack(workspace, (BUILT_IN,), rows, tokenizer, progress)
        on_result(packed)
        progress.say("loading torch and transformers ...")
        from corpus.generate import stage as sampling  # torch
        from corpus.train.run import stage as train_stage  # torch

        trained = train_stage.run(config, workspace, progress=progress)
        on_result(trained)
    asked = sampling.SampleConfig(prompts=_DEMO_PROMPTS, max_new_tokens=120, temperature=0, seed=1)
    samples = sampling.run(asked, trained.folder, progress=progress)
    return DemoResult(ingest=ingested, pack=packed, train=trained, samples=tuple(samples))


def used_documents(
    workspace: Workspace, dataset: str, columns: Sequence[str] = ("id", "split", "text")
) -> Iterator[pa.RecordBatch]:
    """The documents that rows are made of: without duplicates, evaluation items and removals.

    Raises:
        WorkspaceError: the dataset has no documents, or a list was made from other ones.
        DamageError: a shard or a list is not what its ledger says.

    """
    selection.documents_of(workspace, dataset)
    chosen = selection.load(workspace, dataset, removals=True)
    workspace.save_digests()  # so that the next call need not hash the shards
    for path in parts(workspace.documents(dataset)):
        for _, _, batch in selection.read_selected(path, columns, chosen):
            yield batch


def report_outdated_rows(workspace: Workspace, progress: Progress) -> None:
    """Say which rows still hold documents that the removal list names, or lack some that it no longer names."""
    if (workspace.root / removals.LIST).exists():
        for command in pack_stage.behind(workspace):
            progress.say(f"rows do not follow {removals.LIST} yet: run `{command}`")


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """Turn the ValueErrors of configurations into UsageErrors. Stages run outside: theirs have other causes."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def _ingest(
    workspace: Workspace, downloads: Iterable[DownloadConfig], config: IngestConfig, *, dedup: bool,
    against: Sequence[Path], progress: Progress,
) -> IngestResult:  # fmt: skip
    from corpus.pipeline import decontaminate, download
    from corpus.pipeline import dedup as dedup_stage
    from corpus.pipeline.documents import stage as documents_stage

    documents, lists = list[Report](), list[Report]()
    config = replace(config, signatures=dedup)
    for each in downloads:
        download.run(each, workspace, progress=progress)
        documents.append(documents_stage.run(replace(config, dataset=each.dataset), workspace, progress=progress))
    if dedup:
        duplicates = dedup_stage.DedupConfig(workers=config.workers)
        lists.append(dedup_stage.run(duplicates, workspace, progress=progress))
    if against or read_ledger(workspace.decontaminate) is not None:
        evaluation = decontaminate.DecontaminateConfig(against=tuple(against), workers=config.workers)
        lists.append(decontaminate.run(evaluation, workspace, progress=progress))
    chosen = [_selection(workspace, report.ledger.dataset or "", progress) for report in documents] if lists else []
    left_out = [
        LeftOut(documents=each.documents.total(), characters=each.characters.total(), reasons=dict(each.reasons))
        for each in chosen
    ]
    return IngestResult(documents=tuple(documents), lists=tuple(lists), left_out=tuple(left_out))


def _selection(workspace: Workspace, name: str, progress: Progress) -> selection.Selection:
    """What is left out of a dataset; without the learned score where that is of other documents, which is said."""
    try:
        selection.index_of(workspace, "quality", name)
    except WorkspaceError as error:
        progress.say(f"{error.message}, so no rows can be packed yet. {error.hint}")
        return selection.load(workspace, name, areas=("dedup", "decontaminate"))
    return selection.load(workspace, name)


def _pack(
    workspace: Workspace, datasets: Sequence[str], config: PackConfig, tokenizer: TokenizerConfig, progress: Progress
) -> PackResult:
    names = names_to_pack(workspace, datasets, config.form, progress)
    trained, rows = None, list[Report]()
    if read_ledger(workspace.tokenizer) is None:
        progress.say("there is no tokenizer yet: training one first, as `corpus tokenizer` does")
        trained = tokenizer_stage.run(tokenizer, workspace, progress=progress)
    with kept():
        for name in names:
            rows.append(pack_stage.run(replace(config, dataset=name), workspace, progress=progress))
            dataset_card.write(workspace, name, config.form)
    return PackResult(tokenizer=trained, rows=tuple(rows))


def names_to_pack(workspace: Workspace, datasets: Sequence[str], form: str, progress: Progress) -> list[str]:
    """The datasets that are named; when none is, those whose documents can become rows of this form.

    Raises:
        WorkspaceError: there are no documents, or no questions for the chat form.

    """
    names = list(dict.fromkeys(datasets)) or workspace.finished("documents")
    if not names:
        raise WorkspaceError(f"{workspace.shown} holds no documents", hint="Run `corpus ingest` first.")
    if datasets:
        return names
    names = [name for name in names if not workspace.manifest(name).has_rankings] or names
    return _with_questions(workspace, names, progress) if form == "chat" else names


def _with_questions(workspace: Workspace, names: Sequence[str], progress: Progress) -> list[str]:
    """The datasets that the chat form can use; names the others in a message."""
    for name in names:
        selection.documents_of(workspace, name, progress)
    found = [name for name in names if has_questions(workspace.documents(name))]
    others = ", ".join(name for name in names if name not in found)
    if not found:
        raise WorkspaceError(
            f"{others}: no questions that the chat form could use",
            hint="`corpus pack` without --form takes any document.",
        )
    if others:
        progress.say(f"without questions, so not packed: {others}")
    return found


def _report_unused_exclusions(
    workspace: Workspace, excluded: Collection[str], rows: Iterable[Report], progress: Progress
) -> None:
    """Say which excluded ids name no packed document, and which name one that was left out before."""
    names = [report.ledger.dataset or "" for report in rows]
    chosen = {name: selection.load(workspace, name, removals=True) for name in names}
    unknown, unused = list[str](), list[str]()
    for each in excluded:
        named = {name: removals.of_dataset([each], name) & found.known for name, found in chosen.items()}
        if not any(named.values()):
            unknown.append(each)
        elif any(ids - {*chosen[name].removed} for name, ids in named.items()):
            unused.append(each)
    for found, what in (
        (unknown, f"are no documents of what was packed, and stay in {removals.LIST} for documents to come"),
        (unused, "were left out before; the document that each is like may stay"),
    ):
        if found:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            progress.say(f"{len(found):,} of {len(excluded):,} excluded ids {what}: {shown}")
