"""Tables and lines that fit the terminal. Loads rich, so it is imported when a table is printed.

In: headings, rows, and the columns of the terminal; None where there is no terminal.
Out: text.
Invariants: no number and no name is cut or broken. Chinese is two columns wide. Control characters are shown, not
sent. A table that does not fit drops its spare columns, then breaks headings and sentences at blanks, then becomes a
block for each row. Without a terminal a row is always one line.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from corpus.pipeline.humanize import visible

_UNLIMITED = 1 << 16
"""Columns where there is no terminal."""
_CLOSING, _OPENING = "，。、；：！？）》」』】〉”’…—,.;:!?)", "（《「『【〈“‘("
"""Punctuation that must not begin a line, and that must not end one."""
_SENTENCE_BLANKS = 2
"""A cell with more blanks is a sentence, which may be broken; `1,234.5 M` and `2 min 3 s` are not."""
_SENTENCE_COLUMNS = 28
"""A sentence in fewer columns is hard to read."""


def lay_out(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, left: int, spare: Sequence[str], width: int | None
) -> str:
    """A table as text, without colour.

    A heading may be broken at its line breaks. Integers get their commas. The first `left` columns are aligned to the
    left. `spare` are headings of columns that a narrow terminal need not show, the first to go first.
    """
    heads, body = headings, [[_cell(value) for value in row] for row in rows]
    table = _table(heads, body, left)
    if width is None:
        return _drawn(_UNLIMITED, table)
    for gone in spare:
        if _span(table).maximum > width:
            kept = [index for index, heading in enumerate(heads) if heading != gone]
            heads, body = [heads[index] for index in kept], [[row[index] for index in kept] for row in body]
            table = _table(heads, body, left)
    if _span(table).maximum > width:
        table = _table(heads, body, left, narrow=True)
    if _span(table).minimum > width:
        return _drawn(width, "", *_blocks(heads, body, left, width), "")
    return _drawn(width, table)


def _cell(value: object) -> str:
    return visible(f"{value:,}" if type(value) is int else str(value), keep="")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, *, narrow: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, (heading, *cells) in enumerate(zip(headings, *rows, strict=True)):
        least = _least(cells)
        whole = least >= max(map(cell_len, cells), default=0)
        shown = "\n".join(textwrap.wrap(heading, least, break_long_words=False)) if narrow else heading
        table.add_column(shown, justify="left" if index < left else "right", min_width=least, no_wrap=whole)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _least(cells: Iterable[str]) -> int:
    """Columns in which each name, and each number with its unit, is whole and sentences can be read."""
    most = {True: _SENTENCE_COLUMNS, False: _UNLIMITED}
    return max((min(cell_len(cell), most[cell.count(" ") > _SENTENCE_BLANKS]) for cell in cells), default=1)


def _span(table: Table) -> Measurement:
    """The columns that a table takes with sentences broken, and with nothing broken."""
    screen = _screen(_UNLIMITED)
    return Measurement.get(screen, screen.options, table)


def _screen(width: int) -> Console:
    nowhere = io.StringIO()  # rich would flush standard output, too
    return Console(
        file=nowhere, width=width, color_system=None, force_terminal=False, legacy_windows=False, soft_wrap=True
    )


def _drawn(width: int, *parts: RenderableType) -> str:
    screen = _screen(width)
    with screen.capture() as drawn:
        for part in parts:
            screen.print(part)
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())


def _blocks(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int) -> Iterator[RenderableType]:
    """For each row its name, and below it a line for each other cell; numbers end in the same column."""
    labels, above = [heading.replace("/\n", "/").replace("\n", " ") for heading in headings[1:]], ""
    for row in rows:
        if len(headings) == 2:
            yield Text("\n".join(wrap(": ".join(row), width)))
            continue
        name = row[0] if left else f"{headings[0]} {row[0]}"
        above = above if name.startswith(" ") else name  # an indented row belongs to the row above
        yield Text(name if above == name else f"{above}, {name.strip()}")
        if 4 + max(map(cell_len, labels)) + _least(row[1:]) > width:
            for label, cell in zip(labels, row[1:], strict=True):
                yield Text("\n    ".join([f"  {label}", *wrap(cell, width - 4)]))
            continue
        grid = Table.grid(padding=(0, 2, 0, 0))
        for index, (label, cell) in enumerate(zip(labels, row[1:], strict=True)):
            grid.add_row(label, Text(cell, justify="left" if index < left - 1 else "right"))
        yield Padding(grid, (0, 0, 0, 2))


def wrap(text: str, width: int) -> list[str]:
    """A line broken at blanks and between Chinese characters; further lines are indented by two.

    rich breaks a run of Chinese anywhere and cuts paths. Here a path, or a longer word, stays whole, so that it can be
    copied; the terminal shows its end on the next line.

    >>> wrap("note: 一句很长的话，说完。 very/long/路径", 12)
    ['note: 一句很', '  长的话，说', '  完。', '  very/long/路径']
    """
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for piece in [piece for word in text.split(" ") for piece in _pieces(word)]:
        if lines and cell_len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append("  " * bool(lines) + piece.lstrip(" "))
    return lines


def _pieces(word: str) -> list[str]:
    """The unbreakable pieces of a word: it may be broken beside a Chinese character, where punctuation allows."""
    pieces = [" "]
    for character in word:
        before = pieces[-1][-1]
        seam = "/" not in word and before != " " and 2 in {cell_len(before), cell_len(character)}
        if seam and character not in _CLOSING and before not in _OPENING:
            pieces.append(character)
        else:
            pieces[-1] += character
    return pieces
