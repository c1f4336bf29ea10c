"""Unicode: invisible characters removed, NFC, full-width letters narrowed."""

from __future__ import annotations

import functools
import re
import unicodedata

from corpus.pipeline import kernels

_MANY_MARKS = 30
_HIDDEN = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff"
)
_JOINED = r"(?:(?<!\u200d)|(?![\u2600-\u27bf\U0001f000-\U0001faff]))"  # a joiner before an emoji joins two into one
INVISIBLE = re.compile(f"[{_HIDDEN}]{_JOINED}")
_INVISIBLE_NOT_SEAM = re.compile(f"[{_HIDDEN}]{_JOINED}".replace("\x0e-\x1f", "\x0e-\x1d\x1f"))
WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ][０-９Ａ-Ｚａ-ｚ]*")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B)}
_MARKS = re.compile(rf"[^\x00-\u02ff\u3400-\u9fff\s]{{{_MANY_MARKS},}}")
BASIC_PLANE = "".join(map(chr, range(0x10000)))


def strip_invisible(text: str) -> str:
    """Remove control, zero-width, bidirectional and unassigned format characters; joiners inside an emoji stay."""
    return _INVISIBLE_NOT_SEAM.sub("", text)


def compose_nfc(text: str) -> str:
    """Unicode normalization form C, which keeps full-width punctuation (NFKC would not).

    CPython sorts a run of combining marks by insertion, so a long run is sorted first.
    """
    return unicodedata.normalize("NFC", _MARKS.sub(_in_order, text))


def narrow_letters(text: str) -> str:
    """Convert full-width Latin letters and digits to ASCII; full-width punctuation stays."""
    return WIDE.sub(lambda match: match[0].translate(_NARROW), text)


def compose_nfc_batch(texts: list[str]) -> list[str]:
    """`compose_nfc` for each text."""
    return [
        compose_nfc(text) if kernels.compiled.has_run(text, _MANY_MARKS) else unicodedata.normalize("NFC", text)
        for text in texts
    ]


def basic_characters(pattern: re.Pattern[str]) -> list[str]:
    """Characters of the basic plane that a pattern matches alone."""
    return pattern.findall("a".join(BASIC_PLANE))


@functools.cache
def composed_characters() -> list[str]:
    """Characters of the basic plane that can make a text differ from its NFC: marks, vowel and final Hangul jamo, and
    characters that are not NFC themselves.
    """
    return [
        character
        for character in BASIC_PLANE
        if unicodedata.category(character)[0] == "M"
        or "\u1160" <= character <= "\u11ff"
        or not unicodedata.is_normalized("NFC", character)
    ]


def _in_order(match: re.Match[str]) -> str:
    """A long run with its combining marks decomposed and in canonical order, which has the same NFC."""
    run = match[0]
    if sum(map(bool, map(unicodedata.combining, run))) < _MANY_MARKS:
        return run
    pieces: list[str] = []
    marks: list[str] = []
    for character in run:
        decomposed = unicodedata.normalize("NFD", character)
        if unicodedata.combining(decomposed[0]):
            marks += decomposed
        else:
            pieces += (*sorted(marks, key=unicodedata.combining), character)
            marks = []
    return "".join([*pieces, *sorted(marks, key=unicodedata.combining)])
