"""What a run of the export reads, and its pieces.

In: a workspace and what is exported. Out: the run of the stage, or of a share of it, and the pieces in order.
Invariants: pieces follow from documents and settings alone, so all jobs of an array have the same.
Cost: the counts of each documents shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.pipeline import workers as pool
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.export import formats
from corpus.pipeline.export.config import ExportConfig
from corpus.pipeline.export.formats import FORMATS, Format, Piece
from corpus.pipeline.export.shard import Job, Tokens, Written, write_piece
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import removals, selection
from corpus.pipeline.storage.document_shards import check_sample, part_groups
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.tokenizer.files import load as load_tokenizer
from corpus.pipeline.tokenizer.files import tokenizer_digest
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Stopwatch
from corpus.pipeline.workspace.share import Share
from corpus.pipeline.workspace.stage import StageRun

STAGE = "export"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A run of the stage, or of a share of it, with what it reads."""

    config: ExportConfig
    workspace: Workspace
    stage: StageRun
    form: Format
    names: Sequence[str]
    """The datasets."""
    chosen: Mapping[str, selection.Selection]
    kind: np.dtype[Any] | None
    """The type of token ids; None for text."""
    settings: Mapping[str, Any]
    """The ledger's `config`."""

    def pieces(self) -> list[Piece]:
        """The pieces, split by split and dataset by dataset, with the file of each.

        Raises:
            WorkspaceError: there are no documents in the splits.

        """
        return _divide(self.workspace, self.names, self.config, self.form)

    def work(self, workers: int, pieces: int) -> tuple[Callable[[tuple[Piece, selection.Selection]], Written], Any]:
        """What writes a piece, and the record of the check of its encoder. Starts the workers, in `pool.kept()`."""
        job, check = self._job(workers, pieces)
        return partial(write_piece, job=job), check

    def with_left_out(self, pieces: Sequence[Piece]) -> list[tuple[Piece, selection.Selection]]:
        """Pieces as workers take them: with what is left out of each."""
        return [(piece, self.chosen[piece.dataset].of(piece.parts)) for piece in pieces]

    def made(self, due: Sequence[Piece]) -> Iterator[Written]:
        """Pieces of a share, once they are written."""
        workers = pool.worker_count(self.config.workers, len(due))
        work, _ = self.work(workers, len(due))
        return pool.run_pieces(work, self.with_left_out(due), workers=workers)

    def _sample(self) -> pa.Array:
        return pa.concat_arrays([check_sample(self.workspace.documents(name)) for name in self.names])

    def _job(self, workers: int, pieces: int) -> tuple[Job, dict[str, Any]]:
        chat, place, identity = self.config.form == "chat", self.stage.folder, self.stage.fingerprint
        if self.kind is None:
            return Job(place, self.config.format, chat, None, identity), {}
        folder = self.workspace.tokenizer
        model = load_tokenizer(folder)
        proof, check = encoders.start_and_prove(folder, model, self._sample, workers=workers, pieces=pieces)
        tokens = Tokens(folder, proof, self.kind, self.settings["separator"])
        return Job(place, self.config.format, chat, tokens, identity), check


def prepare(
    config: ExportConfig, workspace: Workspace, place: Path, progress: Progress, share: Share | None = None
) -> Ready:
    """Read what decides the export, and compare the folder with it."""
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
        workspace, place, stage=STAGE, version=VERSION, config=settings, inputs=inputs, watch=watch,
        progress=progress, share=share,
    )  # fmt: skip
    return Ready(
        config=config, workspace=workspace, stage=stage, form=form, names=names, chosen=chosen, kind=kind,
        settings=settings,
    )  # fmt: skip


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
