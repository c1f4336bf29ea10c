"""Sizes, counts, times, tables, URLs and untrusted text as people read them.

Invariants: no text that leaves here can command a terminal or turn the reading direction; no URL has a user name,
a password or a signature.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

_UNSAFE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of what is invisible, moves the cursor or turns the reading direction."""
_PUBLIC_KEYS = frozenset({"id", "export", "confirm", "download"})
"""Parameters of URLs that are no secrets."""


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(42), duration(600), duration(12_000), duration(500_000)
    ('42 s', '10 min', '3 h 20 min', '5 d 19 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"


def size_text(count: float) -> str:
    """Bytes in decimal units.

    >>> size_text(519_000_000), size_text(67_900), size_text(999)
    ('519 MB', '67.9 kB', '999 B')
    """
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def count_text(count: int) -> str:
    """A number of characters or tokens in decimal units.

    >>> count_text(1_234_567), count_text(18_400), count_text(950)
    ('1.2 M', '18.4 k', '950')
    """
    return _scaled(count, ("", "k", "M", "G", "T"))


def _scaled(value: float, units: Sequence[str]) -> str:
    """Two or three digits and the unit that they need."""
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {units[power]}" if power and value < 99.95 else f"{value:.0f} {units[power]}".rstrip()


def repeated(counts: Iterable[int]) -> str:
    """Numbers in order, equal ones once, with how many there are.

    >>> repeated([1205, 3, 2, 2, 2])
    '1,205, 3, 2 × 3'
    """
    groups = [(count, len(list(equal))) for count, equal in itertools.groupby(counts)]
    return ", ".join(f"{count:,} × {times}" if times > 1 else f"{count:,}" for count, times in groups)


def visible(text: str, keep: str = "\n\t") -> str:
    """Untrusted text with each unsafe character as its code point; those in `keep` stay.

    >>> visible("a" + chr(0x202E) + "b" + chr(27) + "[2J")
    'a⟨202E⟩b⟨001B⟩[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        f"⟨{ord(character):04X}⟩" if character not in keep and unicodedata.category(character) in _UNSAFE else character
        for character in text
    )


def plain_text(text: str, limit: int = 80) -> str:
    """Untrusted text as one short line.

    >>> plain_text("Sorry!" + chr(27) + "[2J" + chr(10) + "Try again.")
    'Sorry!⟨001B⟩[2J Try again.'
    """
    line = visible(" ".join(text.split()), keep="")
    return line if len(line) <= limit else line[: limit - 3] + "..."


def record_text(raw: bytes, limit: int = 2000) -> str:
    r"""The bytes of a record on one line: bytes that are not UTF-8 as escapes, those beyond the limit as a number.

    >>> record_text(b"caf\xe9 and more", 5)
    'caf\\xe9  ... 8 more bytes'
    """
    more = f" ... {len(raw) - limit:,} more bytes" if len(raw) > limit else ""
    return visible(raw[:limit].decode("utf-8", "backslashreplace"), keep="") + more


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A Markdown table.

    >>> print(markdown_table(("a", "b"), [(1, "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    """
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown_url(url: str) -> str:
    """A URL without secrets, as messages and `origin.json` show it.

    >>> shown_url("https://me:secret@example.org/a.zip?id=7&signature=f00")
    'https://example.org/a.zip?id=7&signature=…'
    """
    start, _, fragment_free = url.partition("#")[0].partition("://")
    place, slash, rest = fragment_free.partition("/")
    path, mark, query = rest.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    masked = "&".join(f"{key}={value if key in _PUBLIC_KEYS else '…'}" if same else "…" for key, same, value in pairs)
    return f"{start}://{place.rpartition('@')[2]}{slash}{path}{mark and mark + masked}"


def error_text(error: Exception) -> str:
    """The message of a third-party exception, without user names, passwords and queries of URLs.

    >>> error_text(ValueError("url='https://me:secret@example.org/a?signature=f00'"))
    "url='https://example.org/a?…'"
    """
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    text = re.sub(r"//[^/@\s]*@", "//", text)
    return plain_text(re.sub(r"(://[^\s?'\"<>]*\?)[^\s'\"<>)]*", r"\1…", text)) or type(error).__name__
