"""`python -m tests.experiments.cluster`: the driver of a stage on a cluster that does not exist, for docs/scale.md.

In: how many pieces, workers and faults. Out: a table in Markdown; with `--page` also in docs/scale.md, with a picture.
A result that is missing, comes twice or out of order, and two writers of a piece that differ, end it with an error.
Method: the dispatcher, the receipts and `StageRun` are those of the toolkit; workers, nodes, faults and time are those
of `tests.support.cluster`. Each piece has the receipt of a piece of documents: two outputs and its counts. The outputs
are sparse files of the size that the receipt tells, since `StageRun.take` looks at sizes. The driver folds the receipts
as the stage does, and `finish` writes the ledger. Not in it: the engine's own time for a task (`--driver-ms` adds one
on the virtual clock), networks, and the work itself.
Figures are the driver's: its processor time, without that of the cluster, and how much the largest resident size of the
process grew. Each run is a process of its own.
Cost: some 200 us a piece, and for each two files without content; five minutes and 7 GB of memory for a million pieces.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.documents.transform import piece_name
from corpus.pipeline.engine.dispatch import Dispatcher
from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.storage.document_shards import part_name, parts
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER
from corpus.pipeline.workspace.receipts import Output, Receipt
from corpus.pipeline.workspace.stage import StageRun
from tests.support.cluster import Attempt, Cluster, Faults

SECONDS_A_PIECE = 1.5
"""Of one core, for 32 MiB of records: see the table of a terabyte in docs/scale.md."""
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
PICTURE = PAGE.with_name("scale-driver.svg")
_BEGIN, _END = "<!-- simulation: written by make cluster -->\n", "<!-- end of simulation -->\n"
EXTRA = ({"driver_ms": 1.3}, {"driver_ms": 1.3, "seconds": 12.0})
"""The largest run once more: with the time that Ray takes for a task, and with pieces of 256 MiB, too."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of documents, by its number alone."""

    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a worker does: the receipt of a piece, and its outputs."""

    folder: Path | None
    """Of the stage; None where no output is made."""
    work: str

    def __call__(self, piece: Piece) -> tuple[Receipt, bytes]:
        digest = hashlib.sha256(piece.number.to_bytes(8, "little")).hexdigest()
        name, some = part_name(piece.number), int(digest[:4], 16)
        sizes = {name: 12_000_000 + some, f"rejected/{name}": 200_000 + some}
        if self.folder:
            for path, size in sizes.items():
                with (self.folder / path).open("wb") as file:
                    file.truncate(size)
        groups = (6_000 + some % 1000, 6_000, 6_000, 1_000)
        receipt = Receipt(
            work=self.work, piece=piece_name(piece.number), counts=counts_of(20_000 + some % 1000),
            outputs=tuple(Output(path, size, digest, groups) for path, size in sizes.items()),
        )  # fmt: skip
        return receipt, receipt.to_json()


def counts_of(records: int) -> dict[str, Any]:
    """Counts of a piece of documents, with as many reasons as those of a real one."""
    dropped = {"too_short": 300, "repeats": 120, "garbled": 7, "adverts": 40}
    cleaned = dict.fromkeys(("break_lines", "unescape_entities", "strip_tags", "narrow_letters", "collapse_blanks"), 99)
    kept = records - sum(dropped.values())
    splits = {"train": kept - 200, "validation": 200}
    return {
        "records": records, "documents": kept, "splits": splits, "dropped": dropped, "cleaned": cleaned,
        "masked": {"phone": 12, "email": 3}, "characters": {name: 600 * count for name, count in splits.items()},
    }  # fmt: skip


class Meter:
    """The cluster as the dispatcher sees it; notes the processor time that is the cluster's own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.seconds = cluster, 0.0

    @property
    def slots(self) -> int:
        return self.cluster.slots

    def submit(self, piece: Any) -> Attempt:
        begun = time.process_time()
        attempt = self.cluster.submit(piece)
        self.seconds += time.process_time() - begun
        return attempt

    def wait(self, handles: Collection[Attempt], timeout_s: float) -> list[Attempt]:
        begun = time.process_time()
        found = self.cluster.wait(handles, timeout_s)
        self.seconds += time.process_time() - begun
        return found

    def result(self, handle: Attempt) -> Receipt:
        receipt: Receipt = self.cluster.result(handle)  # unpickled, which is the driver's work
        return receipt

    def cancel(self, handles: Collection[Attempt]) -> None:
        self.cluster.cancel(handles)


