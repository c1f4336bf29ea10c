"""Removal lists, hits and counts of the decontaminate stage."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate import matching
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.ngram_index import Index
from corpus.pipeline.decontaminate.search import SearchResult
from corpus.pipeline.storage import removal_lists
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger

REASON = "contaminated"
HITS = "hits.parquet"
HITS_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("dataset", pa.string()),
            ("document", pa.int64()),
            ("id", pa.string()),
            ("split", pa.string()),
            ("file", pa.string()),
            ("item", pa.int32()),
            ("field", pa.string()),
            ("items", pa.int32()),
            ("share", pa.float64()),
            ("span_start", pa.int32()),
            ("span_end", pa.int32()),
            ("span", pa.string()),
        )
    ]
)
"""Hits in order of dataset, document, file and item: `share` of the text of a field of an item, which is the first of
`items` in its file with that text; `span` is the longest shared span of the document."""
_DETAIL_CHARACTERS = 80


def removal_list(found: SearchResult, index: Index, config: DecontaminateConfig, ledger: Ledger) -> pa.Table:
    """What is removed from one dataset, in order of documents.

    A document is removed whole if less than half of it, or than the dataset's shortest document, would remain.
    """
    least, rows = ledger.config["min_length"], []
    for match in found.matches:
        spans, whole = [(0, match.characters)], True
        if config.cut and not match.prompt_length:
            shared = matching.merge_spans((span for hit, _ in match.hits for span in hit.spans), 1)
            left = match.characters - sum(end - start for start, end in shared)
            if left >= max(least, match.characters / 2):
                spans, whole = shared, False
        for start, end in spans:
            here = [hit for hit in match.hits if any(first < end and start < last for first, last in hit[0].spans)]
            best, span = max(here, key=lambda hit: (hit[0].longest, hit[0].share))
            owner = index.owners[best.passage][0]
            detail = f"{owner.file}:{owner.item}: {span[:_DETAIL_CHARACTERS]}".replace("\n", " ")
            rows.append({
                "document": match.document, "id": match.id, "split": match.split, "reason": REASON,
                "detail": detail, "start": start, "end": end, "whole": whole,
            })  # fmt: skip
    return pa.Table.from_pylist(rows, REMOVED_SCHEMA)


def hit_rows(found: Mapping[str, SearchResult], index: Index) -> Iterator[dict[str, Any]]:
    """Rows of `hits.parquet`: one for each document, text and evaluation file with that text."""
    for name, part in found.items():
        for match in part.matches:
            rows = [
                (owners[0], len({owner.item for owner in owners}), hit, span)
                for hit, span in match.hits
                for _, group in itertools.groupby(index.owners[hit.passage], key=lambda owner: owner.file)
                if (owners := list(group))
            ]
            for owner, items, hit, span in sorted(rows, key=lambda row: row[0]):
                yield {
                    "dataset": name, "document": match.document, "id": match.id, "split": match.split,
                    **owner._asdict(), "items": items, "share": hit.share, "span_start": hit.span[0],
                    "span_end": hit.span[1], "span": span,
                }  # fmt: skip


def write_lists(workspace: Workspace, lists: Mapping[str, pa.Table], hits: pa.Table) -> list[Path]:
    """Write the lists and the hits, and delete lists of datasets that were not searched. Returns the files."""
    folder = workspace.decontaminate
    removal_lists.delete_others(folder, list(lists), [HITS])
    with atomic(folder / HITS) as out:
        pq.write_table(hits, out, compression="zstd")
    written = [folder / HITS]
    for name, rows in lists.items():
        written += removal_lists.write(folder, name, removal_lists.by_shard(rows), workspace.digest)
    return written


def count_hits(
    found: Mapping[str, SearchResult],
    lists: Mapping[str, pa.Table],
    index: Index,
    items: Mapping[str, int],
    phrases: int,
) -> dict[str, Any]:
    """The counts of the ledger."""
    hits = [hit for part in found.values() for match in part.matches for hit, _ in match.hits]
    looked_for = {owner[:2] for owners in index.owners for owner in owners}
    hit_items = {owner[:2] for passage in {hit.passage for hit in hits} for owner in index.owners[passage]}
    files = Counter(file for hit in hits for file in {owner.file for owner in index.owners[hit.passage]})
    return {
        "datasets": {
            name: {
                "documents": dict(sorted(part.documents.items())),
                "contaminated": dict(sorted(Counter(match.split for match in part.matches).items())),
                "whole": lists[name].filter(lists[name]["whole"]).num_rows,
                "spans": lists[name].num_rows - lists[name].filter(lists[name]["whole"]).num_rows,
                "left_out_by_dedup": part.skipped,
            }
            for name, part in found.items()
        },
        "evals": {
            file: {
                "items": count,
                "items_hit": sum(owner[0] == file for owner in hit_items),
                "items_too_short": count - sum(owner[0] == file for owner in looked_for),
                "hits": files[file],
            }
            for file, count in items.items()
        },
        "passages": len(index.owners),
        "ngrams": len(index.grams),
        "ngrams_too_common": index.common_ngrams,
        "hits_too_common": phrases,
    }


def notes_on(counts: Mapping[str, Any]) -> tuple[str, ...]:
    """Remarks for the user."""
    notes = [
        f"{file}: {count['items_too_short']:,} of {count['items']:,} items are too short to search for"
        for file, count in counts["evals"].items()
        if count["items_too_short"]
    ]
    if common := counts["hits_too_common"]:
        many = f"more than {matching.MAX_PHRASE_DOCUMENTS} documents contain"
        notes.append(f"{common:,} hits do not count: they are common phrases, which {many}")
    return tuple(notes)
