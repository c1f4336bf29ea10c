"""The packing stage: documents become rows of exactly `seq_length` tokens.

In: `documents/<dataset>/` and `tokenizer/`. Out: `packed/<dataset>/`, or `chat/<dataset>/` for the chat form: a
DatasetDict that `datasets.load_from_disk` opens.
Invariants: documents = packed + left out + without a question where the form needs one, characters likewise; only
documents longer than a row are cut; a shard depends on its documents shards and the tokenizer alone, so workers,
interruption and engine change nothing.
Cost: a worker holds one group of documents shards: 0.36 GB on news2016zh.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus.pipeline import workers as pool
from corpus.pipeline.errors import BooksError, WorkspaceError
from corpus.pipeline.manifest import DATASETS
from corpus.pipeline.pack.shard import Layout, Packed, Unit, divide, has_questions, layout_of, pack_unit
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import check_sample, part_number
from corpus.pipeline.storage.row_shards import describe_rows, describe_state, rows_metadata
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.tokenizer.files import load as load_tokenizer
from corpus.pipeline.tokenizer.files import tokenizer_digest
from corpus.pipeline.workspace.files import write_files
from corpus.pipeline.workspace.layout import RANKING, ROWS, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Report, Stopwatch, fingerprint, read_ledger
from corpus.pipeline.workspace.share import Share
from corpus.pipeline.workspace.stage import StageRun

STAGE = "pack"
VERSION = 3
SEQ_LENGTH = 1024
FORMS = tuple(ROWS)
STRATEGIES = ("best-fit", "concat")
LONGEST_ROW = 1 << 20
UNIT_CHARACTERS = 12 << 20
BESIDE = {LEDGER, "timings.json", "README.md", "croissant.json"}
"""Files beside the rows that are no outputs: the ledger, and files made from it."""
_FULL = 0.999
_HINT = "Question and answer are in baike2018qa, webtext2019zh and translation2019zh; `corpus pack` takes any document."


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """How one dataset's documents become rows."""

    dataset: str
    """Name of the dataset."""
    form: str = "text"
    """`text`: documents as they are; `chat`: those with a question, as a turn of the user and one of the assistant."""
    seq_length: int = SEQ_LENGTH
    """Tokens of a row."""
    strategy: str = "best-fit"
    """`best-fit`: only documents longer than a row are cut; `concat`: one after another, cut where a row ends."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""
    unit_characters: int = UNIT_CHARACTERS
    """Characters of documents in one shard of rows."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.form not in FORMS:
            raise ValueError(f"--form must be one of {', '.join(FORMS)}, is {self.form}")
        if not 2 <= self.seq_length <= LONGEST_ROW:
            raise ValueError(f"--seq-length must be at least 2 and at most {LONGEST_ROW:,}, is {self.seq_length:,}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, is {self.strategy}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


def run(config: PackConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Pack a dataset; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no tokenizer, or no question for the chat form.
        DamageError: a documents shard, a list or the tokenizer is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    ready = prepare(config, workspace, progress)
    stage, chosen, folder, name = ready.stage, ready.chosen, ready.stage.folder, config.dataset
    if report := stage.skipped():
        return report
    units = ready.units()
    kept = _keep_current(stage, units)
    with pool.kept():
        missing = ready.with_left_out(unit for unit in units if unit.file not in kept)
        workers = pool.worker_count(config.workers, len(missing))
        work, check = ready.work(workers, len(missing))
        made = pool.run_pieces(work, missing, workers=workers)
        books, engines = _pack_all(stage, units, kept, made)
    beside = _describe(folder, units, config.seq_length, ready.layout.vocab_size, name, stage.fingerprint)
    return stage.finish(
        outputs=sorted([*beside, *(folder / unit.file for unit in units)]),
        counts={
            "splits": {split: dict(books[split]) for split in books},
            "encoder_check": check,
            "left_out": dict(sorted(chosen.reasons.items())),
        },
        check_books=partial(_check_books, workspace, name, books, chosen),
        timings={"engine": ", ".join(engines), "workers": pool.worker_count(config.workers, None)},
        notes=_notes(config, books, len(chosen.removed)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A run of the stage, or of a share of it, with what it reads."""

    config: PackConfig
    workspace: Workspace
    stage: StageRun
    chosen: selection.Selection
    model: Tokenizer
    layout: Layout
    tokenizer: FileDigest

    def units(self) -> list[Unit]:
        """The units in order, with fingerprints of their work where the dataset may grow.

        Raises:
            WorkspaceError: the dataset holds rankings, or no question for the chat form.

        """
        name, documents = self.config.dataset, self.workspace.documents(self.config.dataset)
        if self.workspace.manifest(name).has_rankings:
            raise WorkspaceError(
                f"{name} holds rankings, whose worse answers are not to be learnt",
                hint=f"Run `corpus pack --form ranking --dataset {name}`.",
            )
        if self.config.form == "chat" and not has_questions(documents):
            raise WorkspaceError(f"{name} has no questions that the chat form could use", hint=_HINT)
        units = divide(documents, self.config.unit_characters)
        if name in DATASETS:
            return units
        settings = _settings(self.config, self.layout, selection.Selection())
        return _identified(self.workspace, units, settings, self.chosen, self.tokenizer)

    def with_left_out(self, units: Iterable[Unit]) -> list[tuple[Unit, selection.Selection]]:
        """Units as workers take them: with what is left out of each."""
        return [(unit, self.chosen.of(unit.parts)) for unit in units]

    def work(
        self, workers: int, pieces: int
    ) -> tuple[Callable[[tuple[Unit, selection.Selection]], Packed], dict[str, Any]]:
        """What packs a unit, and the reference's ids of the sample that the encoder was checked on.

        Starts the workers meanwhile, within `pool.kept()`.
        """
        folder = self.workspace.tokenizer
        sample = partial(check_sample, self.workspace.documents(self.config.dataset))
        proof, check = encoders.start_and_prove(folder, self.model, sample, workers=workers, pieces=pieces)
        work = partial(
            pack_unit, folder=self.stage.folder, tokenizer_folder=folder, proof=proof, layout=self.layout,
            identity=self.stage.fingerprint,
        )  # fmt: skip
        return work, check


def prepare(config: PackConfig, workspace: Workspace, progress: Progress, share: Share | None = None) -> Ready:
    """Read what decides the rows, and compare the stage with it."""
    watch, name = Stopwatch(), config.dataset
    selection.documents_of(workspace, name, progress, read=False)  # compares the documents with their ledger
    chosen = selection.load(workspace, name, removals=True)
    tokenizer = tokenizer_digest(workspace)
    inputs = [workspace.file_digest(workspace.documents(name) / LEDGER), *chosen.inputs, tokenizer]
    model = load_tokenizer(workspace.tokenizer)
    layout = layout_of(model, form=config.form, strategy=config.strategy, seq_length=config.seq_length)
    stage = StageRun(
        workspace, workspace.packed(name, config.form), stage=STAGE, version=VERSION, dataset=name,
        config=_settings(config, layout, chosen), inputs=inputs, watch=watch, progress=progress, share=share,
    )  # fmt: skip
    return Ready(
        config=config, workspace=workspace, stage=stage, chosen=chosen, model=model, layout=layout, tokenizer=tokenizer
    )


def _settings(config: PackConfig, layout: Layout, chosen: selection.Selection) -> dict[str, Any]:
    """The ledger's `config`; form and removals only where they are not the default, so that older rows stay current."""
    settings = {
        "seq_length": config.seq_length,
        "strategy": config.strategy,
        "vocab_size": layout.vocab_size,
        "unit_characters": config.unit_characters,
    }
    if config.form != "text":
        settings["form"] = config.form
    removed = _removed(chosen)
    return settings | {removals.REASON: removed} if removed else settings


def _identified(
    workspace: Workspace, units: Sequence[Unit], settings: Mapping[str, Any], chosen: selection.Selection,
    tokenizer: FileDigest,
) -> list[Unit]:  # fmt: skip
    """The units with fingerprints of their own documents, what is left out of these, the tokenizer and the layout."""
    left_out = chosen.digests([map(part_number, unit.parts) for unit in units])
    found = list[Unit]()
    for unit, digest in zip(units, left_out, strict=True):
        own = {**settings, "split": unit.split, "left_out": digest}
        inputs = [*map(workspace.file_digest, unit.parts), tokenizer]
        found.append(replace(unit, identity=fingerprint(STAGE, VERSION, own, inputs)))
    return found


def _removed(chosen: selection.Selection) -> str | None:
    """Digest of the ids that the removal list removes from a dataset; None when it removes no document."""
    return hashlib.sha256("\n".join(chosen.removed).encode()).hexdigest() if chosen.removed else None


def behind(workspace: Workspace) -> list[str]:
    """Commands that rerun the rows, of all forms and datasets, that do not follow the current removal list.

    Raises:
        DamageError: a documents shard or a list cannot be read.

    """
    commands: list[str] = []
    for form, area in {**ROWS, "ranking": RANKING}.items():
        for name in workspace.finished(area):
            ledger = read_ledger(workspace.root / area / name)
            try:
                chosen = selection.load(workspace, name, removals=True)
            except WorkspaceError:  # stale for another reason, which `corpus status` shows
                continue
            if ledger is not None and ledger.config.get(removals.REASON) != _removed(chosen):
                commands.append(f"corpus pack{'' if form == 'text' else f' --form {form}'} --dataset {name}")
    return commands


def delete_beside(folder: Path) -> None:
    """Delete what describes the rows, before the first of them changes."""
    for name in sorted(BESIDE):
        (folder / name).unlink(missing_ok=True)


def _keep_current(stage: StageRun, units: Sequence[Unit]) -> dict[str, dict[str, int]]:
    """Counts of the finished shards of this very work; other shards, and what describes them, are deleted."""
    stage.begin()
    delete_beside(stage.folder)
    works = {unit.file: unit.identity or stage.fingerprint for unit in units}
    kept = stage.keep_current(stage.shards("*/data-*.arrow"), rows_metadata, works)
    return {name: dict(counts) for name, counts in kept.items()}


def _pack_all(
    stage: StageRun,
    units: Sequence[Unit],
    kept: Mapping[str, dict[str, int]],
    made: Generator[Packed, None, None],
) -> tuple[dict[str, Counter[str]], list[str]]:
    """The counts of every split, and the engines that encoded the missing shards."""
    books: dict[str, Counter[str]] = {unit.split: Counter() for unit in units}
    engines: set[str] = set()
    total = sum(unit.characters for unit in units)
    try:
        with stage.progress.bar(f"{stage.folder.name}: rows", total, "characters"):
            for unit in units:
                if unit.file in kept:
                    counts = kept[unit.file]
                else:
                    packed = next(made)
                    counts = dict(stage.take(packed.receipt).counts)
                    if packed.engine not in engines and packed.warning:
                        stage.progress.say(packed.warning)
                    engines.add(packed.engine)
                books[unit.split].update(counts)
                stage.progress.advance(unit.characters)
    finally:
        made.close()  # ends workers that still pack a shard
        stage.remove_leftovers()
    return books, sorted(engines)


def _check_books(
    workspace: Workspace, name: str, books: Mapping[str, Counter[str]], chosen: selection.Selection
) -> None:
    """Raise BooksError unless documents, and their characters, are all packed, left out or without a question."""
    documents = read_ledger(workspace.documents(name))
    expected = documents.counts if documents else {"splits": {}, "characters": {}}
    for split, count in expected["splits"].items():
        found = books.get(split, Counter())
        packed, characters = found["documents"], found["characters"]
        out, cut = chosen.documents[split], chosen.characters[split]
        rest, unused = found["without_prompt"], found["characters_without_prompt"]
        if packed + out + rest != count or characters + cut + unused != expected["characters"][split]:
            raise BooksError(
                f"{name}, {split}: {count:,} documents are not {packed:,} packed, {out:,} left out "
                f"and {rest:,} without a question"
            )


def _describe(
    folder: Path, units: Sequence[Unit], seq_length: int, vocab_size: int, name: str, identity: str
) -> list[Path]:
    """Write what `datasets` reads beside the shards; returns the files."""
    splits = list(dict.fromkeys(unit.split for unit in units))
    files = {"dataset_dict.json": json.dumps({"splits": splits}).encode()}
    for split in splits:
        shards = [Path(unit.file).name for unit in units if unit.split == split]
        files[f"{split}/dataset_info.json"] = describe_rows(seq_length, vocab_size, name=f"{name}, {split}")
        files[f"{split}/state.json"] = describe_state(shards, split=split, fingerprint=identity)
    return write_files(folder, files)


def _notes(config: PackConfig, books: Mapping[str, Counter[str]], removed: int) -> tuple[str, ...]:
    """Documents on the removal list, splits with fewer than 99.9 % of the slots used, answers cut from the loss."""
    name, notes = config.dataset, list[str]()
    if removed:
        notes.append(f"{name}: {removals.LIST} keeps out {removed:,} documents")
    short = [
        f"{split} ({count['rows']:,} rows)"
        for split, count in books.items()
        if count["tokens"] < count["rows"] * config.seq_length * _FULL
    ]
    if short:
        why = "there are too few short documents to fill every row to its end"
        notes.append(f"{name}: less than 99.9 % of the slots are used in {', '.join(short)}: {why}")
    cut = sum(count["cut_documents"] for count in books.values())
    if config.form == "chat" and cut:
        why = "pieces after the one in which the answer begins carry no loss in training"
        notes.append(f"{name}: {cut:,} documents were cut: {why}")
    return tuple(notes)
