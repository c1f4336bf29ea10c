"""A `tokenizer.json` as input of the compiled encoder: merges by rank, ids, and character classes.

In: the description of a byte-level BPE tokenizer with GPT-2's split pattern. Out: a vocabulary for `_kernels.encode`.
Invariants: any other tokenizer is refused; letters, numbers and blanks are those of the regular expressions of
`tokenizers`, not of Python.
Cost: 0.3 s a process for 32,000 entries, half of it for the classes; about 5 MB.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import orjson
from tokenizers import Regex, pre_tokenizers

from corpus.pipeline import kernels
from corpus.pipeline.tokenizer import special_tokens

_MUST_LACK = ("normalizer", "truncation", "padding")
_MODEL_MUST_LACK = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_CODE_POINTS = 0x110000
_ASSIGNED = 0x34000
"""From here on there are only marks, tags and private characters: no letters, numbers or blanks."""
_CLASSES = {r"\p{L}": 1, r"\p{N}": 2, r"\s": 3}
_LETTERS = ((0x3400, 0x4DB6), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x20000, 0x2A6D7))


@functools.lru_cache(maxsize=1)
def of(description: str) -> object:
    """The vocabulary of a tokenizer's description; cached, so that a process builds it once for all datasets.

    Raises:
        ValueError: the tokenizer is of another kind, or its merges are not of the kind that training makes.

    """
    parsed: dict[str, Any] = orjson.loads(description)
    if not all(token.get("special") for token in parsed.get("added_tokens") or ()):
        raise ValueError("it has added tokens that are not special")  # they would be found in ordinary text
    model = parsed["model"]
    split, after = (parsed.get(step) or {} for step in ("pre_tokenizer", "post_processor"))
    if (
        model.get("type") != "BPE"
        or any(parsed.get(key) for key in _MUST_LACK)
        or any(model.get(key) for key in _MODEL_MUST_LACK)
        or any(split.get(key) != value for key, value in _SPLIT.items())
        or after.get("type") not in (None, "ByteLevel")
    ):
        raise ValueError("it is not plain byte-level BPE with GPT-2's split pattern")
    entries: dict[str, int] = model["vocab"]
    ranks = {name: byte for byte, name in special_tokens.BYTE_NAMES.items()}
    sides: list[tuple[int, int]] = []
    try:
        ids = [entries[special_tokens.BYTE_NAMES[byte]] for byte in range(len(ranks))]
        for merge in model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            sides.append((ranks[left], ranks[right]))
            ids.append(entries[left + right])
            ranks[left + right] = len(ranks)
    except KeyError as missing:
        raise ValueError(f"it lacks an entry, {missing}") from missing
    if len(ranks) < len(ids):
        raise ValueError("two of its merges make the same entry")
    if len(set(ids)) < len(ids):
        raise ValueError("two of its entries have the same id")
    lefts, rights = np.array(sides, dtype=np.uint32).reshape(-1, 2).T.copy()
    return kernels.compiled.vocabulary(lefts, rights, np.array(ids, dtype=np.uint32), classes(), len(sides))


@functools.cache
def classes() -> np.ndarray:
    """[0x110000] uint8: 1 for letters, 2 for numbers, 3 for blanks, 0 for others, by the patterns of `tokenizers`."""
    table = np.zeros(_CODE_POINTS, dtype=np.uint8)
    unknown = np.ones(_ASSIGNED, dtype=bool)
    unknown[0xD800:0xF900] = False  # surrogates and private characters
    for first, end in _LETTERS:  # in every version of Unicode since 3.1
        unknown[first:end] = False
        table[first:end] = _CLASSES[r"\p{L}"]
    codes = np.flatnonzero(unknown)
    runs = _pieces("|".join(f"{pattern}+" for pattern in _CLASSES), "".join(map(chr, codes.tolist())), "isolated")
    numbers = np.zeros(len(runs), dtype=np.uint8)
    for pattern, number in _CLASSES.items():
        others = np.zeros(len(runs), dtype=bool)
        for _, (begin, end) in _pieces(pattern, "".join(piece[0] for piece, _ in runs), "removed"):
            others[begin:end] = True
        numbers[~others] = number
    table[codes] = np.repeat(numbers, [end - begin for _, (begin, end) in runs])
    return table


def _pieces(pattern: str, text: str, behavior: str) -> list[tuple[str, tuple[int, int]]]:
    return pre_tokenizers.Split(Regex(pattern), behavior).pre_tokenize_str(text)
