"""Checks of a downloaded file: is it the format that its name says, and is its end there?

In: the name, the first bytes, the last bytes.
Out: an empty string, or what is wrong, safe to print. Pure: reads no file and no network.

A refusal often has status 200: a login page, a quota page, half a file with a matching length.
"""

from __future__ import annotations

import re

from corpus.pipeline.humanize import plain_text

HEAD_BYTES = 512
"""Enough to recognize a format."""
TAIL_BYTES = 22 + (1 << 16)
"""Enough for the end record of a zip archive with the longest comment."""
_MAGIC: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (  # ending, offset, allowed values
    (".zip", 0, (b"PK\x03\x04", b"PK\x05\x06")),
    (".gz", 0, (b"\x1f\x8b",)),
    (".tgz", 0, (b"\x1f\x8b",)),
    (".xz", 0, (b"\xfd7zXZ\x00",)),
    (".zst", 0, (b"\x28\xb5\x2f\xfd",)),
    (".parquet", 0, (b"PAR1",)),
    (".tar", 257, (b"ustar",)),
)


def head_error(name: str, head: bytes, *, is_html: bool = False, encoding: str = "") -> str:
    """What is wrong with the first bytes of a file called `name`; empty when nothing is.

    `is_html` and `encoding` are from the headers Content-Type and Content-Encoding.

    >>> head_error("a.zip", b"<!DOCTYPE html><title>Quota exceeded</title>")
    'received an HTML page instead of the file ("Quota exceeded")'
    """
    ending, at, values = next((entry for entry in _MAGIC if name.endswith(entry[0])), ("", 0, (b"",)))
    if ending and head[at:].startswith(values):
        return ""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or (is_html and (ending or start.startswith(b"<"))):
        title = re.search(rb"(?is)<title[^>]*>(.*?)(</title|$)", head)
        text = plain_text(title[1].decode("utf-8", "replace")) if title else ""
        return "received an HTML page instead of the file" + (f' ("{text}")' if text else "")
    if not head:
        return "it is empty"
    if ending:
        return f"it is not a {ending} file (its first bytes are {head[:8].hex(' ')})"
    if encoding:
        return f"the server sent it {plain_text(encoding)}-encoded although no encoding was requested"
    return ""


def tail_error(name: str, tail: bytes) -> str:
    """What is wrong with the last bytes of a file called `name`; empty when nothing is or the format has no end mark.

    >>> tail_error("a.parquet", b"PAR")
    'its end is missing'
    """
    is_cut = (name.endswith(".zip") and b"PK\x05\x06" not in tail) or (
        name.endswith(".parquet") and not tail.endswith(b"PAR1")
    )
    return "its end is missing" if is_cut else ""
