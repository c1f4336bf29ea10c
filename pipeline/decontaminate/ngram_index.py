"""Contamination: which documents hold texts of evaluation sets.

In: texts of evaluation items with where they stand, and documents. Out: hits, one for each document and passage that
share enough; a passage is a text of the evaluation sets, equal ones once.
Invariants: texts are compared folded (`corpus.pipeline.text`); hits are found by n-grams and made of equal characters,
never of equal hashes; a hit depends on the document and the passages alone, but for what `Phrases` says of all
documents together.
Cost: of a document folding, a hash and a bit for each character, the rest only where an n-gram is shared; of the
evaluation sets about 36 bytes of memory and a microsecond a character.
Sources: n-grams of 13, and none of more than ten documents ("common cultural phrases, legal boilerplate, or similar
content"), as Brown et al. (2020), appendix C, but of characters instead of words. What is shared is weighed: four
letters or digits weigh as much as a Chinese character, so that 13 Chinese characters stand against about the 13 English
words of the source, and the commands of a formula hardly count as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.text.ngrams import inner, ngram_hashes
from corpus.pipeline.text.normalize import Folded, fold_all

GRAM = 13
"""Characters of an n-gram."""
HEAD = 8
"""Characters by whose hash whole lines are found; no passage has fewer."""
UNIT = 4
"""Weight of a Chinese character, of kana and of Hangul; anything else weighs 1."""
LEAST = 13 * UNIT
"""A shared span that weighs less is chance; a passage that weighs less counts only as a whole line."""
LEAST_LINE = HEAD * UNIT
"""A text that weighs less is not looked for."""
PHRASE_PASSAGES = 10
"""N-grams of more passages than these are the set's own phrases, and find nothing by themselves."""
PHRASE_PLACES = 64
"""So are n-grams that stand more often than this in whatever passages: what repeats itself finds itself endlessly."""
MIN_SHARE = 0.5
"""Least share of a passage that is a hit."""
LONG = 40 * UNIT
"""A shared span of this weight is a hit whatever its share of the passage."""
PHRASE_DOCUMENTS = 10
"""What more documents share with a passage is a phrase of the language."""
_BITS_PER_GRAM = 16  # a bit in 16 is set in each of two rows, so a character in 256 is looked up for nothing
_OTHER = np.uint64(0xBF58476D1CE4E5B9)  # a factor that brings the lower bits of a hash to the front
_WIDE = 0x2E80  # from the CJK radicals on
_BLOCK_CHARACTERS = 250_000  # fewer cost more calls, more do not stay in a cache


