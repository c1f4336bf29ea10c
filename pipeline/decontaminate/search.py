"""Search documents shards for passages of evaluation items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from corpus.pipeline.decontaminate import eval_files, matching, ngram_index
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.eval_files import Evaluation
from corpus.pipeline.decontaminate.matching import Hit, PhraseFilter
from corpus.pipeline.decontaminate.ngram_index import Index
from corpus.pipeline.errors import BooksError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import (
    document_count,
    document_ref,
    part_number,
    parts,
    read_part,
    split_ref,
)
from corpus.pipeline.storage.selection import Selection, ShardSelection, select
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger

_SPAN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class SearchShard:
    """The work of one worker process."""

    path: Path
    duplicates: Selection
    """What dedup leaves out of it."""


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


@dataclass(slots=True)
class SearchResult:
    """The result for a shard or a dataset."""

    documents: Counter[str] = field(default_factory=Counter)
    """Number of documents searched, by split."""
    skipped: int = 0
    """Number of documents that dedup removed."""
    matches: list[MatchedDocument] = field(default_factory=list)


@lru_cache(maxsize=1)
def open_index(folder: Path, fields: Sequence[str], identity: str) -> tuple[Index, Sequence[Evaluation]]:  # noqa: ARG001  # part of the cache key: other files give another index
    """The index of all evaluation files, and these without their texts."""
    found = eval_files.read_all(folder, fields)
    index = ngram_index.build_index(text for evaluation in found for text in evaluation.texts)
    return index, [replace(evaluation, texts=()) for evaluation in found]


def list_shards(workspace: Workspace, name: str, duplicates: Selection) -> Iterator[SearchShard]:
    """The shards of a dataset, each with what dedup leaves out of it."""
    for path in parts(workspace.documents(name)):
        yield SearchShard(path, duplicates.of([path]))


def search_shard(shard: SearchShard, *, evaluations: Path, config: DecontaminateConfig, identity: str) -> SearchResult:
    """Search one documents shard; runs in a worker. Raises DamageError if it cannot be read."""
    index, _ = open_index(evaluations, config.fields, identity)
    found = SearchResult()
    left_out = ShardSelection(shard.duplicates.shard(part_number(shard.path)).lines)  # what dedup cuts is searched, too
    for number, line, whole in read_part(shard.path, ["id", "text", "prompt_length", "split"]):
        lines, batch = select(whole, line, left_out)
        texts = batch["text"].to_pylist()
        found.skipped += len(whole) - len(batch)
        found.documents.update(batch["split"].to_pylist())
        for hit in matching.find_hits(index, texts, config.min_share):
            at, text = hit.document, texts[hit.document]
            document = int(document_ref(number, lines[at]))
            if not found.matches or found.matches[-1].document != document:
                name, length, split = (batch[key][at].as_py() for key in ("id", "prompt_length", "split"))
                found.matches.append(MatchedDocument(document, name, split, len(text), length, []))
            found.matches[-1].hits.append((hit, text[hit.span[0] : hit.span[1]][:_SPAN_CHARACTERS]))
    return found


def search_all(
    search: partial[SearchResult], shards: Mapping[str, list[SearchShard]], ledgers: Mapping[str, Ledger],
    config: DecontaminateConfig, phrases: PhraseFilter, progress: Progress,
) -> tuple[dict[str, SearchResult], int]:  # fmt: skip
    """The result for each dataset, and the number of hits dropped as common phrases."""
    found = {name: SearchResult() for name in ledgers}
    every = [(name, shard) for name in ledgers for shard in shards[name]]
    hits = 0
    with progress.bar("decontaminate", sum(ledger.counts["documents"] for ledger in ledgers.values()), "documents"):
        made = run_pieces(search, [shard for _, shard in every], workers=worker_count(config.workers, len(every)))
        for (name, _), part in zip(every, made, strict=True):
            found[name].documents += part.documents
            found[name].skipped += part.skipped
            hits += sum(len(match.hits) for match in part.matches)
            found[name].matches += _filter_hits(part.matches, phrases.add)
            progress.advance(part.documents.total() + part.skipped)
    for dataset in found.values():
        dataset.matches = _filter_hits(dataset.matches, phrases.holds)
    return found, hits - sum(len(match.hits) for part in found.values() for match in part.matches)


def _filter_hits(matches: Sequence[MatchedDocument], holds: Callable[[Hit], bool]) -> list[MatchedDocument]:
    """Drop hits for which `holds` is false, and documents without hits."""
    for match in matches:
        match.hits = [(hit, span) for hit, span in match.hits if holds(hit)]
    return [match for match in matches if match.hits]


def check_books(
    shards: Mapping[str, list[SearchShard]], ledgers: Mapping[str, Ledger], found: Mapping[str, SearchResult]
) -> None:
    """Raise BooksError unless every document was searched or skipped, and every match is one of them, in order."""
    for name, part in found.items():
        seen, there = part.documents.total() + part.skipped, ledgers[name].counts["documents"]
        if seen != there:
            raise BooksError(f"{name}: {there:,} documents, {seen:,} of them searched or left out by dedup")
        sizes = {part_number(shard.path): document_count(shard.path) for shard in shards[name]}
        references = [match.document for match in part.matches]
        known = all(line < sizes.get(shard, 0) for shard, line in map(split_ref, references))
        if not known or references != sorted({*references}):
            raise BooksError(f"{name}: a hit refers to no document, or hits are out of order")
