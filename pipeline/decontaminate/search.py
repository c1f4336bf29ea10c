"""Search documents shards for passages of evaluation items.

In: a documents shard, what dedup leaves out of it, and the evaluation files. Out: a file of its documents with hits,
where there are any, and a receipt with the number of documents; and these of all shards, less common phrases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from corpus.pipeline.decontaminate import eval_files, matches, matching, ngram_index
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.decontaminate.eval_files import Evaluation
from corpus.pipeline.decontaminate.matches import MatchedDocument
from corpus.pipeline.decontaminate.matching import Hit, PhraseFilter
from corpus.pipeline.decontaminate.ngram_index import Index
from corpus.pipeline.errors import BooksError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import document_ref, part_number, parts, read_part, split_ref
from corpus.pipeline.storage.selection import Selection, ShardSelection, select
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt

_SPAN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class SearchShard:
    """A piece of the stage."""

    dataset: str
    path: Path
    duplicates: Selection
    """What dedup leaves out of it."""

    @property
    def piece(self) -> str:
        """Its name in its receipt."""
        return f"{self.dataset}-{self.path.stem}"


@dataclass(slots=True)
class SearchResult:
    """The result for a dataset."""

    documents: Counter[str] = field(default_factory=Counter)
    """Number of documents searched, by split."""
    skipped: int = 0
    """Number of documents that dedup removed."""
    matches: list[MatchedDocument] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    """Number of documents of each shard, by its number."""


@lru_cache(maxsize=1)
def open_index(folder: Path, fields: Sequence[str], identity: str) -> tuple[Index, Sequence[Evaluation]]:  # noqa: ARG001  # part of the cache key: other files give another index
    """The index of all evaluation files, and these without their texts."""
    found = eval_files.read_all(folder, fields)
    index = ngram_index.build_index(text for evaluation in found for text in evaluation.texts)
    return index, [replace(evaluation, texts=()) for evaluation in found]


def list_shards(workspace: Workspace, duplicates: Mapping[str, Selection]) -> dict[str, SearchShard]:
    """The shards of datasets by the names of their pieces, each with what dedup leaves out of it."""
    shards = (
        SearchShard(name, path, duplicates[name].of([path]))
        for name in duplicates
        for path in parts(workspace.documents(name))
    )
    return {shard.piece: shard for shard in shards}


def search_shard(
    shard: SearchShard, *, folder: Path, evaluations: Path, config: DecontaminateConfig, identity: str
) -> Receipt:
    """Search one documents shard; runs in a worker.

    Raises:
        DamageError: it cannot be read.

    """
    files = PieceWriter(folder, identity, shard.piece)
    documents, skipped, found = _matches(shard, open_index(evaluations, config.fields, identity)[0], config.min_share)
    if found:
        with files.output(f"{matches.FOLDER}/{shard.dataset}/{shard.path.name}") as out:
            out.groups.append(matches.write(found, out))
    return files.finish({"documents": documents, "skipped": skipped})


def _matches(shard: SearchShard, index: Index, min_share: float) -> tuple[Counter[str], int, list[MatchedDocument]]:
    """The documents searched, by split, the number of those that dedup removed, and the documents with hits."""
    documents, skipped, matched = Counter[str](), 0, list[MatchedDocument]()
    left_out = ShardSelection(shard.duplicates.shard(part_number(shard.path)).lines)  # what dedup cuts is searched, too
    for number, line, whole in read_part(shard.path, ["id", "text", "prompt_length", "split"]):
        lines, batch = select(whole, line, left_out)
        texts = batch["text"].to_pylist()
        skipped += len(whole) - len(batch)
        documents.update(batch["split"].to_pylist())
        for hit in matching.find_hits(index, texts, min_share):
            at, text = hit.document, texts[hit.document]
            document = int(document_ref(number, lines[at]))
            if not matched or matched[-1].document != document:
                name, length, split = (batch[key][at].as_py() for key in ("id", "prompt_length", "split"))
                matched.append(MatchedDocument(document, name, split, len(text), length, []))
            matched[-1].hits.append((hit, text[hit.span[0] : hit.span[1]][:_SPAN_CHARACTERS]))
    return documents, skipped, matched


def collect(
    shards: Iterable[SearchShard], made: Iterable[Receipt], folder: Path, ledgers: Mapping[str, Ledger],
    phrases: PhraseFilter, progress: Progress,
) -> tuple[dict[str, SearchResult], int]:  # fmt: skip
    """The result for each dataset, from the receipts of its shards, and how many hits were common phrases."""
    found = {name: SearchResult() for name in ledgers}
    hits = 0
    with progress.bar("decontaminate", sum(ledger.counts["documents"] for ledger in ledgers.values()), "documents"):
        for shard, receipt in zip(shards, made, strict=True):
            own, documents = found[shard.dataset], Counter[str](receipt.counts["documents"])
            size = documents.total() + receipt.counts["skipped"]
            own.documents += documents
            own.skipped += receipt.counts["skipped"]
            own.sizes[part_number(shard.path)] = size
            part = [match for output in receipt.outputs for match in matches.read(folder / output.path)]
            hits += sum(len(match.hits) for match in part)
            own.matches += _filter_hits(part, phrases.add)
            progress.advance(size)
    for dataset in found.values():
        dataset.matches = _filter_hits(dataset.matches, phrases.holds)
    return found, hits - sum(len(match.hits) for part in found.values() for match in part.matches)


def _filter_hits(matched: Sequence[MatchedDocument], holds: Callable[[Hit], bool]) -> list[MatchedDocument]:
    """Drop hits for which `holds` is false, and documents without hits."""
    for match in matched:
        match.hits = [(hit, span) for hit, span in match.hits if holds(hit)]
    return [match for match in matched if match.hits]


def check_books(ledgers: Mapping[str, Ledger], found: Mapping[str, SearchResult]) -> None:
    """Raise BooksError unless every document was searched or skipped, and every match is one of them, in order."""
    for name, part in found.items():
        seen, there = part.documents.total() + part.skipped, ledgers[name].counts["documents"]
        if seen != there:
            raise BooksError(f"{name}: {there:,} documents, {seen:,} of them searched or left out by dedup")
        references = [match.document for match in part.matches]
        known = all(line < part.sizes.get(shard, 0) for shard, line in map(split_ref, references))
        if not known or references != sorted({*references}):
            raise BooksError(f"{name}: a hit refers to no document, or hits are out of order")
