"""Tables and lines that fit the terminal. Loads rich, so it is imported when a table is printed.

In: headings, rows, and the columns of the terminal; None where there is no terminal. Out: text.
Invariants: no number and no name is cut or broken; Chinese is two columns wide; what would command a terminal is shown,
not sent. A table that does not fit gives up columns that it can do without, then breaks headings and sentences at
blanks, then becomes a block for each row. Without a terminal a row is always one line, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ENDLESS = 1 << 16
"""Columns of a place that has no width."""
_CLOSING, _OPENING = "，。、；：！？）》」』】〉”’…—,.;:!?)", "（《「『【〈“‘("
"""Signs that no line begins with, and that none ends with."""
_SENTENCE_BLANKS = 2
"""A cell with more blanks is a sentence, which may be broken; `1,234.5 M` and `2 min 3 s` are not."""
_SENTENCE_COLUMNS = 28
"""A sentence in fewer columns is hard to read."""


def lay_out(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, left: int, spare: Sequence[str], width: int | None
) -> str:
    """A table as text, without colour.

    Args:
        headings: one for each column; a line break is where a heading is broken.
        rows: integers get their commas, everything else is shown as it is.
        left: columns that are aligned to the left; the others are to the right.
        spare: headings of the columns that a narrow terminal need not show, the first to go first.
        width: columns of the terminal.

    """
    cells = [[_shown(value) for value in row] for row in rows]
    if width is None:
        return _drawn(_table(headings, cells, left), _ENDLESS)
    for count in range(len(spare) + 1):
        kept = [index for index, heading in enumerate(headings) if heading not in spare[:count]]
        heads, body = [headings[index] for index in kept], [[row[index] for index in kept] for row in cells]
        table = _table(heads, body, left)
        if _wide(table) <= width:
            return _drawn(table, width)
    return _drawn(table, width) if _squeezed(table, heads, body, width) else _stacked(heads, body, left, width)


def _shown(value: object) -> str:
    text = f"{value:,}" if type(value) is int else str(value)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _wide(table: Table) -> int:
    """The columns that a table takes where nothing in it is broken."""
    screen = _screen(_ENDLESS)
    return Measurement.get(screen, screen.options, table).maximum


def _squeezed(table: Table, headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a table fits when headings and sentences are broken at blanks; its columns then have such widths."""
    columns = list(zip(headings, *rows, strict=True))
    natural = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    least = [min(many, _least(heading, cells)) for many, (heading, *cells) in zip(natural, columns, strict=True)]
    room = width - (_wide(table) - sum(natural)) - sum(least)
    if room < 0:
        return False
    for column, few, many in zip(table.columns, least, natural, strict=True):
        more = min(room, many - few)
        column.width, room = few + more, room - more
    return True


def _least(heading: str, cells: Sequence[str]) -> int:
    """Columns that hold each word of a heading, each name, and each number with its unit; sentences need more."""
    whole = [cell for cell in cells if cell.count(" ") <= _SENTENCE_BLANKS]
    words = max(map(cell_len, [*heading.split(), *whole]), default=1)
    return words if len(whole) == len(cells) else max(words, _SENTENCE_COLUMNS)


def _screen(width: int) -> Console:
    return Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)


def _drawn(table: Table, width: int) -> str:
    screen = _screen(width)
    with screen.capture() as drawn:
        screen.print(table)
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())


def _stacked(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int) -> str:
    """A block for each row: its name, and below it the other cells, on one line where all rows are so short."""
    if len(headings) == 2:
        return "\n".join(["", *(line for row in rows for line in fold(": ".join(row), width)), ""])
    labels = [heading.replace("/\n", "/").replace("\n", " ") for heading in headings[1:]]
    lines = ["  " + "  ".join(map(" ".join, zip(labels, row[1:], strict=True))) for row in rows]
    short = all(cell_len(line) <= width for line in lines)
    shown, above = [""], ""
    for row, line in zip(rows, lines, strict=True):
        name = row[0] if left else f"{headings[0]} {row[0]}"
        above = above if name.startswith(" ") else name  # what is set in belongs to the row above
        shown.append(name if above == name else f"{above}, {name.strip()}")
        shown += [line] if short else _block(labels, row[1:], max(0, left - 1), width)
    return "\n".join([*shown, ""])


def _block(labels: Sequence[str], cells: Sequence[str], left: int, width: int) -> list[str]:
    """A label and its cell on each line; numbers end in the same column."""
    most = max(map(cell_len, labels))
    numbers = max(map(cell_len, cells[left:]), default=0)
    lines = []
    for index, (label, cell) in enumerate(zip(labels, cells, strict=True)):
        begin = f"  {label}{' ' * (most - cell_len(label))}  "
        room = width - cell_len(begin)
        aligned = cell if index < left else " " * (min(numbers, room) - cell_len(cell)) + cell
        if cell_len(aligned) <= room:
            lines.append(begin + aligned)
        else:
            lines += [f"  {label}", *(f"    {line}" for line in fold(cell, width - 4))]
    return lines


def flow(parts: Sequence[str], width: int) -> list[str]:
    """As many parts on a line as there is room for, two blanks between them.

    >>> flow(["baike2018qa: rows", "25 %", "21 MB/s"], 24)
    ['baike2018qa: rows  25 %', '21 MB/s']
    """
    return _filled([f"  {part}" for part in parts], width)


def fold(text: str, width: int) -> list[str]:
    """A line broken at blanks and between Chinese characters, each further line set in by two.

    A longer word and whatever looks like a path stay whole: broken they could not be copied, and the terminal shows
    their end on the next line anyway.

    >>> fold("note: 一句很长的话，说完。 very/long/路径", 12)
    ['note: 一句很', '  长的话，说', '  完。', '  very/long/路径']
    """
    if cell_len(text) <= width:
        return [text]
    first, *others = _filled([piece for word in text.split(" ") for piece in _pieces(word)], width, indent=2)
    return [first, *(f"  {line}" for line in others)]


def _pieces(word: str) -> list[str]:
    """Where a word may be broken: beside each Chinese character, if no sign comes to stand where it must not."""
    pieces = [" "]
    for character in word:
        before = pieces[-1][-1]
        seam = "/" not in word and before != " " and 2 in {cell_len(before), cell_len(character)}
        if seam and character not in _CLOSING and before not in _OPENING:
            pieces.append(character)
        else:
            pieces[-1] += character
    return pieces


def _filled(pieces: Sequence[str], width: int, indent: int = 0) -> list[str]:
    """As many pieces on a line as there is room for; the blanks before the first one of a line go."""
    lines: list[str] = []
    for piece in pieces:
        if lines and cell_len(lines[-1] + piece) <= width - (indent if len(lines) > 1 else 0):
            lines[-1] += piece
        else:
            lines.append(piece.lstrip(" "))
    return lines
