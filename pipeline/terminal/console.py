"""What the terminal shows: lines, progress bars and tables. Only `cli.py` uses it.

In: values. Out: text on standard output (results) and standard error (progress and remarks). Bars only on a terminal,
elsewhere a plain line now and then; colour only where it is wanted (`NO_COLOR` and pipes are respected by rich). On a
terminal lines and tables fit its width; in a pipe or a file nothing is wrapped. Chinese is two columns wide, and rich
knows it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from corpus.pipeline.errors import CorpusError
from corpus.pipeline.progress import Progress
from corpus.pipeline.terminal.progress_log import Pace

if TYPE_CHECKING:
    from corpus.pipeline.terminal.progress_bar import Bar


_USUAL_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""


class Console(Progress):
    """The progress of a stage, on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._pace: Pace | None = None

    def begin(self, label: str, total: int | None, unit: str) -> None:
        """Start a bar, or the clock for lines."""
        self.end()
        self._pace = pace = Pace(label, total, unit)
        if sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}:
            from corpus.pipeline.terminal.progress_bar import Bar

            self._bar = Bar(label, total, unit, dropped=pace.dropped.total)
            self._bar.start()

    def advance(self, amount: int) -> None:
        """Move the bar, or say the line that is due."""
        if self._bar is not None:
            self._bar.advance(self._bar.task, amount)
        elif self._pace is not None:
            self._say_if(self._pace.advance(amount))

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Count what was dropped; the next line or the bar tells it."""
        if self._pace is not None:
            self._pace.drop(reasons)

    def end(self) -> None:
        """Take the bar away; in a log, say what long work came to."""
        bar, pace, self._bar, self._pace = self._bar, self._pace, None, None
        if bar is not None:
            bar.stop()
        elif pace is not None:
            self._say_if(pace.ended())

    def say(self, message: str) -> None:
        """One line on standard error, above the bar."""
        lines = _fitting(message, sys.stderr)
        if self._bar is not None:
            self._bar.say(lines)
        else:
            print(lines, file=sys.stderr, flush=True)

    def _say_if(self, line: str | None) -> None:
        if line is not None:
            self.say(line)


def write(text: str = "", *, end: str = "\n") -> None:
    """A piece of the result on standard output, at once and as it is."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def line(text: str) -> None:
    """A sentence of the result; a terminal gets it broken at blanks."""
    write(_fitting(text, sys.stdout))


def data(value: Any) -> None:
    """The result as JSON, for programs. Numbers that JSON does not have become null."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    write(json.dumps(_finite(value), ensure_ascii=ascii_only, indent=2, allow_nan=False))


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    left: int = 1,
    spare: Sequence[str] = (),
) -> None:
    """A table of results that fits the terminal.

    The first `left` columns are aligned to the left, the others to the right; those with the headings in `spare` go,
    the first one first, where there is no room.
    """
    from corpus.pipeline.terminal.table import lay_out

    if title:
        line(title)
    write(lay_out(headings, rows, left=left, spare=spare, width=_width(sys.stdout)))


def _width(stream: IO[str]) -> int | None:
    """Columns of the terminal that a stream is, or None for a pipe and a file."""
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and int(said) else columns or _USUAL_COLUMNS


def _fitting(text: str, stream: IO[str]) -> str:
    """Text for a terminal: broken where it reads well, and without what would command it."""
    width = _width(stream)
    if width is None:
        return text
    text = _visible(text)
    if len(text) * 2 <= width:  # no character is wider than two columns
        return text
    from corpus.pipeline.terminal.table import fold

    return "\n".join(piece for part in text.split("\n") for piece in fold(part, width))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def marked(pieces: Sequence[tuple[str, str]]) -> None:
    """A text in which what is gone and what is new stand out: by colour on a terminal, by brackets elsewhere."""
    from rich.console import Console as RichConsole
    from rich.text import Text

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
    print(_fitting(f"Error: {error.message}", sys.stderr), file=sys.stderr)
    if error.hint:
        print(_fitting(error.hint, sys.stderr), file=sys.stderr)


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
