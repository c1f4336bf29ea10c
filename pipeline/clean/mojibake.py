"""Repair of mojibake: UTF-8 that was decoded as GBK or Latin-1.

In: text. Out: the original text where that is certain: every byte of a run is valid UTF-8 again and gives at least
four Han or Chinese marks in common use. A run that GB 2312 can encode may be intended and stays; what cannot be
repaired is left for the filter rules.
Cost: one table lookup a character, in texts with a character that mojibake has and plain Chinese does not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from corpus.pipeline.text.codepoints import codes_of

_LEADS = range(0xE4, 0xEA)
"""Lead bytes in UTF-8 of the Han in common use, U+4000 to U+9FFF."""
_TAILS = range(0x80, 0xC0)
_CONTROL = re.compile("([\x00-\x1f])")  # never part of a run
_MARKED = range(0x80, 0xA1)
"""Second bytes of GBK characters that GB 2312, and so nearly all Simplified text, lacks."""


def _gbk(first: range, second: range) -> str:
    """The characters that GBK encodes as these two bytes."""
    pairs = [bytes((one, two)).decode("gbk", "ignore") for one in first for two in second if two != 0x7F]
    return "".join(pair for pair in pairs if len(pair) == 1 and not "\ue000" <= pair <= "\uf8ff")


def mojibake_characters() -> str:
    """Characters that are rare in Chinese and frequent in UTF-8 decoded as GBK or Latin-1."""
    return mojibake_han() + "".join(map(chr, _LEADS))


@functools.cache
def mojibake_han() -> str:
    """Han that are rare in Simplified Chinese and frequent in UTF-8 decoded as GBK."""
    return _gbk(_LEADS, _MARKED) + _gbk(range(0x81, 0xA1), _LEADS)


@functools.cache
def _triple() -> tuple[str, str, str]:
    """First, second and third characters of six bytes of UTF-8 decoded as three characters of GBK."""
    head, seam, tail = _gbk(_LEADS, _TAILS), _gbk(range(0x81, 0xC0), _LEADS), _gbk(range(0x81, 0xC0), _TAILS)
    head += _gbk(range(0xE2, 0xE4), range(0x80, 0x81)) + _gbk(range(0xEF, 0xF0), range(0xBC, 0xBE))
    seam += _gbk(range(0x81, 0xC0), range(0xE3, 0xE4)) + _gbk(range(0x81, 0xC0), range(0xEF, 0xF0))
    return head, seam, tail


@functools.cache
def _rest() -> str:
    """Continuation bytes of UTF-8, decoded as Latin-1 or Windows-1252."""
    return "".join(map(chr, range(0x80, 0xC0))) + bytes(range(0x80, 0xA0)).decode("cp1252", "ignore")


@functools.cache
def _classes() -> np.ndarray:
    """[0x110000] uint8: positions a character may have in a run, as bits: `_triple`, then lead and continuation."""
    table = np.zeros(0x110000, dtype=np.uint8)
    leads = "".join(map(chr, (0xC2, *range(0xE2, 0xF0))))
    for bit, characters in enumerate((*_triple(), leads, _rest())):
        table[[ord(character) for character in characters]] |= 1 << bit
    return table


def may_hold_run(text: str) -> bool:
    """Whether a pattern may match, by one lookup a character: the patterns themselves are several times slower."""
    found = _classes()[codes_of(text)]
    triples = found[:-2] & (found[1:-1] >> 1) & (found[2:] >> 2) & 1
    return bool((triples[:-3] & triples[3:]).any() or ((found[:-1] >> 3) & (found[1:] >> 4) & 1).any())


@functools.cache
def run_patterns() -> tuple[tuple[re.Pattern[str], Callable[[str], bytes], str], ...]:
    """Patterns of runs, each with the function that gives their bytes and the encoding that must fit the result.

    Four characters of three bytes, all letters and signs in Latin-1, are certain; six Han may be intended Traditional.
    """
    (head, seam, tail), rest = _triple(), re.escape(_rest())
    return (
        (re.compile(f"(?:[{head}][{seam}][{tail}]){{2,}}"), lambda text: text.encode("gbk"), "gb2312"),
        (re.compile(f"(?:[\\u00e2-\\u00ef][{rest}]{{2}}|\\u00c2[\\u00a0-\\u00bf]){{4,}}"), _latin, "gbk"),
    )


def _latin(text: str) -> bytes:
    """Bytes of a text decoded as Latin-1 or Windows-1252, which differ from 0x80 to 0x9f."""
    return b"".join(letter.encode("latin-1") if ord(letter) < 0x100 else letter.encode("cp1252") for letter in text)


def repair_encoding(text: str) -> str:
    """Decode runs of UTF-8 that were decoded as GBK or Latin-1.

    A line whose decoded part would form a new run with the rest, and be decoded twice, stays unchanged.

    >>> repair_encoding("他说浣犲ソ涓栫晫。")
    '他说你好世界。'
    """
    if not may_hold_run(text):
        return text
    repaired = _decode_runs(text)
    if repaired == text or _decode_runs(repaired) == repaired:
        return repaired
    lines = _CONTROL.split(text)
    decoded = [_decode_runs(line) for line in lines]
    return "".join([new if _decode_runs(new) == new else old for old, new in zip(lines, decoded, strict=True)])


def _decode_runs(text: str) -> str:
    for pattern, encode, within in run_patterns():
        text = pattern.sub(partial(_decoded, encode=encode, within=within), text)
    return text


def _decoded(match: re.Match[str], encode: Callable[[str], bytes], within: str) -> str:
    run = match[0]
    if _fits(run, "gb2312"):
        return run
    try:
        decoded = encode(run).decode("utf-8")
    except UnicodeError:
        return run
    return decoded if _fits(decoded, within) else run


def _fits(text: str, encoding: str) -> bool:
    try:
        text.replace("—", "").encode(encoding)  # Python's GB 2312 has a different dash
    except UnicodeError:
        return False
    return True
