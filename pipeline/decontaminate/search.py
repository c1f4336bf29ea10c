"""Searching document shards for passages of evaluation items."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate import eval_files, ngram_index
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.ngram_index import Hit, Index, Phrases
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import (
    document_ref,
    part_number,
    parts,
    read_part,
    reading_part,
)
from corpus.pipeline.storage.selection import Selection, select
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import (
    Ledger,
)

_SPAN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Shard:
    """What one worker looks through."""

    path: Path
    duplicates: np.ndarray
    """[documents] references of documents that dedup has left out, sorted."""


@dataclass(slots=True)
class Suspect:
    """A document that shares something with passages."""

    document: int
    id: str
    split: str
    characters: int
    prompt_length: int
    hits: list[tuple[Hit, str]]
    """What it shares, with the beginning of the longest span."""


@dataclass(slots=True)
class Found:
    """What was seen of a shard, or of a dataset."""

    documents: Counter[str] = field(default_factory=Counter)
    """Documents looked at, by split."""
    skipped: int = 0
    """Documents that dedup has left out."""
    suspects: list[Suspect] = field(default_factory=list)


@functools.lru_cache(maxsize=1)
def open_index(folder: Path, fields: Sequence[str], identity: str) -> tuple[Index, Mapping[str, int]]:  # noqa: ARG001  # part of the cache's key: other files give another index
    """The index of all evaluation files, and how many items each has."""
    found = eval_files.read_all(folder, fields)
    index = ngram_index.build(text for evaluation in found for text in evaluation.texts)
    return index, {evaluation.file: evaluation.items for evaluation in found}


def list_shards(workspace: Workspace, name: str, duplicates: Path | None) -> Iterator[Shard]:
    """The shards of a dataset, each with the documents that dedup has left out."""
    out = np.zeros(0, dtype=np.int64)
    if duplicates is not None:
        with reading_part(duplicates):
            table = pq.read_table(duplicates, columns=["document", "whole"])
        out = np.unique(table["document"].to_numpy()[table["whole"].to_numpy()])
    for path in parts(workspace.documents(name)):
        first, last = (document_ref(part_number(path) + more, 0) for more in (0, 1))
        yield Shard(path, out[(out >= first) & (out < last)])


def search_shard(shard: Shard, *, evaluations: Path, config: DecontaminateConfig, identity: str) -> Found:
    """Look through one documents shard; runs in a worker.

    Raises:
        DamageError: the shard cannot be read.

    """
    index, _ = open_index(evaluations, config.fields, identity)
    found, left_out = Found(), Selection(whole=shard.duplicates)
    for number, line, whole in read_part(shard.path, ["id", "text", "prompt_length", "split"]):
        lines, batch = select(whole, number, line, left_out)
        texts = batch["text"].to_pylist()
        found.skipped += len(whole) - len(batch)
        found.documents.update(batch["split"].to_pylist())
        for hit in ngram_index.search(index, texts, config.min_share):
            at, text = hit.document, texts[hit.document]
            document = int(document_ref(number, lines[at]))
            if not found.suspects or found.suspects[-1].document != document:
                name, length, split = (batch[key][at].as_py() for key in ("id", "prompt_length", "split"))
                found.suspects.append(Suspect(document, name, split, len(text), length, []))
            found.suspects[-1].hits.append((hit, text[hit.span[0] : hit.span[1]][:_SPAN_CHARACTERS]))
    return found


def search_all(
    search: partial[Found], shards: Mapping[str, list[Shard]], ledgers: Mapping[str, Ledger],
    config: DecontaminateConfig, phrases: Phrases, progress: Progress,
) -> tuple[dict[str, Found], int]:  # fmt: skip
    """What is found in each dataset, and how many hits were phrases of the language."""
    found = {name: Found() for name in ledgers}
    every = [(name, shard) for name in ledgers for shard in shards[name]]
    hits = 0
    progress.begin("decontaminate", sum(ledger.counts["documents"] for ledger in ledgers.values()), "documents")
    try:
        made = run_pieces(search, [shard for _, shard in every], workers=worker_count(config.workers, len(every)))
        for (name, _), part in zip(every, made, strict=True):
            found[name].documents += part.documents
            found[name].skipped += part.skipped
            hits += sum(len(suspect.hits) for suspect in part.suspects)
            found[name].suspects += _holding(part.suspects, phrases.add)
            progress.advance(part.documents.total() + part.skipped)
    finally:
        progress.end()
    for dataset in found.values():
        dataset.suspects = _holding(dataset.suspects, phrases.holds)
    return found, hits - sum(len(suspect.hits) for part in found.values() for suspect in part.suspects)


def _holding(suspects: Sequence[Suspect], holds: Callable[[Hit], bool]) -> list[Suspect]:
    """Suspects with the hits that hold, without those that have none left."""
    for suspect in suspects:
        suspect.hits = [(hit, span) for hit, span in suspect.hits if holds(hit)]
    return [suspect for suspect in suspects if suspect.hits]
