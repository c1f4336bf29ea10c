"""The packing stage: documents become rows of exactly `seq_length` tokens.

In: `documents/<dataset>/` and `tokenizer/`. Out: `packed/<dataset>/`, a DatasetDict that `datasets.load_from_disk`
opens.
Invariants: tokens encoded = tokens in segments, checked for every shard; only documents longer than a row are cut; a
shard depends on its
documents shards and the tokenizer alone, so workers, interruption and engine change nothing.
Cost: one group of documents shards at a time; 0.36 GB of memory a process on news2016zh.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline import encoder, packing, selection, tokenizer
from corpus.pipeline.errors import BooksError, DamageError, WorkspaceError
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.pool import run_pieces, sensible
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.shards import (
    describe_rows,
    describe_state,
    document_ref,
    part_metadata,
    parts,
    read_part,
    rows_metadata,
    rows_table,
    with_metadata,
    write_rows,
)
from corpus.pipeline.workspace import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    Workspace,
    atomic,
    changes,
    fingerprint,
    read_ledger,
    remove_leftovers,
    write_atomic,
    write_ledger,
)

STAGE = "pack"
VERSION = 3
SEQ_LENGTH = 1024
STRATEGIES = ("best-fit", "concat")
LONGEST_ROW = 1 << 20
UNIT_CHARACTERS = 12 << 20
_CHECK_DOCUMENTS = 256
_CHECK_CHARACTERS = 200_000
_FULL = 0.999


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """How one dataset's documents become rows."""

    dataset: str
    """Name of the dataset."""
    seq_length: int = SEQ_LENGTH
    """Tokens of a row."""
    strategy: str = "best-fit"
    """`best-fit`: only documents longer than a row are cut; `concat`: one after another, cut where a row ends."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""
    unit_characters: int = UNIT_CHARACTERS
    """Characters of documents that one shard of rows is made of."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not 2 <= self.seq_length <= LONGEST_ROW:
            raise ValueError(f"--seq-length must be at least 2 and at most {LONGEST_ROW:,}, is {self.seq_length:,}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, is {self.strategy}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker packs into one shard."""

    split: str
    number: int
    parts: tuple[Path, ...]
    characters: int

    @property
    def file(self) -> str:
        """Path of the shard in the stage's folder."""
        return f"{self.split}/data-{self.number:05d}.arrow"


@dataclass(frozen=True, slots=True)
class Form:
    """What rows need to know of the tokenizer."""

    vocab_size: int
    separator: int
    pad: int


def run(config: PackConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Pack a dataset; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no tokenizer.
        DamageError: a documents shard cannot be read.
        WorkerError, DiskError, BooksError: as their names say; a rerun goes on.

    """
    watch = Stopwatch()
    name, folder = config.dataset, workspace.packed(config.dataset)
    chosen = selection.load(workspace, name)
    inputs = _inputs(workspace, name, chosen)
    form = _form(workspace.tokenizer)
    settings = {
        "seq_length": config.seq_length,
        "strategy": config.strategy,
        "vocab_size": form.vocab_size,
        "unit_characters": config.unit_characters,
    }
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    remove_leftovers(folder)
    before = read_ledger(folder)
    reasons = changes(before, folder, VERSION, settings, inputs, workspace.digest)
    if before is not None and not reasons:
        return Report(ledger=before, folder=folder, skipped=True)
    for reason in reasons:
        progress.say(f"{name}: rows are packed again: {reason}")
    units = _units(workspace.documents(name), config.unit_characters)
    engine, check, warning = encoder.choose(
        partial(_encoder, folder=workspace.tokenizer, identity=identity), _check_sample(workspace.documents(name))
    )
    if warning:
        progress.say(warning)
    kept = _keep_current(workspace, folder, units, identity, before)
    (folder / LEDGER).unlink(missing_ok=True)
    if kept:
        progress.say(f"{name}: {len(kept)} finished shards are kept")
    work = partial(
        pack_unit, folder=folder, tokenizer_folder=workspace.tokenizer, engine=engine, config=config, identity=identity,
        form=form, chosen=chosen,
    )  # fmt: skip
    counts = _pack_all(config, workspace, units, kept, work, chosen, progress)
    _describe(folder, units, config.seq_length, form.vocab_size, name, identity)
    ledger = Ledger(
        stage=STAGE, dataset=name, version=VERSION, config=settings, inputs=inputs,
        outputs=[workspace.file_digest(path, folder) for path in _outputs(folder)],
        counts={
            "splits": {split: dict(counts[split]) for split in counts},
            "encoder_check": check,
            "left_out": dict(sorted(chosen.reasons.items())),
        },
        fingerprint=identity,
    )  # fmt: skip
    write_ledger(
        folder, ledger, {"seconds": watch.seconds, "engine": engine, "workers": sensible(config.workers, None)}
    )
    return Report(
        ledger=ledger,
        folder=folder,
        reasons=tuple(reasons),
        notes=_notes(name, counts, config.seq_length),
        seconds=watch.seconds,
    )


def pack_unit(
    unit: Unit, *, folder: Path, tokenizer_folder: Path, engine: str, config: PackConfig, identity: str, form: Form,
    chosen: selection.Selection,
) -> dict[str, int]:  # fmt: skip
    """Encode and pack one unit and write its shard; runs in a worker. Returns the books of the shard.

    Raises:
        BooksError: the tokens in the segments are not the tokens encoded.
        DamageError: a documents shard cannot be read.

    """
    encode = _encoder(engine, folder=tokenizer_folder, identity=identity).encode
    ids, lengths, references, characters = _encode(unit, encode, form, chosen)
    plan = (packing.best_fit if config.strategy == "best-fit" else packing.concat)(lengths, config.seq_length)
    rows = packing.fill(plan, ids, np.cumsum(lengths) - lengths, config.seq_length, form.pad)
    counts = {
        "documents": len(lengths),
        "characters": characters,
        "tokens": int(lengths.sum()),
        "rows": plan.rows,
        "padding": plan.rows * config.seq_length - int(plan.lengths.sum()),
        "cut_documents": int((np.bincount(plan.documents, minlength=len(lengths)) > 1).sum()),
    }
    if int(plan.lengths.sum()) != counts["tokens"]:
        raise BooksError(f"{unit.file}: {counts['tokens']:,} tokens encoded, {int(plan.lengths.sum()):,} in segments")
    table = rows_table(
        rows, plan.row_starts, references[plan.documents], plan.starts, plan.lengths, vocab_size=form.vocab_size
    )
    with atomic(folder / unit.file) as out:
        write_rows(out, with_metadata(table, identity, counts))
    return counts


def _encode(
    unit: Unit,
    encode: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]],
    form: Form,
    chosen: selection.Selection,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Ids of a unit's documents with the separator after each, their lengths, references, and characters in all."""
    narrow = np.uint16 if form.vocab_size <= 1 << 16 else np.uint32
    flats: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    references: list[np.ndarray] = []
    characters = 0
    for shard, lines, batch in _batches(unit, chosen):
        wanted = np.flatnonzero(np.asarray(batch["split"].to_numpy(zero_copy_only=False) == unit.split))
        if len(wanted) == 0:
            continue
        texts = batch["text"].take(wanted) if len(wanted) < batch.num_rows else batch["text"]
        strings = texts.to_pylist()
        characters += sum(map(len, strings))
        flat, counts = encode(strings)
        flats.append(np.insert(flat.astype(narrow), np.cumsum(counts), form.separator))
        sizes.append(counts + 1)
        references.append(document_ref(shard, lines[wanted]))
    if not flats:  # every document of the unit is left out
        return np.zeros(0, narrow), np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    return np.concatenate(flats), np.concatenate(sizes), np.concatenate(references), characters


def _batches(unit: Unit, chosen: selection.Selection) -> Iterator[tuple[int, np.ndarray, Any]]:
    for path in unit.parts:
        yield from selection.read_selected(path, ["text", "split"], chosen)


@functools.lru_cache(maxsize=2)
def _encoder(engine: str, *, folder: Path, identity: str) -> encoder.Encoder:  # noqa: ARG001  # part of the cache's key: a tokenizer trained anew gets an encoder of its own
    return encoder.make(engine, folder)


def _form(folder: Path) -> Form:
    model = tokenizer.load(folder)
    separator, pad = (model.token_to_id(token) for token in (tokenizer.SEPARATOR, tokenizer.PAD))
    if separator is None or pad is None:
        raise WorkspaceError(f"{folder} has no separator or padding", hint="Run `corpus tokenizer` again.")
    return Form(model.get_vocab_size(), separator, pad)


def _inputs(workspace: Workspace, name: str, chosen: selection.Selection) -> list[FileDigest]:
    selection.documents_of(workspace, name)
    return [workspace.file_digest(workspace.documents(name) / LEDGER), *chosen.inputs, _tokenizer_digest(workspace)]


def _tokenizer_digest(workspace: Workspace) -> FileDigest:
    """The tokenizer as an input, when it is what its own ledger says."""
    ledger = read_ledger(workspace.tokenizer)
    path = workspace.tokenizer / "tokenizer.json"
    if ledger is None:
        raise WorkspaceError(f"{workspace.tokenizer} holds no tokenizer", hint="Run `corpus tokenizer` first.")
    known = {output.path: output.sha256 for output in ledger.outputs}
    if not path.is_file() or workspace.digest(path) != known.get(path.name):
        raise DamageError(f"{path} is not what its ledger says", hint="Run `corpus tokenizer`: it is trained again.")
    return workspace.file_digest(path)


def _units(folder: Path, unit_characters: int) -> list[Unit]:
    """Groups of documents shards of about `unit_characters`, split by split; a small rest joins the group before it."""
    units: list[Unit] = []
    for split in SPLITS:
        groups: list[tuple[list[Path], int]] = []
        for path in parts(folder):
            metadata = part_metadata(path)
            characters = metadata[1]["characters"].get(split, 0) if metadata else 0
            if not characters:
                continue
            if groups and groups[-1][1] + characters <= unit_characters:
                groups[-1] = ([*groups[-1][0], path], groups[-1][1] + characters)
            else:
                groups.append(([path], characters))
        units += [Unit(split, number, tuple(paths), size) for number, (paths, size) in enumerate(groups)]
    return units


def _check_sample(folder: Path) -> list[str]:
    """Documents spread over the dataset, on which a faster engine must prove itself."""
    paths = parts(folder)
    chosen = paths if len(paths) <= 8 else [paths[index * len(paths) // 8] for index in range(8)]
    sample: list[str] = []
    for path in chosen:
        _, _, batch = next(iter(read_part(path, ["text"])), (0, 0, None))
        if batch is not None:
            step = max(1, batch.num_rows * len(chosen) // _CHECK_DOCUMENTS)
            texts = batch["text"].take(np.arange(0, batch.num_rows, step)).to_pylist()
            sizes = np.cumsum([len(text) for text in texts])
            sample += texts[: int(np.searchsorted(sizes, _CHECK_CHARACTERS // len(chosen))) + 1]
    return sample


def _keep_current(
    workspace: Workspace, folder: Path, units: Sequence[Unit], identity: str, before: Ledger | None
) -> dict[str, dict[str, int]]:
    """Finished shards of this very work, whole and with the bytes that the ledger says if there was one; others go."""
    kept: dict[str, dict[str, int]] = {}
    if not folder.is_dir():
        return kept
    wanted = {unit.file for unit in units}
    for path in sorted(folder.glob("*/data-*.arrow")):
        file = path.relative_to(folder).as_posix()
        metadata = rows_metadata(path)
        as_written = workspace.is_as_written(path, folder, before)
        if metadata is not None and metadata[0] == identity and file in wanted and as_written:
            kept[file] = dict(metadata[1])
        else:
            path.unlink()
    return kept


def _pack_all(
    config: PackConfig,
    workspace: Workspace,
    units: Sequence[Unit],
    kept: Mapping[str, dict[str, int]],
    work: Callable[[Unit], dict[str, int]],
    chosen: selection.Selection,
    progress: Progress,
) -> dict[str, Counter[str]]:
    books: dict[str, Counter[str]] = {unit.split: Counter() for unit in units}
    missing = [unit for unit in units if unit.file not in kept]
    progress.begin(f"{config.dataset}: rows", sum(unit.characters for unit in units), "characters")
    try:
        made = run_pieces(work, missing, workers=sensible(config.workers, len(missing)))
        for unit in units:
            books[unit.split].update(kept[unit.file] if unit.file in kept else next(made))
            progress.advance(unit.characters)
    finally:
        progress.end()
    _check_books(workspace, config.dataset, books, chosen)
    return books


def _check_books(
    workspace: Workspace, name: str, books: Mapping[str, Counter[str]], chosen: selection.Selection
) -> None:
    """Every document of the ledger of documents is in the rows with all its characters, or was left out."""
    documents = read_ledger(workspace.documents(name))
    expected = documents.counts if documents else {"splits": {}, "characters": {}}
    for split, count in expected["splits"].items():
        found = books.get(split, Counter())
        packed, characters = found["documents"], found["characters"]
        out, cut = chosen.documents[split], chosen.characters[split]
        if packed + out != count or characters + cut != expected["characters"][split]:
            raise BooksError(f"{name}, {split}: {count:,} documents are not {packed:,} packed and {out:,} left out")


def _describe(folder: Path, units: Sequence[Unit], seq_length: int, vocab_size: int, name: str, identity: str) -> None:
    splits = list(dict.fromkeys(unit.split for unit in units))
    for split in splits:
        files = [Path(unit.file).name for unit in units if unit.split == split]
        write_atomic(
            folder / split / "dataset_info.json", describe_rows(seq_length, vocab_size, name=f"{name}, {split}")
        )
        write_atomic(folder / split / "state.json", describe_state(files, split=split, fingerprint=identity))
    write_atomic(folder / "dataset_dict.json", json.dumps({"splits": splits}).encode())


def _outputs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in {LEDGER, "timings.json"})


def _notes(name: str, counts: Mapping[str, Counter[str]], seq_length: int) -> tuple[str, ...]:
    """The splits whose slots are not 99.9 % used, and why."""
    short = [
        f"{split} ({count['rows']:,} rows)"
        for split, count in counts.items()
        if count["tokens"] < count["rows"] * seq_length * _FULL
    ]
    if not short:
        return ()
    places = ", ".join(short)
    why = "there are too few short documents to fill every row to its end"
    return (f"{name}: less than 99.9 % of the slots are used in {places}: {why}",)
