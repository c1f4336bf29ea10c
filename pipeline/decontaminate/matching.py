"""Matches between documents and passages of evaluation sets.

In: documents, and the `Index` of the passages.
Out: hits, one for each document and passage that share enough.
Invariants: candidates are found by hashes of n-grams, hits are verified character by character. A hit depends on the
document and the passages alone; `PhraseFilter` then drops hits on phrases that many documents contain.
Cost: for each character of a document folding, a hash and a bit lookup; more only where an n-gram is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.decontaminate.ngram_index import LINE_HEAD, MIN_SPAN_WEIGHT, NGRAM, WIDE, WIDE_WEIGHT, Index
from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import code_values, ngram_hashes
from corpus.pipeline.text.normalize import Folded, fold_all, table

MIN_SHARE = 0.5
"""Minimum share of a passage for a hit."""
LONG_SPAN_WEIGHT = 40 * WIDE_WEIGHT
"""A shared span of this weight is a hit, whatever its share of the passage."""
MAX_PHRASE_DOCUMENTS = 10
"""A part of a passage that more documents contain is a common phrase."""
BLOCK_CHARACTERS = 250_000
"""Smaller blocks cost more calls, larger ones do not stay in a cache."""


class Hit(NamedTuple):
    """The shared text of a document and a passage."""

    document: int
    passage: int
    share: float
    """Weight of the shared text, divided by that of the passage."""
    longest: int
    """Weight of the longest shared span."""
    shared: tuple[tuple[int, int], ...]
    """Shared spans as (start, end) in the index's codes."""
    spans: tuple[tuple[int, int], ...]
    """Shared spans as (start, end) in the document, in order; gaps shorter than an n-gram are included."""
    span: tuple[int, int]
    """The longest shared span, as (start, end) in the document."""


class EqualSpans(NamedTuple):
    """Spans that are equal in a document and a passage, [spans] int64 each."""

    at: np.ndarray
    """Start of each in the documents' codes."""
    place: np.ndarray
    """Start of each in the index's codes."""
    length: np.ndarray

    def take(self, which: np.ndarray) -> EqualSpans:
        """Some of the spans."""
        return EqualSpans(*(column[which] for column in self))


def find_hits(
    index: Index, documents: Sequence[str], min_share: float = MIN_SHARE, *, block_characters: int = BLOCK_CHARACTERS
) -> Iterator[Hit]:
    """The hits of documents, in order of documents and passages."""
    near = candidates(index, documents)
    for first, block in split_blocks([documents[number] for number in near], block_characters):
        folded = fold_all(block)
        spans, lines = find_spans(index, folded), find_lines(index, folded, block)
        if len(spans.at) or len(lines.at):
            both = EqualSpans(*map(np.concatenate, zip(spans, lines, strict=True)))
            for hit in _hits(index, folded, both, min_share):
                yield hit._replace(document=near[first + hit.document])


def candidates(index: Index, documents: Sequence[str]) -> Sequence[int]:
    """The documents that may have a span of the index, or a line that begins as one of its lines; all without kernels.

    Spans of the index are `MIN_SPAN_WEIGHT` or more of n-grams that follow each other in a document, of one passage or
    several, where at least one is indexed.
    """
    if kernels.compiled is None:
        return range(len(documents))
    found = kernels.compiled.with_spans(
        list(documents), table(), code_values(), index.bits, index.exponent, NGRAM, index.all_grams, index.is_indexed,
        LINE_HEAD, index.heads, (WIDE, WIDE_WEIGHT, MIN_SPAN_WEIGHT),
    )  # fmt: skip
    return np.flatnonzero(np.frombuffer(found, dtype=np.bool_)).tolist()