class Owner(NamedTuple):
    """Where a text stands in the evaluation sets."""

    file: str
    item: int
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    """Passages and their n-grams."""

    owners: Sequence[Sequence[Owner]]
    """[passages] where each stands, in order."""
    codes: np.ndarray
    """[characters] uint32: all passages folded, one after another."""
    starts: np.ndarray
    """[passages + 1] int64: where each begins in `codes`."""
    weights: np.ndarray
    """[characters + 1] int64: weight of all characters before each."""
    grams: np.ndarray
    """[n-grams] uint64: hashes, sorted, each once."""
    offsets: np.ndarray
    """[n-grams + 1] int64: where the places of each begin in `places`."""
    places: np.ndarray
    """[places] int64: where n-grams stand in `codes`."""
    bits: np.ndarray
    """[2, 2**k / 8] uint8: a bit for each value of k bits of a hash, set where an n-gram has it (Bloom, 1970)."""
    heads: np.ndarray
    """[heads] uint64: hashes of the first `HEAD` codes of the passages that count only as whole lines, sorted."""
    lines: Mapping[int, Sequence[int]]
    """Those passages by the hash of their head."""
    phrases: int
    """N-grams left out because they are phrases."""

    def weight(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Weight of spans of `codes`."""
        return np.asarray(self.weights[end] - self.weights[start])

    def passage(self, place: np.ndarray) -> np.ndarray:
        """Which passages hold these places in `codes`."""
        return np.searchsorted(self.starts, place, side="right") - 1

    def seeds(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where n-grams of a text stand in the passages, as far as hashes tell.

        Args:
            hashes: [places] uint64, of the n-grams of a text.

        Returns:
            [seeds] places in the text and [seeds] places in `codes`; an n-gram that stands twice gives two.

        """
        at = np.flatnonzero(_chosen(self.bits[0], hashes))
        at = at[_chosen(self.bits[1], hashes[at] * _OTHER)]
        if len(at) == 0:
            return at, at
        gram = np.minimum(np.searchsorted(self.grams, hashes[at]), len(self.grams) - 1)
        found = self.grams[gram] == hashes[at]
        at, gram = at[found], gram[found]
        counts = self.offsets[gram + 1] - self.offsets[gram]
        first = self.offsets[gram] - (np.cumsum(counts) - counts)
        return np.repeat(at, counts), self.places[np.arange(counts.sum()) + np.repeat(first, counts)]


def build(texts: Iterable[tuple[Owner, str]]) -> Index:
    """Index the texts of evaluation sets; those too short to look for are left out."""
    named = list(texts)
    folded = fold_all([text for _, text in named])
    known: dict[bytes, list[Owner]] = {}
    for number, (owner, _) in enumerate(named):
        codes = folded.codes[folded.starts[number] : folded.starts[number + 1]]
        if _weights(codes)[-1] >= LEAST_LINE:
            known.setdefault(codes.tobytes(), []).append(owner)
    codes = np.frombuffer(b"".join(known), dtype=np.uint32)
    starts = np.zeros(len(known) + 1, dtype=np.int64)
    np.cumsum([len(key) // 4 for key in known], out=starts[1:])
    weights = _weights(codes)
    heavy = np.diff(weights[starts]) >= LEAST
    lines: dict[int, list[int]] = {}
    for passage in np.flatnonzero(~heavy).tolist():
        head = ngram_hashes(codes[starts[passage] : starts[passage] + HEAD], HEAD)
        lines.setdefault(int(head[0]), []).append(passage)
    grams, offsets, places, phrases = _grams(codes, starts, heavy)
    return Index(
        owners=[sorted(owners) for owners in known.values()], codes=codes, starts=starts, weights=weights,
        grams=grams, offsets=offsets, places=places, bits=_bits(grams),
        heads=np.sort(np.array([*lines], dtype=np.uint64)), lines=lines, phrases=phrases,
    )  # fmt: skip


def can_be_found(text: str) -> bool:
    """Whether a text is long enough to look for."""
    return bool(_weights(fold_all([text]).codes)[-1] >= LEAST_LINE)


def _weights(codes: np.ndarray) -> np.ndarray:
    """[codes + 1] int64: weight of all codes before each."""
    weights = np.zeros(len(codes) + 1, dtype=np.int64)
    np.cumsum(np.where(codes >= _WIDE, UNIT, 1), out=weights[1:])
    return weights


def _grams(codes: np.ndarray, starts: np.ndarray, heavy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Hashes, offsets and places of the n-grams of the heavy passages, and how many were left out as phrases."""
    places = np.flatnonzero(inner(starts, GRAM, len(codes)))
    passages = np.searchsorted(starts, places, side="right") - 1
    places, passages = places[heavy[passages]], passages[heavy[passages]]
    hashes = ngram_hashes(codes, GRAM)[places]
    order = np.argsort(hashes, kind="stable")
    grams, first, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    places, passages = places[order], passages[order]
    fresh = np.ones(len(places), dtype=np.int64)  # the places of an n-gram are in order, so are their passages
    fresh[1:] = passages[1:] != passages[:-1]
    fresh[first] = 1
    within = np.concatenate([[0], np.cumsum(fresh)])
    kept = (within[first + counts] - within[first] <= PHRASE_PASSAGES) & (counts <= PHRASE_PLACES)
    offsets = np.zeros(int(kept.sum()) + 1, dtype=np.int64)
    np.cumsum(counts[kept], out=offsets[1:])
    return grams[kept], offsets, places[np.repeat(kept, counts)], int((~kept).sum())


def _bits(grams: np.ndarray) -> np.ndarray:
    exponent = max(16, (len(grams) * _BITS_PER_GRAM - 1).bit_length())
    bits = np.zeros((2, 1 << exponent), dtype=np.bool_)
    for row, hashes in zip(bits, (grams, grams * _OTHER), strict=True):
        row[hashes >> np.uint64(64 - exponent)] = True
    return np.packbits(bits, axis=1, bitorder="little")


def _chosen(bits: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """[hashes] bool: whether the bit of each is set; `take` of signed numbers is what numpy does fastest."""
    slots = (hashes >> np.uint64(64 - (len(bits) * 8 - 1).bit_length())).view(np.int64)
    return np.asarray(bits.take(slots >> 3) >> (slots & 7).astype(np.uint8) & 1, dtype=np.bool_)


class Hit(NamedTuple):
    """What a document shares with a passage."""

    document: int
    """Which of the documents."""
    passage: int
    share: float
    """Weight of what is shared, of that of the passage."""
    longest: int
    """Weight of the longest shared span."""
    shared: tuple[tuple[int, int], ...]
    """What is shared, as (start, end) in the index's codes."""
    spans: tuple[tuple[int, int], ...]
    """What is shared, as (start, end) in the document, in order; spans nearer than an n-gram are one."""
    span: tuple[int, int]
    """The longest shared span, as (start, end) in the document."""


class _Runs(NamedTuple):
    """Spans that are equal in a document and a passage, [runs] int64 each."""

    at: np.ndarray
    """Where each begins in the documents' codes."""
    place: np.ndarray
    """Where each begins in the index's codes."""
    length: np.ndarray

    def take(self, which: np.ndarray) -> _Runs:
        return _Runs(*(column[which] for column in self))


def search(index: Index, documents: Sequence[str], min_share: float = MIN_SHARE) -> Iterator[Hit]:
    """What documents share with passages, in order of documents and passages."""
    for first, block in _blocks(documents):
        folded = fold_all(block)
        spans, lines = _spans(index, folded), _lines(index, folded, block)
        if len(spans.at) or len(lines.at):
            runs = _Runs(*map(np.concatenate, zip(spans, lines, strict=True)))
            for hit in _hits(index, folded, runs, min_share):
                yield hit._replace(document=first + hit.document)


def _blocks(documents: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Documents of about `_BLOCK_CHARACTERS` together, with the number of the first."""
    first = characters = 0
    for number, document in enumerate(documents, 1):
        characters += len(document)
        if characters >= _BLOCK_CHARACTERS or number == len(documents):
            yield first, documents[first:number]
            first, characters = number, 0


def _spans(index: Index, folded: Folded) -> _Runs:
    """The longest equal spans that hold an n-gram of the index and weigh enough."""
    at, place = index.seeds(ngram_hashes(folded.codes, GRAM))
    inside = at + GRAM <= folded.starts[_document(folded, at) + 1]
    for step in range(GRAM):
        inside[inside] &= folded.codes[at[inside] + step] == index.codes[place[inside] + step]
    at, place = at[inside], place[inside]
    order = np.lexsort((at, place - at))  # along the diagonals of documents against passages
    at, place = at[order], place[order]
    steps = np.arange(len(at))
    begins = np.flatnonzero(_changes(at - steps) | _changes(place - steps))
    at, place, length = at[begins], place[begins], np.diff(np.append(begins, len(at))) + GRAM - 1
    # Where an n-gram is missing from the index because it is a phrase, the span goes on.
    document, passage = _document(folded, at), index.passage(place)
    room = np.minimum(at - folded.starts[document], place - index.starts[passage])
    before = _reach(folded.codes, at - 1, index.codes, place - 1, room, -1)
    room = np.minimum(folded.starts[document + 1] - at, index.starts[passage + 1] - place) - length
    after = _reach(folded.codes, at + length, index.codes, place + length, room, 1)
    runs = _Runs(at - before, place - before, before + length + after)
    weight = index.weight(runs.place, runs.place + runs.length)
    return runs.take(np.flatnonzero((_changes(runs.at) | _changes(runs.place)) & (weight >= LEAST)))


def _document(folded: Folded, at: np.ndarray) -> np.ndarray:
    """Which documents hold these places."""
    return np.searchsorted(folded.starts, at, side="right") - 1


def _changes(values: np.ndarray) -> np.ndarray:
    """[values] bool: where a value is not that before it."""
    changed = np.ones(len(values), dtype=np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _reach(
    one: np.ndarray, at: np.ndarray, other: np.ndarray, place: np.ndarray, room: np.ndarray, step: int
) -> np.ndarray:
    """[places] how many codes are equal from two places on, in steps of `step`, at most `room`."""
    reach = np.zeros(len(at), dtype=np.int64)
    live = np.flatnonzero(room > 0)
    while len(live):
        far = step * reach[live]
        live = live[one[at[live] + far] == other[place[live] + far]]
        reach[live] += 1
        live = live[reach[live] < room[live]]
    return reach


def _lines(index: Index, folded: Folded, documents: Sequence[str]) -> _Runs:
    """The passages that count only as whole lines, where one or more lines of a document are, folded, just that."""
    found: list[tuple[int, int, int]] = []
    if index.lines:
        edges = _edges(folded, documents)
        begins = edges[edges + HEAD <= len(folded.codes)]
        heads = ngram_hashes(folded.codes[begins[:, None] + np.arange(HEAD)].ravel(), HEAD)[::HEAD]
        near = np.minimum(np.searchsorted(index.heads, heads), len(index.heads) - 1)
        same = index.heads[near] == heads
        for at, head in zip(begins[same].tolist(), heads[same].tolist(), strict=True):
            for passage in index.lines[head]:
                start, end = index.starts[passage : passage + 2].tolist()
                last = at + end - start
                alone = edges[np.searchsorted(edges, last) % len(edges)] == last
                if alone and np.array_equal(folded.codes[at:last], index.codes[start:end]):
                    found.append((at, start, end - start))
    runs = _Runs(*np.array(found, dtype=np.int64).reshape(-1, 3).T)
    within = _document(folded, runs.at) == _document(folded, runs.at + runs.length - 1)
    return runs.take(np.flatnonzero(within))


def _edges(folded: Folded, documents: Sequence[str]) -> np.ndarray:
    """[lines + 1] int64: where lines begin in the folded codes."""
    points = codes_of("".join(documents))
    sizes = np.array([len(document) for document in documents])
    stand = folded.positions + np.repeat(np.cumsum(sizes) - sizes, np.diff(folded.starts))
    ends = np.searchsorted(stand, np.flatnonzero(points == ord("\n")))
    edges = np.sort(np.concatenate([ends, folded.starts]))
    return edges[np.diff(edges, prepend=-1) > 0]


def _hits(index: Index, folded: Folded, runs: _Runs, min_share: float) -> Iterator[Hit]:
    """The pairs of document and passage that share enough."""
    document, passage = _document(folded, runs.at), index.passage(runs.place)
    order = np.lexsort((runs.place, passage, document))
    runs, document, passage = runs.take(order), document[order], passage[order]
    pairs = _changes(document) | _changes(passage)
    begins = np.flatnonzero(pairs)
    document, passage = document[begins], passage[begins]
    weight = index.weight(runs.place, runs.place + runs.length)
    longest = np.maximum.reduceat(weight, begins)
    total = index.weight(index.starts[passage], index.starts[passage + 1])
    share = np.add.reduceat(_unseen(index, runs, np.cumsum(pairs)), begins) / total
    ends = np.append(begins[1:], len(runs.at))
    for pair in np.flatnonzero((share >= min_share) | (longest >= LONG)).tolist():
        own = slice(begins[pair], ends[pair])
        at, place, length = runs.at[own], runs.place[own], runs.length[own]
        here, there = (zip(begin.tolist(), (begin + length).tolist(), strict=True) for begin in (at, place))
        best = int(weight[own].argmax())
        yield Hit(
            int(document[pair]), int(passage[pair]), float(share[pair]), int(longest[pair]),
            tuple(joined(there, 1)),
            tuple(_span(folded, start, end) for start, end in joined(here, GRAM)),
            _span(folded, int(at[best]), int(at[best] + length[best])),
        )  # fmt: skip


def _unseen(index: Index, runs: _Runs, pair: np.ndarray) -> np.ndarray:
    """[runs] weight of what of each run no run before it in its pair holds; runs are in order of pair and place."""
    ends = runs.place + runs.length
    apart = pair * (len(index.codes) + 1)  # so that the running maximum begins anew with each pair
    reached = np.zeros(len(ends), dtype=np.int64)
    reached[1:] = np.maximum.accumulate(ends + apart)[:-1] - apart[1:]
    return index.weight(np.clip(reached, runs.place, ends), ends)


def joined(spans: Iterable[tuple[int, int]], near: int) -> list[tuple[int, int]]:
    """Spans in order, those that overlap or stand nearer than `near` as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] < near:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _span(folded: Folded, start: int, end: int) -> tuple[int, int]:
    """Characters of a document from the first to the last of these codes."""
    return int(folded.positions[start]), int(folded.positions[end - 1]) + 1


class Phrases:
    """Which hits rest on phrases of the language: what more than `PHRASE_DOCUMENTS` documents share with a passage.

    Most of a passage in a long span is no phrase in however many documents it stands. Counts only grow, so a hit that
    `add` refuses need not be kept, and but for such spans a passage has a few times `PHRASE_DOCUMENTS` that are.
    """

    def __init__(self, index: Index, min_share: float = MIN_SHARE) -> None:
        self._index = index
        self._min_share = min_share
        self._documents = np.zeros(len(index.codes), dtype=np.int64)

    def add(self, hit: Hit) -> bool:
        """Count a hit; whether it may still hold."""
        for start, end in hit.shared:
            self._documents[start:end] += 1
        return self.holds(hit)

    def holds(self, hit: Hit) -> bool:
        """Whether what is shared is enough without what is a phrase."""
        if hit.longest >= LONG and hit.share >= self._min_share:
            return True
        index, rare = self._index, 0
        for start, end in hit.shared:
            few = self._documents[start:end] <= PHRASE_DOCUMENTS
            rare += int(np.diff(index.weights[start : end + 1])[few].sum())
        enough = self._min_share * float(index.weight(*index.starts[hit.passage : hit.passage + 2]))
        return rare >= (min(enough, LONG) if hit.longest >= LONG else enough)