@dataclass(slots=True)
class Fold:
    """The stage that takes the receipts, and what that took."""

    workspace: Workspace
    stage: StageRun
    books: Counts = field(default_factory=Counts)
    seconds: float = 0.0

    def take(self, receipt: Receipt) -> None:
        """As `corpus.pipeline.documents` takes the receipt of a piece."""
        begun = time.process_time()
        self.books.add(Counts.from_dict(self.stage.take(receipt).counts))
        self.seconds += time.process_time() - begun

    def finish(self) -> dict[str, Any]:
        """Write the ledger and the cache of digests; returns what that took."""
        begun, folder = time.process_time(), self.stage.folder
        self.stage.finish(
            outputs=(*parts(folder), *parts(folder / "rejected")), counts=self.books.to_dict(),
            check_books=partial(self.books.check, "all"),
        )  # fmt: skip
        self.workspace.save_digests()
        size = (folder / LEDGER).stat().st_size
        return {"take_s": self.seconds, "finish_s": time.process_time() - begun, "ledger_bytes": size}


def begun(folder: Path) -> Fold:
    """A run of the stage in an empty folder."""
    workspace = Workspace(folder)
    place = workspace.documents("news2016zh")
    stage = StageRun(workspace, place, stage="ingest", version=1, dataset="news2016zh", config={}, inputs=[])
    (place / "rejected").mkdir(parents=True)
    stage.skipped()
    stage.begin()
    return Fold(workspace, stage)


def simulate(
    pieces: int, workers: int, faults: Faults, folder: Path | None, *, per_node: int = 16, driver_s: float = 0.0,
    seconds: float = SECONDS_A_PIECE,
) -> dict[str, Any]:  # fmt: skip
    """Run the pieces, and say what it took the driver; without `folder` nothing takes the receipts.

    Raises:
        AssertionError: a piece's result is missing, comes twice or out of order, or two writers of it differ.

    """
    fold = begun(folder) if folder else None
    work = Work(folder=fold.stage.folder, work=fold.stage.fingerprint) if fold else Work(folder=None, work="0" * 64)
    cluster = Cluster(work, workers=workers, per_node=per_node, faults=faults, driver_s=driver_s, seconds=seconds)
    meter, before, start, taken = Meter(cluster), peak_mb(), time.process_time(), 0
    for receipt in Dispatcher(meter, clock=cluster.clock).run(map(Piece, range(pieces))):
        if receipt.piece != piece_name(taken):
            raise AssertionError(f"piece {receipt.piece} came as number {taken}")
        taken += 1
        if fold:
            fold.take(receipt)
    spent = time.process_time() - start - meter.seconds - (fold.seconds if fold else 0.0)
    if not taken == cluster.store.pieces == pieces:
        raise AssertionError(f"{taken} results and {cluster.store.pieces} receipts of {pieces} pieces")
    found: dict[str, Any] = {"dispatch_s": spent, "pieces_mb": peak_mb() - before}
    if fold:
        found |= {**fold.finish(), "finish_mb": peak_mb() - before}
    return found | {
        "pieces": pieces, "workers": workers, "seconds": seconds, "driver_s": driver_s, "late": cluster.store.late,
        "writes": cluster.store.writes, "makespan_s": cluster.clock.now, "ideal_s": pieces * seconds / workers,
        "busy_s": cluster.busy_s, "receipt_bytes": cluster.store.bytes / cluster.store.writes, **cluster.counts,
    }  # fmt: skip


