"""Pieces of a stage that end with a receipt: those that are there are taken, the others made; all, or those of a share.

In: a stage, its pieces by name and in order, and what makes one in a worker. Out: receipts.
Invariants: a piece has the same name, bytes and receipt in a run of a share and in one of all pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import TypeVar

from corpus.pipeline import workers as pool
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.remote import fetched
from corpus.pipeline.workspace.share import ShareReport
from corpus.pipeline.workspace.stage import StageRun

P = TypeVar("P")
R = TypeVar("R")


def make(
    stage: StageRun, pieces: Mapping[str, P], kept: Mapping[str, Receipt], work: Callable[[P], Receipt], *, workers: int
) -> Generator[Receipt, None, None]:
    """The receipts of all pieces, in order: those in `kept` as they are, the others once they are made."""
    missing = [piece for name, piece in pieces.items() if name not in kept]
    made = pool.run_pieces(work, missing, workers=pool.worker_count(workers, len(missing)))
    try:
        for name in pieces:
            if name in kept:
                yield kept[name]
            else:
                receipt = stage.take(next(made))
                fetched(stage.folder, [output.digest for output in receipt.outputs])  # where another machine made it
                yield receipt
    finally:
        made.close()  # ends workers that still make a piece


def make_share(
    stage: StageRun, pieces: Mapping[str, P], work: Callable[[Mapping[str, P]], Iterable[R]], *, identity: str = "",
    adopt: Callable[[str, P], Receipt | None] = lambda _name, _piece: None, note: Callable[[R], str] = lambda _: "",
) -> ShareReport:  # fmt: skip
    """Make those of the stage's share that are not there.

    `work` makes pieces; `identity` is the fingerprint of their work, where it is not the stage's. `adopt` gives the
    receipt of a piece that an earlier run has made, and that has none. `note` is what to tell the user of a piece.
    """
    share, identity, notes = stage.share, identity or stage.fingerprint, dict[str, None]()
    stage.begin()
    stage.note_pieces(len(pieces), [identity])
    own = {name: piece for at, (name, piece) in enumerate(pieces.items()) if share and share.has(at)}
    there = {name for name, piece in own.items() if stage.is_there(identity, name, partial(adopt, name, piece))}
    due = {name: piece for name, piece in own.items() if name not in there}
    with pool.kept(), stage.progress.bar(f"{stage.dataset or stage.stage}: share {share}", len(due), "pieces"):
        for each in work(due) if due else ():
            if told := note(each):
                notes[told] = None
            stage.progress.advance(1)
    return stage.shared(pieces=len(pieces), made=len(due), kept=len(there), works=[identity], notes=tuple(notes))


def run_all(work: Callable[[P], R], workers: int) -> Callable[[Mapping[str, P]], Iterable[R]]:
    """What makes pieces for `make_share`, where nothing is done before the first."""
    return lambda due: pool.run_pieces(work, [*due.values()], workers=pool.worker_count(workers, len(due)))
