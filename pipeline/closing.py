"""What a command says when it is done: a short table and the path of each ledger. Called by `cli.py` only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.pipeline import console

if TYPE_CHECKING:
    from corpus.pipeline.inspect import Shown
    from corpus.pipeline.selection import Selection
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


def ingest(reports: Sequence[Report], left_out: Sequence[Selection], lists: Sequence[Report] = ()) -> None:
    """Records, documents, what was dropped, left out and masked, and why."""
    rows: list[tuple[object, ...]] = []
    for index, report in enumerate(reports):
        counts = report.ledger.counts
        out = left_out[index].documents.total() if left_out else 0
        characters = sum(counts["characters"].values())
        characters -= left_out[index].characters.total() if left_out else 0
        dropped, used = sum(counts["dropped"].values()), counts["documents"] - out
        rows.append((report.ledger.dataset, counts["records"], dropped, out, used, short(characters)))
    console.table(("dataset", "records", "dropped", "left out", "used", "characters"), rows)
    for index, report in enumerate(reports):
        name, counts = report.ledger.dataset, report.ledger.counts
        console.write(f"{name}: {state(report)}; dropped: {_listed(counts['dropped'])}")
        if left_out and left_out[index].reasons:
            console.write(f"{name}: left out: {_listed(left_out[index].reasons)}")
        if counts["masked"]:
            console.write(f"{name}: masked: {_listed(counts['masked'])}")
    ledgers([*reports, *lists])


def short(count: int) -> str:
    """A number as people say it.

    >>> short(1_234_567), short(950)
    ('1.2 M', '950')
    """
    for size, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return str(count)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "nothing"


def shown(entry: Shown) -> None:
    """A document, with what was done to it marked."""
    console.write(f"--- {entry.dataset} {entry.id}: {entry.state}: {entry.why}")
    console.marked(entry.pieces)


def dedup(report: Report) -> None:
    """Documents of each dataset that repeat others, and between which datasets."""
    counts = report.ledger.counts
    rows: list[tuple[object, ...]] = []
    for name, seen in counts["datasets"].items():
        documents, exact, near = (sum(seen[key].values()) for key in ("documents", "exact_duplicate", "near_duplicate"))
        rows.append((name, documents, exact, near, documents - exact - near))
    title = f"dedup: {counts['clusters']:,} groups, {state(report)}"
    console.table(("dataset", "documents", "exact", "nearly alike", "left"), rows, title=title)
    for name, kept in counts["pairs"].items():
        others = {other: count for other, count in kept.items() if other != name}
        if others:
            console.write(f"{name}: repeats documents of other datasets: {_listed(others)}")
    if counts["largest_clusters"]:
        console.write(f"largest groups: {', '.join(f'{size:,}' for size in counts['largest_clusters'][:5])} documents")
    ledgers([report])


def decontaminate(report: Report) -> None:
    """Documents of each dataset that hold evaluation items, and which sets were hit."""
    counts = report.ledger.counts
    rows: list[tuple[object, ...]] = []
    for name, seen in counts["datasets"].items():
        documents, contaminated = (sum(seen[key].values()) for key in ("documents", "contaminated"))
        rows.append((name, documents, contaminated, seen["spans"], documents - seen["whole"]))
    title = f"decontaminate: {counts['passages']:,} passages, {state(report)}"
    console.table(("dataset", "documents", "contaminated", "spans cut", "left"), rows, title=title)
    sets = [
        (name, each["items"], each["items_hit"], each["hits"], each["items_too_short"])
        for name, each in counts["evals"].items()
    ]
    console.table(("evaluation set", "items", "found", "hits", "too short"), sets)
    ledgers([report])


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
    """Rows of each split and how full they are; in the chat form also the tokens of answers, which alone are learnt."""
    chat = any("form" in report.ledger.config for report in reports)
    rows: list[tuple[object, ...]] = []
    for report in reports:
        seq_length = report.ledger.config["seq_length"]
        for split, count in report.ledger.counts["splits"].items():
            used = count["tokens"] / max(1, count["rows"] * seq_length)
            name = report.ledger.dataset if split == "train" else f"  {split}"
            tokens = (count["tokens"], count["answer_tokens"]) if chat else (count["tokens"],)
            rows.append((name, count["documents"], *tokens, count["rows"], f"{used:.2%}", count["cut_documents"]))
    columns = ("tokens", "answers") if chat else ("tokens",)
    console.table(("dataset", "documents", *columns, "rows", "used", "cut"), rows)
    for report in reports:
        rest = sum(count.get("without_prompt", 0) for count in report.ledger.counts["splits"].values())
        if rest:
            console.write(f"{report.ledger.dataset}: not used: {rest:,} documents without question and answer")
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