def split_blocks(documents: Sequence[str], block_characters: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Blocks of at least `block_characters`, except the last, each with the number of its first document."""
    first = characters = 0
    for number, document in enumerate(documents, 1):
        characters += len(document)
        if characters >= block_characters or number == len(documents):
            yield first, documents[first:number]
            first, characters = number, 0


def find_spans(index: Index, folded: Folded) -> EqualSpans:
    """The longest equal spans that contain an n-gram of the index and have at least `MIN_SPAN_WEIGHT`."""
    at, place = index.seeds(ngram_hashes(folded.codes, NGRAM))
    inside = at + NGRAM <= folded.starts[_document(folded, at) + 1]
    for step in range(NGRAM):
        inside[inside] &= folded.codes[at[inside] + step] == index.codes[place[inside] + step]
    at, place = at[inside], place[inside]
    order = np.lexsort((at, place - at))  # along the diagonals of documents against passages
    at, place = at[order], place[order]
    steps = np.arange(len(at))
    begins = np.flatnonzero(_changes(at - steps) | _changes(place - steps))
    at, place, length = at[begins], place[begins], np.diff(np.append(begins, len(at))) + NGRAM - 1
    # A common n-gram, which is not indexed, may continue a span.
    document, passage = _document(folded, at), index.passage(place)
    room = np.minimum(at - folded.starts[document], place - index.starts[passage])
    before = _equal_length(folded.codes, at - 1, index.codes, place - 1, room, -1)
    room = np.minimum(folded.starts[document + 1] - at, index.starts[passage + 1] - place) - length
    after = _equal_length(folded.codes, at + length, index.codes, place + length, room, 1)
    spans = EqualSpans(at - before, place - before, before + length + after)
    weight = index.weight(spans.place, spans.place + spans.length)
    return spans.take(np.flatnonzero((_changes(spans.at) | _changes(spans.place)) & (weight >= MIN_SPAN_WEIGHT)))


def _document(folded: Folded, at: np.ndarray) -> np.ndarray:
    """The documents of places in the folded codes."""
    return np.searchsorted(folded.starts, at, side="right") - 1


def _changes(values: np.ndarray) -> np.ndarray:
    """[values] bool: whether a value differs from the one before; true for the first."""
    changed = np.ones(len(values), dtype=np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _equal_length(
    one: np.ndarray, at: np.ndarray, other: np.ndarray, place: np.ndarray, room: np.ndarray, step: int
) -> np.ndarray:
    """[places] number of equal codes from two places on, in direction `step`, at most `room`."""
    reach = np.zeros(len(at), dtype=np.int64)
    live = np.flatnonzero(room > 0)
    while len(live):
        far = step * reach[live]
        live = live[one[at[live] + far] == other[place[live] + far]]
        reach[live] += 1
        live = live[reach[live] < room[live]]
    return reach


def find_lines(index: Index, folded: Folded, documents: Sequence[str]) -> EqualSpans:
    """Passages that count only as whole lines, where they equal one or more folded lines of a document."""
    found: list[tuple[int, int, int]] = []
    if index.lines:
        edges = _edges(folded, documents)
        begins = edges[edges + LINE_HEAD <= len(folded.codes)]
        heads = ngram_hashes(folded.codes[begins[:, None] + np.arange(LINE_HEAD)].ravel(), LINE_HEAD)[::LINE_HEAD]
        near = np.minimum(np.searchsorted(index.heads, heads), len(index.heads) - 1)
        same = index.heads[near] == heads
        for at, head in zip(begins[same].tolist(), heads[same].tolist(), strict=True):
            for passage in index.lines[head]:
                start, end = index.starts[passage : passage + 2].tolist()
                last = at + end - start
                alone = edges[np.searchsorted(edges, last) % len(edges)] == last
                if alone and np.array_equal(folded.codes[at:last], index.codes[start:end]):
                    found.append((at, start, end - start))
    spans = EqualSpans(*np.array(found, dtype=np.int64).reshape(-1, 3).T)
    within = _document(folded, spans.at) == _document(folded, spans.at + spans.length - 1)
    return spans.take(np.flatnonzero(within))


def _edges(folded: Folded, documents: Sequence[str]) -> np.ndarray:
    """[lines + 1] int64: where lines begin and end in the folded codes."""
    points = codes_of("".join(documents))
    sizes = np.array([len(document) for document in documents])
    positions = folded.positions + np.repeat(np.cumsum(sizes) - sizes, np.diff(folded.starts))
    ends = np.searchsorted(positions, np.flatnonzero(points == ord("\n")))
    edges = np.sort(np.concatenate([ends, folded.starts]))
    return edges[np.diff(edges, prepend=-1) > 0]


def _hits(index: Index, folded: Folded, spans: EqualSpans, min_share: float) -> Iterator[Hit]:
    """The hits among pairs of document and passage with equal spans."""
    document, passage = _document(folded, spans.at), index.passage(spans.place)
    order = np.lexsort((spans.place, passage, document))
    spans, document, passage = spans.take(order), document[order], passage[order]
    pairs = _changes(document) | _changes(passage)
    begins = np.flatnonzero(pairs)
    document, passage = document[begins], passage[begins]
    weight = index.weight(spans.place, spans.place + spans.length)
    longest = np.maximum.reduceat(weight, begins)
    total = index.weight(index.starts[passage], index.starts[passage + 1])
    share = np.add.reduceat(_new_weight(index, spans, np.cumsum(pairs)), begins) / total
    ends = np.append(begins[1:], len(spans.at))
    for pair in np.flatnonzero((share >= min_share) | (longest >= LONG_SPAN_WEIGHT)).tolist():
        own = slice(begins[pair], ends[pair])
        at, place, length = spans.at[own], spans.place[own], spans.length[own]
        here, there = (zip(begin.tolist(), (begin + length).tolist(), strict=True) for begin in (at, place))
        best = int(weight[own].argmax())
        yield Hit(
            int(document[pair]), int(passage[pair]), float(share[pair]), int(longest[pair]),
            tuple(merge_spans(there, 1)),
            tuple(_characters_of(folded, start, end) for start, end in merge_spans(here, NGRAM)),
            _characters_of(folded, int(at[best]), int(at[best] + length[best])),
        )  # fmt: skip


def _new_weight(index: Index, spans: EqualSpans, pair: np.ndarray) -> np.ndarray:
    """[spans] weight of the part of each span that no earlier span of its pair covers; sorted by pair and place."""
    ends = spans.place + spans.length
    apart = pair * (len(index.codes) + 1)  # restarts the running maximum at each pair
    reached = np.zeros(len(ends), dtype=np.int64)
    reached[1:] = np.maximum.accumulate(ends + apart)[:-1] - apart[1:]
    return index.weight(np.clip(reached, spans.place, ends), ends)


def merge_spans(spans: Iterable[tuple[int, int]], near: int) -> list[tuple[int, int]]:
    """Spans in order; those that overlap or whose gap is less than `near` are merged."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] < near:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _characters_of(folded: Folded, start: int, end: int) -> tuple[int, int]:
    """The (start, end) in a document of folded codes."""
    return int(folded.positions[start]), int(folded.positions[end - 1]) + 1


class PhraseFilter:
    """Drops hits on common phrases: parts of a passage that more than `MAX_PHRASE_DOCUMENTS` documents contain.

    A long span with most of a passage always counts. Counts of documents only grow, so a hit that `add` refuses can be
    forgotten at once, which bounds the number of other hits of a passage to a few times `MAX_PHRASE_DOCUMENTS`.
    """

    def __init__(self, index: Index, min_share: float = MIN_SHARE) -> None:
        self._index = index
        self._min_share = min_share
        self._documents = np.zeros(len(index.codes), dtype=np.int64)

    def add(self, hit: Hit) -> bool:
        """Count a hit; returns whether it may still count."""
        for start, end in hit.shared:
            self._documents[start:end] += 1
        return self.holds(hit)

    def holds(self, hit: Hit) -> bool:
        """Whether the shared text is enough without common phrases."""
        if hit.longest >= LONG_SPAN_WEIGHT and hit.share >= self._min_share:
            return True
        index, rare = self._index, 0
        for start, end in hit.shared:
            few = self._documents[start:end] <= MAX_PHRASE_DOCUMENTS
            rare += int(np.diff(index.weights[start : end + 1])[few].sum())
        enough = self._min_share * float(index.weight(*index.starts[hit.passage : hit.passage + 2]))
        return rare >= (min(enough, LONG_SPAN_WEIGHT) if hit.longest >= LONG_SPAN_WEIGHT else enough)
