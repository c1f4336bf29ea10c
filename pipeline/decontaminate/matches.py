"""Documents with hits on disk, between the search of a documents shard and the filter of common phrases.

In: the documents of one shard that share text with items. Out: a file with a row for each hit.
Invariants: what is read is what was written, to the last bit of a share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate.matching import Hit
from corpus.pipeline.storage.document_shards import reading_part

FOLDER = "matches"
"""In the folder of the stage until it is finished."""
_SPANS = pa.list_(pa.int64())
_SCHEMA = pa.schema(
    [
        ("document", pa.int64()), ("id", pa.string()), ("split", pa.string()), ("characters", pa.int64()),
        ("prompt_length", pa.int64()), ("passage", pa.int64()), ("share", pa.float64()), ("longest", pa.int64()),
        ("shared", _SPANS), ("spans", _SPANS), ("span_start", pa.int64()), ("span_end", pa.int64()),
        ("text", pa.string()),
    ]
)  # fmt: skip


@dataclass(slots=True)
class MatchedDocument:
    """A document with hits."""

    document: int
    id: str
    split: str
    characters: int
    prompt_length: int
    hits: list[tuple[Hit, str]]
    """Each with the beginning of its longest span."""


def write(matches: Sequence[MatchedDocument], out: IO[bytes]) -> int:
    """Write the hits of a documents shard; returns how many they are."""
    rows = [
        {
            "document": match.document, "id": match.id, "split": match.split, "characters": match.characters,
            "prompt_length": match.prompt_length, "passage": hit.passage, "share": hit.share, "longest": hit.longest,
            "shared": [*chain(*hit.shared)], "spans": [*chain(*hit.spans)], "span_start": hit.span[0],
            "span_end": hit.span[1], "text": text,
        }
        for match in matches
        for hit, text in match.hits
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), out, compression="zstd")
    return len(rows)


def read(path: Path) -> Iterator[MatchedDocument]:
    """The documents of a file. Raises DamageError if it cannot be read."""
    with reading_part(path), pq.ParquetFile(path) as file:
        rows = file.read().to_pylist()
    for document, own in groupby(rows, lambda row: row["document"]):
        group = list(own)
        first = group[0]
        yield MatchedDocument(
            document, first["id"], first["split"], first["characters"], first["prompt_length"],
            [(_hit(row), row["text"]) for row in group],
        )  # fmt: skip


def _hit(row: dict[str, Any]) -> Hit:
    shared, spans = (tuple(zip(row[name][::2], row[name][1::2], strict=True)) for name in ("shared", "spans"))
    place = (row["span_start"], row["span_end"])
    return Hit(row["document"], row["passage"], row["share"], row["longest"], shared, spans, place)
