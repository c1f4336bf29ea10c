"""Sizes, rates, times and untrusted text as people read them: one printable line each. Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def duration(seconds: float) -> str:
    """A time as people say it.

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


def plain_text(text: str) -> str:
    """A stranger's words, fit for a terminal: one line, printable, short.

    >>> plain_text("Sorry!" + chr(27) + "[2J")
    'Sorry! [2J'
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 80 else line[:77] + "..."


def size_text(count: int) -> str:
    """A size for people, in decimal units.

    >>> size_text(519_000_000), size_text(1_640_000_000), size_text(999)
    ('519 MB', '1.6 GB', '999 B')
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A Markdown table.

    >>> print(markdown_table(("a", "b"), [(1, "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    """
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
