"""Jobs that share a stage, in an order and number that a seed draws: some missing, some doubled, some outputs torn."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.documents import tree


def outputs(folder: Path) -> dict[str, bytes]:
    """Every byte of a finished stage; locks and partial files aside."""
    return {name: data for name, data in tree(folder).items() if not Path(name).name.startswith(".lock")}


def leave_what_one_run_leaves(
    folder: Path, job: Callable[[Share], ShareReport], finish: Callable[[], object], clear: Callable[[], object], *,
    seed: int, counts: tuple[int, ...] = (3,),
) -> None:  # fmt: skip
    """Compare the folder after jobs and the run that finishes with the folder after one run.

    Args:
        folder: the stage's.
        job: does a share, as it starts on another machine.
        finish: the run without a share.
        clear: deletes what the stage has made.
        seed: of the order of the jobs, and of what goes wrong.
        counts: numbers of shares.

    """
    chance = random.Random(seed)
    finish()
    alone = outputs(folder)
    assert not (folder / receipts.FOLDER).exists()
    for count in counts:
        clear()
        order = chance.sample(range(1, count + 1), count)
        reports = [job(Share(index, count)) for index in order]
        (pieces,) = {report.pieces for report in reports}
        assert sum(report.made for report in reports) == pieces > 1
        assert receipts.progress_of(folder) == (pieces, pieces)
        again = job(Share(order[0], count))  # doubled, or requeued after its end
        assert (again.made, again.kept) == (0, reports[0].made)
        _same_after(folder, finish, alone)
        assert job(Share(1, count)).finished
    clear()
    job(Share(1, 2))  # the other one is cancelled
    for found in chance.sample(receipts.read_all(folder), 1):
        told = found.receipt.outputs
        if told:
            (folder / chance.choice(told).path).write_bytes(b"torn")
        else:
            (folder / found.receipt.name).unlink()
    assert job(Share(1, 2)).made == 1
    _same_after(folder, finish, alone)


def _same_after(folder: Path, finish: Callable[[], object], alone: dict[str, bytes]) -> None:
    finish()
    left = outputs(folder)
    assert left.keys() == alone.keys()
    assert [name for name in alone if left[name] != alone[name]] == []


def emptied(folder: Path, *kept: str) -> None:
    """Delete a folder, but for some of what it holds."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
