"""Training byte-level BPE in bounded memory: learns the merges and builds the tokenizer from them.

In: texts, read twice. Out: a `tokenizers.Tokenizer` with the split pattern of GPT-2.
Method: BPE (Sennrich et al., 2016) over bytes (Radford et al., 2019). For the split pattern a clause of Han characters
is one word, so nearly all words are unique and a trainer holds the whole text. But no merge crosses two characters that
are rarely adjacent, so clauses are cut there first: one pass over the text counts adjacent characters, one cuts. Bytes
per token on held-out text change by less than a thousandth.
Invariant: the merges depend on the texts alone: both trainers, `tokenizers` and the faster `gigabpe`, give the same.
Cost: 64 MiB of counts; for gigabpe about 4 bytes of memory a byte of text and 0.15 s a megabyte.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus.pipeline.text.codepoints import codes_of, text_of
from corpus.pipeline.tokenizer.special_tokens import BYTE_NAMES, SPECIAL_TOKENS

REFERENCE = "tokenizers"
FAST = "gigabpe"

RARE = 0.032
"""Adjacent characters are separated below RARE * characters / vocabulary entries occurrences: 37 in 37 million
characters for 32,000 entries."""

_SLOTS_BITS = 24
HAN_RANGES = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x31350))
_CHECK_CHARACTERS = 100_000
_CHECK_MERGES = 500

Merge = tuple[str, str]


class Neighbours:
    """Counts of adjacent Han characters, in a hash table of fixed size.

    Two pairs may share a slot, so a count may be too high, never too low: then a clause is not cut that could be.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(1 << _SLOTS_BITS, dtype=np.uint32)
        self.characters = 0

    def add(self, text: str) -> None:
        """Count one text."""
        codes = codes_of(text)
        slots, han = pair_slots(codes)
        np.add.at(self.counts, slots[han], np.uint32(1))
        self.characters += len(codes)

    def cut(self, text: str, vocab_size: int) -> str:
        """The text with a line break between characters that are rarely adjacent."""
        codes = codes_of(text)
        slots, han = pair_slots(codes)
        rare = self.characters * RARE / vocab_size
        places = np.flatnonzero(han & (self.counts[slots] < rare)) + 1
        return text_of(np.insert(codes, places, ord("\n")))


def train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer on texts in memory with the reference trainer."""
    neighbours = Neighbours()
    for text in texts:
        neighbours.add(text)
    lines = (line + "\n" for text in texts for line in neighbours.cut(text, vocab_size).split("\n"))
    return build(_reference_merges(lines, vocab_size), vocab_size)


def merges_of(path: Path, vocab_size: int, *, fast: bool) -> tuple[list[Merge], str, str]:
    """The merges learnt from the lines of a file, the trainer used, and why it is not the fast one.

    With `fast`, the fast trainer must first give the reference's merges on the beginning of the file. Both ignore
    SIGINT, so this runs in a separate process.
    """
    why = "gigabpe is not installed: training with tokenizers, some five times slower"
    if fast:
        try:
            if _agree(path):
                return _fast_merges(path, vocab_size), FAST, ""
            why = "WARNING: gigabpe learns other merges than tokenizers on the same text: training with tokenizers"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # also a panic in Rust: the reference does the work
            why = f"WARNING: gigabpe cannot train on this text ({error}): training with tokenizers"
    with path.open(encoding="utf-8", newline="\n") as lines:
        return _reference_merges(lines, vocab_size), REFERENCE, why


def fast_available() -> bool:
    """Whether the fast trainer is installed."""
    return find_spec(FAST) is not None


def build(merges: Sequence[Merge], vocab_size: int) -> Tokenizer:
    """Build the tokenizer: ids of the special tokens first, then of the bytes, then of the merges."""
    names = [*SPECIAL_TOKENS, *sorted(BYTE_NAMES.values())]
    vocabulary = {name: number for number, name in enumerate(names)}
    used: list[Merge] = []
    for merge in merges:
        if len(vocabulary) >= vocab_size:
            break
        vocabulary.setdefault("".join(merge), len(vocabulary))
        used.append(merge)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=used))
    tokenizer.pre_tokenizer = _split()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.encode_special_tokens = True
    return tokenizer


def _split() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _reference_merges(lines: Iterable[str], vocab_size: int) -> list[Merge]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _split()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer=trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _fast_merges(path: Path, vocab_size: int) -> list[Merge]:
    """The merges of gigabpe, which counts only occurring bytes as entries: a few merges too many."""
    import gigabpe  # noqa: PLC0415  # an extra

    _, merges = gigabpe.train_bpe([str(path)], vocab_size=vocab_size - len(SPECIAL_TOKENS), pretokenizer="bytelevel")
    return [(left, right) for left, right in merges]


def _agree(path: Path) -> bool:
    """Whether the fast trainer gives the reference's merges on the beginning of a file."""
    vocab_size = len(SPECIAL_TOKENS) + 256 + _CHECK_MERGES
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = file.readlines(_CHECK_CHARACTERS)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp") as beginning:
        beginning.write("".join(lines).encode())
        beginning.flush()
        fast = _fast_merges(Path(beginning.name), vocab_size)
    reference = _reference_merges(lines, vocab_size)
    return fast[: len(reference)] == reference


_HAN = np.zeros(0x110000, dtype=np.bool_)
for _first, _end in HAN_RANGES:
    _HAN[_first:_end] = True


def pair_slots(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slot of every two adjacent characters, and whether both are Han."""
    han = _HAN[codes]
    mixed = (codes[:-1] * np.uint32(0x9E3779B1)) ^ (codes[1:] * np.uint32(0x85EBCA6B) + np.uint32(0x9E3779B9))
    mixed *= np.uint32(0xC2B2AE35)
    return mixed >> np.uint32(32 - _SLOTS_BITS), han[:-1] & han[1:]
