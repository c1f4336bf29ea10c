"""Training byte-level BPE in bounded memory: which pairs of tokens to merge, and the tokenizer that they make.

In: texts, read twice. Out: a `tokenizers.Tokenizer` with the split pattern of GPT-2.
Method: BPE (Sennrich et al., 2016) over bytes (Radford et al., 2019). To the pattern a clause of Han characters is one
word, so nearly all words are unique and a trainer holds the whole text. But no merge reaches over two characters that
seldom stand side by side, so clauses are cut there first: two passes over the text, one that counts neighbours, one
that cuts. On 100 MB this leaves 1.2 M distinct words of 1.7 M, half the size, and changes bytes per token by 0.04 %.
Invariants: the merges depend on the texts alone: both trainers, `tokenizers` and the faster `gigatoken`, give the same.
Cost: 64 MiB of counts and, for gigatoken, about 7 bytes of memory a byte of text and 0.13 s a megabyte.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus.pipeline.clean import SEAM

SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SPECIAL_TOKENS = (SEPARATOR, PAD, USER, ASSISTANT)
REFERENCE = "tokenizers"
FAST = "gigatoken"

RARE = 0.032
"""Neighbours seen less often than this, times the characters of the text, by the entries of the vocabulary, are cut
apart: 37 times in 37 million characters for 32,000 entries."""

_SLOTS_BITS = 24
_BLOCK_CHARACTERS = 1 << 16
_HAN_RANGES = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x31350))
_CHECK_CHARACTERS = 100_000
_CHECK_MERGES = 500
_OCCURRENCES = 20_000  # of a string that the last merge makes; one in which it was merged is among the first

Merge = tuple[str, str]


class Neighbours:
    """How often two Han characters stand side by side, counted in a table of fixed size.

    Two pairs may share a slot, so a count may be too high, never too low: then a clause stays whole that might be cut.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(1 << _SLOTS_BITS, dtype=np.uint32)
        self.characters = 0

    def add(self, text: str) -> None:
        """Count one text."""
        codes = _codes(text)
        slots, han = _slots(codes)
        np.add.at(self.counts, slots[han], np.uint32(1))
        self.characters += len(codes)

    def cut(self, text: str, vocab_size: int) -> str:
        """The text with SEAM between characters that are seldom neighbours."""
        codes = _codes(text)
        slots, han = _slots(codes)
        rare = self.characters * RARE / vocab_size
        places = np.flatnonzero(han & (self.counts[slots] < rare)) + 1
        return np.insert(codes, places, ord(SEAM)).astype("<u4").tobytes().decode("utf-32-le")


def train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A tokenizer from texts in memory, by the reference trainer."""
    neighbours = Neighbours()
    for text in texts:
        neighbours.add(text)
    return build(_reference_merges((neighbours.cut(text, vocab_size) for text in texts), vocab_size), vocab_size)


def merges_of(path: Path, vocab_size: int, *, fast: bool) -> tuple[list[Merge], str, str]:
    """The merges learnt from a file of pieces divided by SEAM, the trainer used, and why it is not the fast one.

    The fast trainer, when `fast`, must first give the reference's merges on the beginning of the file. It writes
    to the terminal and hears no Ctrl-C, so this runs in a process of its own.
    """
    why = "gigatoken is not installed: training with tokenizers, some four times slower"
    if fast:
        try:
            if _agree(next(_blocks(path, _CHECK_CHARACTERS), "")):
                merges = _fast_merges(path, vocab_size)
                if _is_learnt(path, build(merges, vocab_size), merges[-1]):
                    return merges, FAST, ""
                why = "the sample has fewer entries than asked for: training with tokenizers, which sees the end"
            else:
                why = (
                    "WARNING: gigatoken learns other merges than tokenizers on the same text: training with tokenizers"
                )
        except Exception as error:  # noqa: BLE001  # whatever another trainer raises, the reference does the work
            why = f"WARNING: gigatoken cannot train on this text ({error}): training with tokenizers"
    return _reference_merges(_blocks(path, _BLOCK_CHARACTERS), vocab_size), REFERENCE, why


def _agree(text: str) -> bool:
    """Whether the fast trainer gives the reference's merges."""
    vocab_size = len(SPECIAL_TOKENS) + 256 + _CHECK_MERGES
    reference = _reference_merges([text], vocab_size)
    return _fast_merges(text.encode(), vocab_size)[: len(reference)] == reference


def _is_learnt(path: Path, tokenizer: Tokenizer, last: Merge) -> bool:
    """Whether the last merge occurs in the text: when there is nothing left, gigatoken goes on to merge what never
    stands side by side.
    """
    number = tokenizer.token_to_id("".join(last))
    wanted = bytes(BYTES[character] for character in "".join(last))
    seam = SEAM.encode()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        position = text.find(wanted)
        for _ in range(_OCCURRENCES):
            if position < 0:
                return False
            begin, end = text.rfind(seam, 0, position) + 1, text.find(seam, position)
            piece = text[begin : end if end >= 0 else len(text)].decode("utf-8")
            if number in tokenizer.encode(piece).ids:
                return True
            if end < 0:
                return False
            position = text.find(wanted, end)
    return False


def fast_available() -> bool:
    """Whether gigatoken is installed."""
    from importlib.util import find_spec  # noqa: PLC0415

    return find_spec(FAST) is not None


def build(merges: Sequence[Merge], vocab_size: int) -> Tokenizer:
    """The tokenizer of some merges: special tokens first, then the bytes, then what the merges make."""
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


def _reference_merges(pieces: Iterable[str], vocab_size: int) -> list[Merge]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(SEAM, "removed"), _split()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer=trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _fast_merges(source: Path | bytes, vocab_size: int) -> list[Merge]:
    import gigatoken  # noqa: PLC0415  # an extra

    with _silence():
        _, merges = gigatoken.train_bpe(
            source, vocab_size - len(SPECIAL_TOKENS), [], tie_breaking="huggingface", separator=SEAM.encode()
        )
    return [(_name(left), _name(right)) for left, right in merges]


@contextmanager
def _silence() -> Iterator[None]:
    """What native code writes to the terminal goes nowhere."""
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, file in zip((1, 2), kept, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.close(nowhere)


def _blocks(path: Path, characters: int) -> Iterator[str]:
    """A file in blocks that end at a SEAM."""
    rest = ""
    with path.open(encoding="utf-8", newline="") as file:
        while block := file.read(characters):
            whole, _, rest_of_block = (rest + block).rpartition(SEAM)
            if whole:
                yield whole
            rest = rest_of_block
    if rest:
        yield rest


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _han_table() -> np.ndarray:
    table = np.zeros(0x110000, dtype=np.bool_)
    for first, end in _HAN_RANGES:
        table[first:end] = True
    return table


_HAN = _han_table()


def _slots(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every two neighbours the slot that counts them, and whether both are Han."""
    han = _HAN[codes]
    mixed = (codes[:-1] * np.uint32(0x9E3779B1)) ^ (codes[1:] * np.uint32(0x85EBCA6B) + np.uint32(0x9E3779B9))
    mixed *= np.uint32(0xC2B2AE35)
    return mixed >> np.uint32(32 - _SLOTS_BITS), han[:-1] & han[1:]


def _byte_names() -> dict[int, str]:
    """The characters by which byte-level BPE writes the 256 bytes (Radford et al., 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


BYTE_NAMES = _byte_names()
BYTES = {name: byte for byte, name in BYTE_NAMES.items()}
_name: Callable[[bytes], str] = lambda data: "".join(BYTE_NAMES[byte] for byte in data)  # noqa: E731