def peak_mb() -> float:
    """The largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """Figures of several runs in Markdown, a column for each."""

    def row(name: str, shown: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [name, *map(shown, points)]

    def number(name: str, form: str, scale: float = 1) -> Callable[[Mapping[str, Any]], str]:
        return lambda each: format(each[name] * scale, form) if name in each else ""

    rows = [
        row("workers", number("workers", ",")),
        row("seconds of a piece", number("seconds", "g")),
        row("milliseconds of the engine for a task", number("driver_s", "g", 1000)),
        row("**driver:** dispatcher, processor seconds", number("dispatch_s", ",.1f")),
        row("taking the receipts", number("take_s", ",.1f")),
        row("`finish`", number("finish_s", ",.1f")),
        row("memory before `finish`, MB", number("pieces_mb", ",.0f")),
        row("in `finish`, MB", number("finish_mb", ",.0f")),
        row("`ledger.json`, MB", number("ledger_bytes", ",.1f", 1e-6)),
        row("**faults:** nodes lost", lambda each: f"{each.get('dead nodes', 0) + each.get('nodes cut off', 0):,}"),
        row("dead workers", lambda each: f"{each.get('dead workers', 0):,}"),
        row("stragglers", lambda each: f"{each.get('stragglers', 0):,}"),
        row("pieces given out again by the dispatcher", lambda each: f"{each['submitted'] - each['pieces']:,}"),
        row("pieces written twice", lambda each: f"{each['writes'] - each['pieces']:,}"),
        row("of these by a node that was cut off", number("late", ",")),
        row("**seconds** on the virtual clock", number("makespan_s", ",.0f")),
        row("without faults and waiting", number("ideal_s", ",.0f")),
    ]
    return markdown_table(["pieces", *(f"{each['pieces']:,}" for each in points)], rows)


def draw(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Processor time and memory of the driver against the pieces."""
    import matplotlib as mpl  # of the extra bench

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "corpus"
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    pieces = [each["pieces"] for each in points]
    for name, key, colour in (
        ("dispatch", "dispatch_s", "#2a6f97"), ("receipts", "take_s", "#e07a1f"), ("finish", "finish_s", "#7a7a7a"),
    ):  # fmt: skip
        left.plot(pieces, [each[key] for each in points], marker="o", markersize=4, label=name, color=colour)
    for name, key, colour in (("in finish", "finish_mb", "#7a7a7a"), ("before", "pieces_mb", "#e07a1f")):
        right.plot(pieces, [each[key] for each in points], marker="o", markersize=4, label=name, color=colour)
    left.set_ylabel("processor seconds of the driver")
    right.set_ylabel("memory of the driver, MB")
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="pieces")
        axis.grid(color="#eeeeee")
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> int:
    """Run the sizes, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.cluster", description=main.__doc__)
    parser.add_argument("--pieces", type=int, default=1_000_000, help="of the largest run (%(default)s)")
    parser.add_argument("--workers", type=int, default=10_000, help="of the largest run (%(default)s)")
    parser.add_argument("--node-hours", type=float, default=5.0, help="mean hours until a node is lost (%(default)s)")
    parser.add_argument("--driver-ms", type=float, default=0.0, help="what a task takes the engine (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS_A_PIECE, help="of a piece, on a core (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where files of the runs are, such as a disk in memory")
    parser.add_argument("--no-fold", action="store_true", help="do not fold the receipts into a ledger")
    parser.add_argument("--one", action="store_true", help="run this size alone, and print its figures as JSON")
    parser.add_argument("--page", action="store_true", help="write docs/scale.md and its picture")
    asked = parser.parse_args()
    if asked.one:
        faults = Faults(seed=asked.seed, node_hours=asked.node_hours)
        extra = {"driver_s": asked.driver_ms / 1000, "seconds": asked.seconds}
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            place = None if asked.no_fold else Path(folder)
            print(json.dumps(simulate(asked.pieces, asked.workers, faults, place, **extra)))
        return 0
    points = [_in_a_process(asked, divisor) for divisor in (1000, 100, 10, 1)]
    shown = table(points + [_in_a_process(asked, 1, **extra) for extra in EXTRA])
    print(shown)
    if asked.page:
        draw(points, PICTURE)
        _write_page(shown)
    return 0


def _in_a_process(asked: argparse.Namespace, divisor: int, **extra: float) -> dict[str, Any]:
    """One run, in a process of its own, whose memory is then that of the run."""
    values = {"pieces": max(1, asked.pieces // divisor), "workers": max(1, asked.workers // divisor)}
    values |= {"node_hours": asked.node_hours, "seed": asked.seed, "driver_ms": asked.driver_ms}
    values |= {"seconds": asked.seconds, **extra}
    command = [sys.executable, "-m", __spec__.name, "--one", *(["--no-fold"] if extra or asked.no_fold else [])]
    command += [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command += ["--folder", str(asked.folder)] if asked.folder else []
    print(" ".join(command[2:]), file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(found, file=sys.stderr, flush=True)
    return found


def _write_page(shown: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    picture = f"![Processor time and memory of the driver by pieces]({PICTURE.name})"
    PAGE.write_text(f"{text[:begin]}\n{shown}\n\n{picture}\n\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
