"""Documents, rows and records as `corpus inspect` and `corpus trace` print them. Called by `cli.py` only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corpus.pipeline.humanize import record_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.inspect.examples import Example
    from corpus.pipeline.inspect.lineage import DocumentOrigin, Dropped, Segment


def shown(entry: Example) -> None:
    """A document, with what was done to it marked."""
    console.write(f"--- {entry.dataset} {entry.id}: {entry.state}: {entry.why}")
    console.marked(entry.pieces)


def row(segments: Sequence[Segment], padding: int) -> None:
    """A packed row, segment by segment, each with its chain back to the record."""
    for number, segment in enumerate(segments):
        end = segment.start + segment.length
        console.write(f"--- segment {number}: tokens {segment.start:,} to {end:,} of the document")
        console.write(segment.text)
        origin(segment.origin)
        console.write(f"tokens: {'the same again' if segment.rebuilt else 'NOT the same again'}\n")
    console.write(f"{len(segments)} segments, {padding} slots of padding")


def origins(found: Sequence[DocumentOrigin]) -> None:
    """Documents with their chain back to the record."""
    for entry in found:
        console.write(f"--- document, {entry.split}")
        console.write(entry.text)
        origin(entry)
        console.write()
    console.write(f"{len(found)} documents shown")


def origin(entry: DocumentOrigin) -> None:
    """Where a document came from, and what was done to it."""
    console.write(f"document: {entry.id} ({entry.dataset})")
    console.write(f"source: raw/{entry.dataset}/{entry.container}, {entry.source_file}, offset {entry.source_offset:,}")
    console.write(f"record: {record_text(entry.raw)}")
    again = "the same text again" if entry.rebuilt else "NOT the same text again"
    console.write(f"cleaned by: {', '.join(entry.rules) or 'nothing'}; {again}")


def dropped(found: Sequence[Dropped], reason: str) -> None:
    """Dropped records as they came."""
    for entry in found:
        console.write(
            f"--- {entry.dataset}, {entry.source_file}, offset {entry.source_offset:,}: {entry.reason}: {entry.detail}"
        )
        console.write(record_text(entry.raw))
    console.write(f"{len(found)} records dropped for {reason} shown")
