"""What a command says when it is done: a short table and the path of each ledger. Called by `cli.py` only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline import console

if TYPE_CHECKING:
    from corpus.pipeline.trace import Dropped, Origin, Segment
    from corpus.pipeline.workspace import Report


def download(reports: Sequence[Report]) -> None:
    """Archives and their size."""
    rows = [
        (report.ledger.dataset, len(report.ledger.outputs), console.size(report.ledger.output_bytes), state(report))
        for report in reports
    ]
    console.table(("dataset", "files", "size", "state"), rows)
    ledgers(reports)


def ingest(reports: Sequence[Report]) -> None:
    """Records, documents and what was dropped, by reason."""
    rows: list[tuple[object, ...]] = []
    for report in reports:
        counts = report.ledger.counts
        dropped = sum(counts["dropped"].values())
        characters = sum(counts["characters"].values())
        rows.append((report.ledger.dataset, counts["records"], counts["documents"], dropped, characters, state(report)))
    console.table(("dataset", "records", "documents", "dropped", "characters", "state"), rows)
    for report in reports:
        why = ", ".join(f"{reason} {count:,}" for reason, count in report.ledger.counts["dropped"].items())
        console.write(f"{report.ledger.dataset}: dropped: {why or 'nothing'}")
    ledgers(reports)


def tokenizer(report: Report) -> None:
    """How the tokenizer does on its sample."""
    rows = [
        (
            name,
            f"{row['bytes_per_token']:.2f}",
            f"{row['characters_per_token']:.2f}",
            f"{row['han_with_own_token']:.2%}",
        )
        for name, row in report.ledger.counts["datasets"].items()
    ]
    title = f"tokenizer: {report.ledger.counts['entries']:,} entries, {state(report)}"
    console.table(("sample of", "bytes/token", "characters/token", "Han with own token"), rows, title=title)
    ledgers([report])


def train(report: Report) -> None:
    """Loss and bits per character on each dataset's validation split, and what to type next."""
    rows: list[tuple[object, ...]] = []
    for name, score in report.ledger.counts["validation"].items():
        rows.append(
            (name, *(f"{score[key]:.3f}" for key in ("loss", "perplexity", "bits_per_character", "bits_per_byte")))
        )
    if rows:
        console.table(("validation", "loss", "perplexity", "bits/character", "bits/byte"), rows)
    console.write(f"model: {report.folder} ({state(report)})")
    ledgers([report])


def losses(folder: Path) -> None:
    """How the training loss fell, from `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    points = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    shown = points[:: max(1, len(points) // 8)]
    if points and shown[-1] != points[-1]:
        shown.append(points[-1])
    console.write("loss: " + "  ".join(f"{loss:.2f} (step {step})" for step, loss in shown))


def pack(reports: Sequence[Report]) -> None:
    """Rows of each split and how full they are."""
    rows: list[tuple[object, ...]] = []
    for report in reports:
        seq_length = report.ledger.config["seq_length"]
        for split, count in report.ledger.counts["splits"].items():
            used = count["tokens"] / max(1, count["rows"] * seq_length)
            name = report.ledger.dataset if split == "train" else f"  {split}"
            rows.append(
                (name, count["documents"], count["tokens"], count["rows"], f"{used:.2%}", count["cut_documents"])
            )
    console.table(("dataset", "documents", "tokens", "rows", "used", "cut"), rows)
    ledgers(reports)


def row(segments: Sequence[Segment], padding: int) -> None:
    """A packed row, segment by segment, each with its chain back to the record."""
    for number, segment in enumerate(segments):
        end = segment.start + segment.length
        console.write(f"--- segment {number}: tokens {segment.start:,} to {end:,} of the document")
        console.write(segment.text)
        origin(segment.origin)
        console.write(f"tokens: {'the same again' if segment.rebuilt else 'NOT the same again'}\n")
    console.write(f"{len(segments)} segments, {padding} slots of padding")


def origins(found: Sequence[Origin]) -> None:
    """Documents with their chain back to the record."""
    for entry in found:
        console.write(f"--- document, {entry.split}")
        console.write(entry.text)
        origin(entry)
        console.write()
    console.write(f"{len(found)} documents shown")


def origin(entry: Origin) -> None:
    """Where a document came from, and what was done to it."""
    console.write(f"document: {entry.id} ({entry.dataset})")
    console.write(f"source: raw/{entry.dataset}/{entry.container}, {entry.source_file}, offset {entry.source_offset:,}")
    console.write(f"record: {console.plain(entry.raw)}")
    again = "the same text again" if entry.rebuilt else "NOT the same text again"
    console.write(f"cleaned by: {', '.join(entry.rules) or 'nothing'}; {again}")


def dropped(found: Sequence[Dropped], reason: str) -> None:
    """Dropped records as they came."""
    for entry in found:
        console.write(
            f"--- {entry.dataset}, {entry.source_file}, offset {entry.source_offset:,}: {entry.reason}: {entry.detail}"
        )
        console.write(console.plain(entry.raw))
    console.write(f"{len(found)} records dropped for {reason} shown")


def state(report: Report) -> str:
    """Whether anything had to be done."""
    return "was finished" if report.skipped else f"{report.seconds:.1f} s"


def ledgers(reports: Sequence[Report]) -> None:
    """Notes of the stages, then where their ledgers lie."""
    for report in reports:
        for note in report.notes:
            console.write(f"note: {note}")
    for report in reports:
        console.write(f"ledger: {report.folder / 'ledger.json'}")
