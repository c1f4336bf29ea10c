"""The export: the used documents of a workspace in a folder of files that another trainer reads.

In: `documents/`, the lists of what is left out, and for formats of tokens `tokenizer/`. Out: a folder outside the
workspace with the format's files, `lineage/`, `README.md`, and the tokenizer. Until it is finished `pieces/` holds
pieces that are not in their files yet.
Invariants: documents = exported + left out + without a question where the form needs one, characters likewise; files of
tokens hold the tokens counted and nothing else; workers, shares, interruption and engine change no byte; a folder that
holds other files is refused.
Cost: 0.28 GB a process, whatever the input; two cores encode 35 million characters a second.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline import pieces as shared
from corpus.pipeline import workers as pool
from corpus.pipeline.errors import BooksError, DiskError, WorkspaceError
from corpus.pipeline.export import card, formats
from corpus.pipeline.export.assembly import Assembly, write_mds_index
from corpus.pipeline.export.config import MARK, ExportConfig, mark, place_of
from corpus.pipeline.export.formats import Format, Piece
from corpus.pipeline.export.plan import STAGE, VERSION, Ready, prepare
from corpus.pipeline.export.shard import Written
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.tokenizer.files import load as load_tokenizer
from corpus.pipeline.workspace.files import disk_errors, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report, fingerprint, read_ledger
from corpus.pipeline.workspace.lock import locked
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share, ShareReport
from corpus.pipeline.workspace.stage import StageRun

__all__ = ["MARK", "STAGE", "TOKENIZER", "VERSION", "ExportConfig", "run", "run_share"]

_HINTS = {
    "text": "`corpus status` shows what there is; dedup, decontaminate and exclude.txt may leave out everything.",
    "chat": "baike2018qa, webtext2019zh and translation2019zh have questions; --form text takes any document.",
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def run(config: ExportConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Export documents; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents, or no tokenizer, or no question for the chat form.
        BusyError: another export writes in the folder.
        ExportError: the folder holds something else, or the format cannot hold the tokenizer's ids.
        DamageError: a documents shard, a list or the tokenizer is not what its ledger says.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    with _locked(config, workspace) as place:
        return _export(prepare(config, workspace, place, progress))


def run_share(config: ExportConfig, workspace: Workspace, share: Share, *, progress: Progress = SILENT) -> ShareReport:
    """Write a share of the pieces; the caller holds `workspace.sharing()`. Raises as `run`."""
    with _locked(config, workspace, share) as place:
        ready = prepare(config, workspace, place, progress, share)
        if ready.stage.skipped():
            return ready.stage.already_finished()
        pieces = {piece.name: piece for piece in ready.pieces()}
        write_atomic(place / MARK, mark(config))
        return shared.make_share(
            ready.stage, pieces, lambda due: ready.made([*due.values()]), note=lambda written: written.warning
        )


@contextlib.contextmanager
def _locked(config: ExportConfig, workspace: Workspace, share: Share | None = None) -> Iterator[Path]:
    """The folder, held by this export alone or by jobs with the same settings together."""
    place = place_of(config, workspace)
    command, kind = STAGE, ""
    if share is not None:
        settings = {name: list(getattr(config, name)) for name in ("datasets", "splits")}
        kind = fingerprint(STAGE, VERSION, settings | {"format": config.format, "form": config.form}, [])
        command = f"{STAGE} --shard {share}"
    try:
        with locked(place, command, hint="Wait until it is done, or name another FOLDER.", kind=kind):
            yield place_of(config, workspace)  # which another export may have taken meanwhile
    except DiskError as error:
        if str(place) not in error.message:
            raise
        hint = "Free some room there, or name another FOLDER; the same command resumes."
        raise DiskError(error.message, hint=hint) from error


def _export(ready: Ready) -> Report:
    stage, config, form, chosen = ready.stage, ready.config, ready.form, ready.chosen
    if report := stage.skipped():
        return report
    pieces = ready.pieces()
    stage.begin()
    write_atomic(stage.folder / MARK, mark(config))
    files, kept = _resume(stage, pieces, form)
    with pool.kept():
        due = [piece for each in files for piece in each.pieces[len(each.kept) :] if piece.name not in kept]
        workers = pool.worker_count(config.workers, len(due))
        work, check = ready.work(workers, len(due))
        made = pool.run_pieces(work, ready.with_left_out(due), workers=workers)
        try:
            engines = _write(files, kept, made, ready.kind, stage.progress)
        finally:
            made.close()  # ends workers that still write a piece
            stage.remove_leftovers()
    for digest in (digest for each in files for digest in each.digests):
        stage.tell(digest)
    books, left_out = _books(files), {name: dict(sorted(each.reasons.items())) for name, each in chosen.items()}
    whole = [piece for each in files if each.path.is_file() for piece in each.pieces]
    if not whole:
        raise WorkspaceError(f"{', '.join(ready.names)}: no document is left to export", hint=_HINTS[config.form])
    _write_card(ready, books, left_out, whole)
    outputs = _finish_files(files, form, ready.workspace, ready.kind, chat=config.form == "chat")
    shutil.rmtree(stage.folder / formats.PIECES, ignore_errors=True)
    return stage.finish(
        outputs=[stage.folder / "README.md", *outputs],
        counts={
            "datasets": books,
            "left_out": left_out,
            **({"encoder_check": check} if check else {}),
        },
        check_books=lambda: _check_books(ready, files),
        timings={"engine": ", ".join(engines), "workers": workers},
        notes=_notes(form, files, chosen),
    )


def _write_card(
    ready: Ready, books: Mapping[str, Any], left_out: Mapping[str, Mapping[str, int]], whole: Sequence[Piece]
) -> None:
    text = card.text(
        ready.form, [ready.workspace.manifest(name) for name in ready.names], books, left_out, whole,
        chat=ready.config.form == "chat", vocab_size=ready.settings.get("vocab_size"),
    )  # fmt: skip
    write_atomic(ready.stage.folder / "README.md", text.encode())


def _resume(stage: StageRun, pieces: Sequence[Piece], form: Format) -> tuple[list[Assembly], dict[str, Receipt]]:
    """The files of the export with the pieces that are whole, and the receipts of pieces that are not in them yet;
    everything else that an export wrote is deleted.
    """
    files = [
        Assembly(stage.folder, list(group), form, stage.fingerprint)
        for _, group in groupby(pieces, lambda piece: piece.file)
    ]
    kept = [stage.folder / piece.lineage for each in files for piece in each.pieces[: len(each.kept)]]
    due = {piece.name for each in files for piece in each.pieces[len(each.kept) :]}
    receipts = {name: receipt for name, receipt in stage.finished_pieces().items() if name in due}
    beside = {stage.folder / output.path for receipt in receipts.values() for output in receipt.outputs}
    with disk_errors(stage.folder):
        for path in formats.owned(stage.folder, form, stage.workspace.datasets()).difference(
            kept, beside, *([each.path, each.part] for each in files)
        ):
            path.unlink()
    if kept or receipts:
        there = len(kept) + len(receipts)
        stage.progress.say(f"{stage.folder}: {there:,} of {len(pieces):,} pieces are finished and kept")
    return files, receipts


def _write(
    files: Sequence[Assembly], kept: Mapping[str, Receipt], made: Iterator[Written], kind: np.dtype[Any] | None,
    progress: Progress,
) -> list[str]:  # fmt: skip
    """Append the missing pieces in order, those in `kept` as they are; returns the encoders that were used."""
    engines: set[str] = set()
    total = sum(piece.characters for each in files for piece in each.pieces)
    with progress.bar(f"{files[0].place.name}: {files[0].form.name}", total, "characters"):
        for each in files:
            progress.advance(sum(piece.characters for piece in each.pieces[: len(each.kept)]))
            if each.is_whole:
                continue
            each.resume()
            for piece in each.pieces[len(each.kept) :]:
                written = Written(kept[piece.name]) if piece.name in kept else next(made)
                each.append(written.receipt)
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


def _check_books(ready: Ready, files: Sequence[Assembly]) -> None:
    """Raise BooksError unless documents and characters are all exported, left out or without a question, and files of
    tokens hold the tokens counted.
    """
    books = _books(files)
    for name, left in ready.chosen.items():
        ledger = read_ledger(ready.workspace.documents(name))
        known = ledger.counts if ledger else {"splits": {}, "characters": {}}
        for split in ready.config.splits or SPLITS:
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
        width = 0 if ready.kind is None else ready.kind.itemsize
        if width and each.form.is_flat and size != each.form.header + each.length * width:
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
