"""Which encoding bytes are in that are not UTF-8: what Chinese files come in."""

from __future__ import annotations

import codecs

_READ = 4096
_COMMON = 0.7
"""Least share of common Han and punctuation among the characters beyond ASCII; another encoding gives rare ones."""


def encoding_of(data: bytes) -> str:
    """The name of the encoding for `iconv -f`: UTF-16 or GB18030; empty for UTF-8, and where it is neither.

    >>> [encoding_of("{潮水退了。".encode(name)) for name in ("utf-8", "gbk", "utf-16", "utf-16-be", "big5")]
    ['', 'GB18030', 'UTF-16', 'UTF-16BE', '']
    """
    head = data[:_READ]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        wide = "UTF-16"
    elif b"\0" in head[:2]:
        wide = "UTF-16LE" if head[1:2] == b"\0" else "UTF-16BE"
    else:
        is_utf8 = _decoded(head, "utf-8") is not None
        return "GB18030" if not is_utf8 and _is_chinese(_decoded(head, "gb18030") or "") else ""
    text = "".join((_decoded(head, wide) or "").split())
    return wide if text and text.isprintable() and (text.isascii() or _is_chinese(text)) else ""


def _decoded(head: bytes, encoding: str) -> str | None:
    """The characters that are whole, or None where the bytes are not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None


def _is_chinese(text: str) -> bool:
    """Whether most characters are on the first level of GB 2312, or its signs."""
    leads = [character.encode("gb2312", "ignore")[:1] for character in text if character > "\x7f"]
    common = sum(b"\xa1" <= lead <= b"\xa3" or b"\xb0" <= lead <= b"\xd7" for lead in leads)
    return bool(leads) and common >= _COMMON * len(leads)
