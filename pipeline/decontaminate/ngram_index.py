"""N-gram index of the texts of evaluation sets.

In: texts of evaluation items, each with its file, item and field.
Out: an `Index` of passages; a passage is a distinct text.
Invariants: texts are compared folded (`corpus.pipeline.text`).
Cost: about 36 bytes of memory and a microsecond a character.
Sources: n-grams of 13, and n-grams of many passages left out ("common cultural phrases, legal boilerplate, or similar
content"), as Brown et al. (2020), appendix C, but of characters instead of words. Spans have weights: four letters or
digits weigh as much as a Chinese character, so that 13 Chinese characters correspond to about 13 English words, and
LaTeX commands hardly count as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from corpus.pipeline.text.ngrams import inner, ngram_hashes
from corpus.pipeline.text.normalize import fold_all

NGRAM = 13
LINE_HEAD = 8
"""Characters at the beginning of a line that are hashed; no passage has fewer."""
WIDE = 0x2E80
"""Chinese characters, kana and Hangul are the code points from the CJK radicals on."""
WIDE_WEIGHT = 4
"""Weight of a Chinese character, kana and Hangul; any other character weighs 1."""
MIN_SPAN_WEIGHT = 13 * WIDE_WEIGHT
"""A shared span of less weight does not count; a passage of less weight counts only as a whole line."""
MIN_TEXT_WEIGHT = LINE_HEAD * WIDE_WEIGHT
"""A text of less weight is not searched for."""
MAX_NGRAM_PASSAGES = 10
"""N-grams in more passages are phrases of the evaluation set, such as instructions, and are not indexed."""
MAX_NGRAM_PLACES = 64
"""N-grams that occur more often are not indexed: a repetitive text would match itself at every offset."""
_BITS_PER_GRAM = 16  # one bit in 16 is set in each of two rows: 1 character in 256 is a false positive
_OTHER = np.uint64(0xBF58476D1CE4E5B9)  # a factor that moves the lower bits of a hash to the front


class Owner(NamedTuple):
    """Where a text occurs in the evaluation sets."""

    file: str
    item: int
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    """Passages and their n-grams."""

    owners: Sequence[Sequence[Owner]]
    """[passages] where each occurs, in order."""
    codes: np.ndarray
    """[characters] uint32: all passages folded, one after another."""
    starts: np.ndarray
    """[passages + 1] int64: where each begins in `codes`."""
    weights: np.ndarray
    """[characters + 1] int64: weight of all characters before each."""
    grams: np.ndarray
    """[n-grams] uint64: hashes, sorted and unique."""
    offsets: np.ndarray
    """[n-grams + 1] int64: where the places of each begin in `places`."""
    places: np.ndarray
    """[places] int64: where n-grams begin in `codes`."""
    all_grams: np.ndarray
    """[all n-grams] uint64: hashes, sorted and unique, also of n-grams that are not indexed because they are common."""
    is_indexed: np.ndarray
    """[all n-grams] bool: whether each is indexed."""
    bits: np.ndarray
    """[2, 2**k / 8] uint8: a bit for each value of k bits of a hash, set where any n-gram has it (Bloom, 1970)."""
    heads: np.ndarray
    """[heads] uint64: sorted hashes of the first `LINE_HEAD` codes of passages that count only as whole lines."""
    lines: Mapping[int, Sequence[int]]
    """These passages by the hash of their head."""
    common_ngrams: int
    """Number of n-grams that are not indexed because they are common."""

    @property
    def exponent(self) -> int:
        """How many bits of a hash say which of `bits` is its own."""
        return (int(self.bits.shape[1]) * 8 - 1).bit_length()

    def weight(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Weight of spans of `codes`."""
        return np.asarray(self.weights[end] - self.weights[start])

    def passage(self, place: np.ndarray) -> np.ndarray:
        """The passages of places in `codes`."""
        return np.searchsorted(self.starts, place, side="right") - 1

    def seeds(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of n-grams of a text ([places] uint64 hashes) and the passages that are equal by their hashes.

        Returns [seeds] places in the text and [seeds] places in `codes`.
        """
        at = np.flatnonzero(_has_bit(self.bits[0], hashes))
        at = at[_has_bit(self.bits[1], hashes[at] * _OTHER)]
        if len(at) == 0:
            return at, at
        gram = np.minimum(np.searchsorted(self.grams, hashes[at]), len(self.grams) - 1)
        found = self.grams[gram] == hashes[at]
        at, gram = at[found], gram[found]
        counts = self.offsets[gram + 1] - self.offsets[gram]
        first = self.offsets[gram] - (np.cumsum(counts) - counts)
        return np.repeat(at, counts), self.places[np.arange(counts.sum()) + np.repeat(first, counts)]


def build_index(texts: Iterable[tuple[Owner, str]]) -> Index:
    """Index the texts of evaluation sets, except those too short to search for."""
    named = list(texts)
    folded = fold_all([text for _, text in named])
    known: dict[bytes, list[Owner]] = {}
    for number, (owner, _) in enumerate(named):
        codes = folded.codes[folded.starts[number] : folded.starts[number + 1]]
        if _weights(codes)[-1] >= MIN_TEXT_WEIGHT:
            known.setdefault(codes.tobytes(), []).append(owner)
    codes = np.frombuffer(b"".join(known), dtype=np.uint32)
    starts = np.cumsum([0, *(len(key) // 4 for key in known)])
    weights = _weights(codes)
    heavy = np.diff(weights[starts]) >= MIN_SPAN_WEIGHT
    lines: dict[int, list[int]] = {}
    for passage in np.flatnonzero(~heavy).tolist():
        head = ngram_hashes(codes[starts[passage] : starts[passage] + LINE_HEAD], LINE_HEAD)
        lines.setdefault(int(head[0]), []).append(passage)
    all_grams, is_indexed, offsets, places = _grams(codes, starts, heavy)
    return Index(
        owners=[sorted(owners) for owners in known.values()], codes=codes, starts=starts, weights=weights,
        grams=all_grams[is_indexed], offsets=offsets, places=places, all_grams=all_grams, is_indexed=is_indexed,
        bits=_bits(all_grams), heads=np.sort(np.array([*lines], dtype=np.uint64)), lines=lines,
        common_ngrams=int((~is_indexed).sum()),
    )  # fmt: skip


def can_be_found(text: str) -> bool:
    """Whether a text is long enough to search for."""
    return bool(_weights(fold_all([text]).codes)[-1] >= MIN_TEXT_WEIGHT)


def _weights(codes: np.ndarray) -> np.ndarray:
    """[codes + 1] int64: weight of all codes before each."""
    return np.concatenate([[0], np.cumsum(np.where(codes >= WIDE, WIDE_WEIGHT, 1))])


def _grams(codes: np.ndarray, starts: np.ndarray, heavy: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hashes of the n-grams of the heavy passages, which are indexed, and the offsets and places of these."""
    places = np.flatnonzero(inner(starts, NGRAM, len(codes)))
    passages = np.searchsorted(starts, places, side="right") - 1
    places, passages = places[heavy[passages]], passages[heavy[passages]]
    hashes = ngram_hashes(codes, NGRAM)[places]
    order = np.argsort(hashes, kind="stable")
    grams, first, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    places, passages = places[order], passages[order]
    fresh = np.diff(passages, prepend=-1) != 0  # the places of an n-gram are sorted, so are their passages
    fresh[first] = True
    within = np.concatenate([[0], np.cumsum(fresh)])
    kept = (within[first + counts] - within[first] <= MAX_NGRAM_PASSAGES) & (counts <= MAX_NGRAM_PLACES)
    offsets = np.concatenate([[0], np.cumsum(counts[kept])])
    return grams, kept, offsets, places[np.repeat(kept, counts)]


def _bits(grams: np.ndarray) -> np.ndarray:
    exponent = max(16, (len(grams) * _BITS_PER_GRAM - 1).bit_length())
    bits = np.zeros((2, 1 << exponent), dtype=np.bool_)
    for row, hashes in zip(bits, (grams, grams * _OTHER), strict=True):
        row[hashes >> np.uint64(64 - exponent)] = True
    return np.packbits(bits, axis=1, bitorder="little")


def _has_bit(bits: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """[hashes] bool: whether the bit of each is set. numpy's `take` is fastest with signed numbers."""
    slots = (hashes >> np.uint64(64 - (len(bits) * 8 - 1).bit_length())).view(np.int64)
    return np.asarray(bits.take(slots >> 3) >> (slots & 7).astype(np.uint8) & 1, dtype=np.bool_)
