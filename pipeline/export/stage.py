"""The export: the used documents of a workspace in a folder of files that another trainer reads.

In: `documents/`, the lists of what is left out, and for formats of tokens `tokenizer/`. Out: a folder outside the
workspace with the format's files, `lineage/`, `README.md`, and the tokenizer.
Invariants: documents = exported + left out + without a question where the form needs one, characters likewise; files of
tokens hold the tokens counted and nothing else; workers, interruption and engine change no byte; a folder that holds
other files is refused.
Cost: 0.28 GB a process, whatever the input; two cores encode 35 million characters a second.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from corpus.pipeline import workers as pool
from corpus.pipeline.errors import BooksError, DiskError, ExportError, WorkspaceError
from corpus.pipeline.export import card, formats
from corpus.pipeline.export.assembly import Assembly, write_mds_index
from corpus.pipeline.export.formats import FORMATS, Format, Piece
from corpus.pipeline.export.shard import Job, Tokens, Written, write_piece
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import check_sample, part_groups
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.tokenizer.files import load as load_tokenizer
from corpus.pipeline.tokenizer.files import tokenizer_digest
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers, write_atomic
from corpus.pipeline.workspace.layout import ROWS, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Report, Stopwatch, read_ledger
from corpus.pipeline.workspace.lock import HOLDER, LOCK, locked
from corpus.pipeline.workspace.stage import StageRun

STAGE = "export"
VERSION = 1
MARK = "export.json"
"""Written first: the folder is an export, in this format."""
_UNFINISHED = (LOCK, HOLDER, f".{HOLDER}.*.tmp", f".{MARK}.*.tmp")
"""What an export leaves that was killed before it wrote the mark."""
_HINTS = {
    "text": "`corpus status` shows what there is; dedup, decontaminate and exclude.txt may leave out everything.",
    "chat": "baike2018qa, webtext2019zh and translation2019zh have questions; --form text takes any document.",
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What is exported, and where to."""

    format: str
    """A name in `FORMATS`."""
    place: Path
    """The folder: new, empty, or an earlier export in this format."""
    _: KW_ONLY
    datasets: tuple[str, ...] = ()
    """All that have documents when empty."""
    splits: tuple[str, ...] = ()
    """All when empty."""
    form: str = "text"
    """`text`, or for the formats of text `chat`: documents with a question, as messages."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""
    unit_characters: int | None = None
    """Characters of documents in one piece; the format's when None."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.format not in FORMATS:
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, is {self.format}")
        if self.form not in ROWS:
            raise ValueError(f"--form must be one of {', '.join(ROWS)}, is {self.form}")
        if self.form == "chat" and FORMATS[self.format].tokens:
            raise ValueError(f"--form chat is for --format jsonl and parquet, not {self.format}")
        if unknown := set(self.splits) - set(SPLITS):
            raise ValueError(f"--split must be one of {', '.join(SPLITS)}, is {', '.join(sorted(unknown))}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


def run(config: ExportConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Export documents; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no tokenizer, or no question for the chat form.
        BusyError: another export writes in the folder.
        ExportError: the folder holds something else, or the format cannot hold the tokenizer's ids.
        DamageError: a documents shard, a list or the tokenizer is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    place = _place_of(config, workspace)
    try:
        with locked(place, STAGE, hint="Wait until it is done, or name another FOLDER."):
            _place_of(config, workspace)  # which another export may have taken meanwhile
            return _export(config, workspace, place, progress)
    except DiskError as error:
        if str(place) not in error.message:
            raise
        hint = "Free some room there, or name another FOLDER; the same command resumes."
        raise DiskError(error.message, hint=hint) from error


def _export(config: ExportConfig, workspace: Workspace, place: Path, progress: Progress) -> Report:
    watch, form = Stopwatch(), FORMATS[config.format]
    names = _without_rankings(workspace, config)
    chosen = {name: selection.load(workspace, name, removals=True) for name in names}
    inputs = []
    for name in names:
        selection.documents_of(workspace, name, read=False)  # compares the documents with their ledger
        inputs += [workspace.file_digest(workspace.documents(name) / LEDGER), *chosen[name].inputs]
    inputs += [tokenizer_digest(workspace)] if form.tokens else []
    kind, settings = _settings(config, workspace, form, names)
    settings |= _removed(chosen)
    stage = StageRun(
        workspace, place, stage=STAGE, version=VERSION, config=settings, inputs=inputs, watch=watch, progress=progress
    )
    if report := stage.skipped():
        return report
    pieces = _divide(workspace, names, config, form)
    stage.begin()
    write_atomic(place / MARK, _mark(config))
    files = _resume(stage, pieces, form)
    with pool.kept():
        due = [piece for each in files for piece in each.pieces[len(each.kept) :]]
        missing = [(piece, chosen[piece.dataset].of(piece.parts)) for piece in due]
        workers = pool.worker_count(config.workers, len(missing))
        if form.tokens:
            pool.start(workers, partial(encoders.load, workspace.tokenizer), pieces=len(missing))
        job, check = _job(config, workspace, place, names, settings, kind)
        made = pool.run_pieces(partial(write_piece, job=job), missing, workers=workers)
        try:
            engines = _write(files, made, kind, progress)
        finally:
            made.close()  # ends workers that still write a piece
            remove_leftovers(place)
    for digest in (digest for each in files for digest in each.digests):
        stage.tell(digest)
    books, left_out = _books(files), {name: dict(sorted(each.reasons.items())) for name, each in chosen.items()}
    whole = [piece for each in files if each.path.is_file() for piece in each.pieces]
    if not whole:
        raise WorkspaceError(f"{', '.join(names)}: no document is left to export", hint=_HINTS[config.form])
    text = card.text(
        form, [workspace.manifest(name) for name in names], books, left_out, whole, chat=config.form == "chat",
        vocab_size=settings.get("vocab_size"),
    )  # fmt: skip
    write_atomic(place / "README.md", text.encode())
    return stage.finish(
        outputs=[place / "README.md", *_finish_files(files, form, workspace, kind, chat=config.form == "chat")],
        counts={
            "datasets": books,
            "left_out": left_out,
            **({"encoder_check": check} if check else {}),
        },
        check_books=partial(_check_books, workspace, files, kind, chosen, config.splits or SPLITS),
        timings={"engine": ", ".join(engines), "workers": workers},
        notes=_notes(form, files, chosen),
    )


def _place_of(config: ExportConfig, workspace: Workspace) -> Path:
    """The folder, if it is one that an export may be written into."""
    place = config.place.expanduser().absolute()
    if place.resolve().is_relative_to(workspace.root.resolve()):
        raise ExportError(
            f"{place} is in the workspace, whose folders belong to other stages",
            hint="Name a folder outside it.",
        )
    with disk_errors(place):
        there = next(path for path in (place, *place.parents) if path.exists())
        if not there.is_dir():
            raise ExportError(f"{there} is a file", hint="Name a new folder.")
        mark = place / MARK
        ours = {path for pattern in _UNFINISHED for path in place.glob(pattern)}
        others = [path for path in place.glob("*") if path not in ours]
        if not mark.is_file() and others:
            raise ExportError(f"{place} holds other files", hint="Name a new or empty folder.")
        if mark.is_file() and mark.read_bytes() != _mark(config):
            raise ExportError(
                f"{place} holds an export in another format or form: {mark.name} says which",
                hint="Name a new folder, or delete that one.",
            )
    return place


def _mark(config: ExportConfig) -> bytes:
    return orjson.dumps({"format": config.format, "form": config.form}, option=orjson.OPT_APPEND_NEWLINE)


def _without_rankings(workspace: Workspace, config: ExportConfig) -> list[str]:
    """The datasets of an export; rankings, whose worse answers are not to be learnt, are no texts."""
    names = selection.datasets_of(workspace, config.datasets)
    found = [name for name in names if not workspace.manifest(name).has_rankings]
    if not found or (config.datasets and len(found) < len(names)):
        first = next(name for name in names if name not in found)
        raise WorkspaceError(f"{first} holds rankings, which no export has", hint="Leave it out with --dataset.")
    return found


def _settings(
    config: ExportConfig, workspace: Workspace, form: Format, names: Sequence[str]
) -> tuple[np.dtype[Any] | None, dict[str, Any]]:
    """The type of token ids, and the ledger's `config`."""
    settings: dict[str, Any] = {
        "format": form.name,
        "form": config.form,
        "datasets": list(names),
        "splits": [split for split in SPLITS if split in (config.splits or SPLITS)],
        "unit_characters": config.unit_characters or form.unit_characters,
    }
    if not form.tokens:
        return None, settings
    model = load_tokenizer(workspace.tokenizer)
    vocab_size = model.get_vocab_size()
    separator = model.token_to_id(SEPARATOR)
    if separator is None:
        raise WorkspaceError(f"the tokenizer lacks {SEPARATOR}", hint="Run `corpus tokenizer` again.")
    return formats.token_type(form, vocab_size), settings | {"vocab_size": vocab_size, "separator": separator}


def _removed(chosen: Mapping[str, selection.Selection]) -> dict[str, Any]:
    """For each dataset the digest of the ids that the removal list removes; nothing where it removes none."""
    found = {
        name: hashlib.sha256("\n".join(each.removed).encode()).hexdigest()
        for name, each in chosen.items()
        if each.removed
    }
    return {removals.REASON: found} if found else {}


def _divide(workspace: Workspace, names: Sequence[str], config: ExportConfig, form: Format) -> list[Piece]:
    """The pieces, split by split and dataset by dataset, with the file of each."""
    characters = config.unit_characters or form.unit_characters
    pieces = [
        Piece(name, split, number, tuple(paths), size, workspace.manifest(name).licence)
        for split in SPLITS
        if split in (config.splits or SPLITS)
        for name in names
        for number, (paths, size) in enumerate(part_groups(workspace.documents(name), split, characters))
    ]
    if not pieces:
        raise WorkspaceError(
            f"{', '.join(names)}: no documents in {', '.join(config.splits or SPLITS)}",
            hint="`corpus export` without --split takes every split.",
        )
    return formats.placed(pieces, form)


def _resume(stage: StageRun, pieces: Sequence[Piece], form: Format) -> list[Assembly]:
    """The files of the export with the pieces that are whole; everything else that an export wrote is deleted."""
    files = [
        Assembly(stage.folder, list(group), form, stage.fingerprint)
        for _, group in groupby(pieces, lambda piece: piece.file)
    ]
    kept = [stage.folder / piece.lineage for each in files for piece in each.pieces[: len(each.kept)]]
    with disk_errors(stage.folder):
        for path in formats.owned(stage.folder, form, stage.workspace.datasets()).difference(
            kept, *([each.path, each.part] for each in files)
        ):
            path.unlink()
    if kept:
        stage.progress.say(f"{stage.folder}: {len(kept):,} of {len(pieces):,} pieces are finished and kept")
    return files


def _job(
    config: ExportConfig, workspace: Workspace, place: Path, names: Sequence[str], settings: Mapping[str, Any],
    kind: np.dtype[Any] | None,
) -> tuple[Job, dict[str, Any]]:  # fmt: skip
    """What the workers need, and the record of the check of their encoder."""
    chat = config.form == "chat"
    if kind is None:
        return Job(place, config.format, chat, None), {}
    reference = partial(encoders.encode_by_reference, load_tokenizer(workspace.tokenizer))
    sample = pa.concat_arrays([check_sample(workspace.documents(name)) for name in names])
    proof, check = encoders.prove(reference, sample)
    return Job(place, config.format, chat, Tokens(workspace.tokenizer, proof, kind, settings["separator"])), check


def _write(
    files: Sequence[Assembly], made: Iterator[Written], kind: np.dtype[Any] | None, progress: Progress
) -> list[str]:
    """Append the missing pieces in order; returns the encoders that were used."""
    engines: set[str] = set()
    total = sum(piece.characters for each in files for piece in each.pieces)
    with progress.bar(f"{files[0].place.name}: {files[0].form.name}", total, "characters"):
        for each in files:
            progress.advance(sum(piece.characters for piece in each.pieces[: len(each.kept)]))
            if each.is_whole:
                continue
            each.resume()
            for piece in each.pieces[len(each.kept) :]:
                written = next(made)
                each.append(written)
                if written.warning and written.engine not in engines:
                    progress.say(written.warning)
                engines.add(written.engine)
                progress.advance(piece.characters)
            each.close(kind)
    return sorted(engines - {""})


def _books(files: Sequence[Assembly]) -> dict[str, dict[str, dict[str, int]]]:
    """Counts by dataset and split."""
    books: dict[str, dict[str, Counter[str]]] = {}
    for each in files:
        for piece, counts in zip(each.pieces, each.counts, strict=True):
            found = books.setdefault(piece.dataset, {}).setdefault(piece.split, Counter())
            found.update({key: value for key, value in counts.items() if key != "sha256"})
    return {name: {split: dict(counts) for split, counts in splits.items()} for name, splits in books.items()}


def _check_books(
    workspace: Workspace, files: Sequence[Assembly], kind: np.dtype[Any] | None,
    chosen: Mapping[str, selection.Selection], splits: Sequence[str],
) -> None:  # fmt: skip
    """Raise BooksError unless documents and characters are all exported, left out or without a question, and files of
    tokens hold the tokens counted.
    """
    books = _books(files)
    for name, left in chosen.items():
        ledger = read_ledger(workspace.documents(name))
        known = ledger.counts if ledger else {"splits": {}, "characters": {}}
        for split in splits:
            found, documents = Counter(books.get(name, {}).get(split, {})), known["splits"].get(split, 0)
            rest = found["without_prompt"]
            characters = found["characters"] + found["characters_without_prompt"] + left.characters[split]
            whole = found["documents"] + rest + left.documents[split] == documents
            if not whole or characters != known["characters"].get(split, 0):
                raise BooksError(
                    f"{name}, {split}: {documents:,} documents are not {found['documents']:,} exported, "
                    f"{left.documents[split]:,} left out and {rest:,} without a question"
                )
    for each in files:
        size = each.path.stat().st_size if each.path.is_file() else each.form.header
        if kind is not None and each.form.is_flat and size != each.form.header + each.length * kind.itemsize:
            raise BooksError(f"{each.path} has {size:,} bytes, which are not {each.length:,} tokens")


def _finish_files(
    files: Sequence[Assembly], form: Format, workspace: Workspace, kind: np.dtype[Any] | None, *, chat: bool
) -> list[Path]:
    """Write what stands beside the data; returns all files of the export but its card."""
    place, whole = files[0].place, [each for each in files if each.path.is_file()]
    beside: dict[str, bytes] = {}
    outputs = [each.path for each in whole] + [place / piece.lineage for each in files for piece in each.pieces]
    if kind is None:
        pieces = [piece for each in whole for piece in each.pieces]
        beside["dataset_info.json"] = formats.llama_factory(pieces, chat=chat)
    else:
        model = load_tokenizer(workspace.tokenizer)
        beside = {name: (workspace.tokenizer / name).read_bytes() for name in TOKENIZER}
        if form.name == "nanogpt":
            beside["meta.pkl"] = pickle.dumps({"vocab_size": model.get_vocab_size()}, protocol=4)
        elif form.name == "megatron":
            outputs += [each.write_index(kind) for each in whole]
        elif form.name == "mds":
            groups = groupby(whole, lambda each: each.path.parent)
            outputs += [write_mds_index(folder, list(group), kind) for folder, group in groups]
    for name, data in beside.items():
        write_atomic(place / name, data)
    return outputs + [place / name for name in beside]


def _notes(form: Format, files: Sequence[Assembly], chosen: Mapping[str, selection.Selection]) -> list[str]:
    """What a user should know about the result."""
    removed = {name: len(each.removed) for name, each in chosen.items() if each.removed}
    notes = [f"{name}: {removals.LIST} keeps out {count:,} documents" for name, count in removed.items()]
    if form.name == "nanogpt" and "val.bin" not in {each.path.name for each in files}:
        notes.append("nanoGPT also reads val.bin, and no validation documents were exported")
    return notes
