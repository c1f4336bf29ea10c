"""What came: is it the kind of file that its name says, and is its end there?

In: first bytes, last bytes, the name. Out: nothing, or what is wrong in words fit for a terminal. Pure; reads no file
and no network. A server answers "no" in many ways that look like success: a login page, a quota page, half a file
with a matching length.
"""

from __future__ import annotations

import re

from corpus.pipeline.humanize import plain_text

HEAD_BYTES = 512
"""First bytes that tell a format."""
TAIL_BYTES = 22 + (1 << 16)
"""Last bytes that hold the end of a zip archive, its longest comment included."""
_MAGIC: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    # ending, where the magic stands, what it may be
    (".zip", 0, (b"PK\x03\x04", b"PK\x05\x06")),
    (".gz", 0, (b"\x1f\x8b",)),
    (".tgz", 0, (b"\x1f\x8b",)),
    (".xz", 0, (b"\xfd7zXZ\x00",)),
    (".zst", 0, (b"\x28\xb5\x2f\xfd",)),
    (".parquet", 0, (b"PAR1",)),
    (".tar", 257, (b"ustar",)),
)


def wrong_head(name: str, head: bytes, *, is_page: bool = False, encoding: str = "") -> str:
    """What is wrong with the first bytes of a file called `name`; empty when nothing is.

    `is_page` and `encoding` are what the server said: that it is HTML, and the content encoding.

    >>> wrong_head("a.zip", b"<!DOCTYPE html><title>Quota exceeded</title>")
    'an HTML page came instead of the file ("Quota exceeded")'
    """
    ending, at, values = next((entry for entry in _MAGIC if name.endswith(entry[0])), ("", 0, (b"",)))
    if ending and head[at:].startswith(values):
        return ""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or (is_page and (ending or start.startswith(b"<"))):
        title = re.search(rb"(?is)<title[^>]*>(.*?)(</title|$)", head)
        text = plain_text(title[1].decode("utf-8", "replace")) if title else ""
        return "an HTML page came instead of the file" + (f' ("{text}")' if text else "")
    if not head:
        return "it is empty"
    if ending:
        return f"what came is not a {ending} file (its first bytes are {head[:8].hex(' ')})"
    if encoding:
        return f"it came {plain_text(encoding)}-encoded although it was asked for as it is"
    return ""


def wrong_tail(name: str, tail: bytes) -> str:
    """What is wrong with the last bytes of a file called `name`; empty when nothing is, or its format has no known end.

    >>> wrong_tail("a.parquet", b"PAR")
    'its end is missing'
    """
    is_cut = (name.endswith(".zip") and b"PK\x05\x06" not in tail) or (
        name.endswith(".parquet") and not tail.endswith(b"PAR1")
    )
    return "its end is missing" if is_cut else ""
