"""What the terminal shows: lines, progress bars and tables. Only `cli.py` uses it.

In: values. Out: text on standard output (results) and standard error (progress and remarks). Bars only on a terminal;
colour only where it is
wanted (`NO_COLOR` and pipes are respected by rich). Chinese is two columns wide, and rich knows it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from corpus.pipeline.errors import CorpusError
from corpus.pipeline.progress import Progress


class Console(Progress):
    """The progress of a stage, on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def begin(self, label: str, total: int | None, unit: str) -> None:
        """Start a bar, unless standard error is not a terminal."""
        self.end()
        if not sys.stderr.isatty():
            return
        from rich import progress as rich_progress  # noqa: PLC0415  # 60 ms that `--help` should not pay
        from rich.console import Console as RichConsole  # noqa: PLC0415

        amount: list[Any] = (
            [rich_progress.DownloadColumn(), rich_progress.TransferSpeedColumn()]
            if unit == "B"
            else [rich_progress.TextColumn("{task.completed:,.0f}/{task.fields[shown_total]} " + unit)]
        )
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=None),
            *amount,
            rich_progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self._bar.start()
        shown = f"{total:,}" if total is not None else "?"
        self._task = self._bar.add_task(label, total=total, shown_total=shown)

    def advance(self, amount: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._task, amount)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, message: str) -> None:
        """One line on standard error, above the bar."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)  # noqa: T201


def write(text: str = "", *, end: str = "\n") -> None:
    """A piece of the result on standard output, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", left: int = 1) -> None:
    """A table of results; the first `left` columns are aligned to the left, the others to the right."""
    from rich import box  # noqa: PLC0415
    from rich.console import Console as RichConsole  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_shown(value)) for value in row))
    RichConsole().print(shown)


def marked(pieces: Sequence[tuple[str, str]]) -> None:
    """A text in which what is gone and what is new stand out: by colour on a terminal, by brackets elsewhere."""
    from rich.console import Console as RichConsole  # noqa: PLC0415  # rich is slow to load, see `begin`
    from rich.text import Text  # noqa: PLC0415  # the same

    screen = RichConsole(highlight=False, soft_wrap=True)
    brackets = {"gone": ("[-", "-]"), "new": ("{+", "+}")} if screen.no_color or not screen.is_terminal else {}
    styles = {"gone": "red strike", "new": "green underline", "more": "dim"}
    line = Text()
    for kind, text in pieces:
        opening, closing = brackets.get(kind, ("", ""))
        line.append(opening + _visible(text) + closing, style=styles.get(kind, ""))
    screen.print(line)


def _visible(text: str) -> str:
    """A stranger's text without what would command a terminal; line breaks stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def failure(error: CorpusError) -> None:
    """A named failure in one or two lines on standard error."""
    print(f"Error: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(error.hint, file=sys.stderr)  # noqa: T201


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(1536000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError(count)


def plain(raw: bytes, limit: int = 2000) -> str:
    """Bytes of a stranger as text that cannot command the terminal: controls are shown, not sent."""
    text = raw[:limit].decode("utf-8", "backslashreplace")
    more = f" ... {len(raw) - limit:,} more bytes" if len(raw) > limit else ""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text) + more


def harmless(text: str) -> str:
    """What a model wrote, without what would command a terminal; a file or a pipe gets it as it is."""
    if not sys.stdout.isatty():
        return text
    return "".join(character for character in text if character.isprintable() or character in "\n\t ")


def _shown(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)
