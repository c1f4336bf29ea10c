"""Blanks, line breaks and blank lines, except in indentation and code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from corpus.pipeline.text.codepoints import SEAM, codes_of

_BLANK_CHARACTERS = (
    "\t \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
_IS_BLANK = np.zeros(0x110000, dtype=np.bool_)
_IS_BLANK[list(map(ord, _BLANK_CHARACTERS))] = True
ODD_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_BREAK = re.compile("[\r\v\f\x85\u2028\u2029]")
_FENCE = "```"
_PLAIN_BLANKS = {ord(blank): " " for blank in _BLANK_CHARACTERS if blank != "\t"}
_BLANK_LINES = re.compile(r"\n\n\n+")


def break_lines(text: str) -> str:
    r"""Convert every kind of line break to a newline; each `\r` of the corpora's `\r\r` is one."""
    return _BREAK.sub("\n", text.replace("\r\n", "\n"))


def collapse_blanks(text: str) -> str:
    """Collapse runs of blanks to one; remove ideographic indents and blanks at the ends of lines; keep ASCII
    indentation, for code.
    """
    codes = codes_of(f"{SEAM}{text}{SEAM}")
    blank = _IS_BLANK.take(codes)
    first, last = blank[1:-1] & ~blank[:-2], blank[1:-1] & ~blank[2:]
    first &= ~(last & (codes[1:-1] == ord(" ")) & (codes[2:] != ord("\n")))  # a single space between words stays
    starts = np.flatnonzero(first) + 1
    if len(starts) == 0:
        return text
    ends = np.flatnonzero(last) + 2
    ends = ends[np.searchsorted(ends, starts, side="right")]
    lone = (ends - starts == 1) & (codes[starts] == ord(" "))
    before_newline, before_seam = codes[ends] == ord("\n"), codes[ends] == ord(SEAM)
    after_break = (codes[starts - 1] == ord("\n")) | (codes[starts - 1] == ord(SEAM))
    odd = np.maximum.reduceat(codes, np.stack((starts, ends), axis=1).reshape(-1))[::2] >= 0x80
    fences = np.array(list(_fences(text)), dtype=np.int64).reshape(-1)
    in_code = np.searchsorted(fences, starts - 1, side="right") % 2 == 1
    indent = after_break & (lone | ~odd)
    gone = before_newline | (~indent & ~in_code & (after_break | (before_seam & ~lone)))
    changed = np.flatnonzero(gone | np.where(in_code, odd, ~(indent | lone)))
    pieces: list[str] = []
    done = 0
    for start, end, nothing, code in np.column_stack((starts - 1, ends - 1, gone, in_code))[changed].tolist():
        pieces.append(text[done:start])
        if not nothing:
            pieces.append(text[start:end].translate(_PLAIN_BLANKS) if code else " ")
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def _fences(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of fenced code; both are in the same text."""
    begin = text.find(_FENCE)
    while begin >= 0 and (end := text.find(_FENCE, begin + len(_FENCE))) >= 0:
        seam = text.find(SEAM, begin, end)
        if seam < 0:
            yield begin, end + len(_FENCE)
        begin = text.find(_FENCE, end + len(_FENCE) if seam < 0 else seam)


def collapse_lines(text: str) -> str:
    """At most one blank line between paragraphs, none at the ends."""
    return SEAM.join([part.strip() for part in _BLANK_LINES.sub("\n\n", text).split(SEAM)])


def collapse_lines_batch(texts: list[str]) -> list[str]:
    """`collapse_lines` for each text."""
    return [(_BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip() for text in texts]
