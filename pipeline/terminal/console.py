"""What the terminal shows: lines, progress bars and tables. Only the command line uses it.

In: values. Out: text on standard output (results) and standard error (progress and remarks). A bar is drawn on a
terminal only; elsewhere progress is lines of a log. rich honours `NO_COLOR` and pipes. On a terminal lines and
tables fit its width; in a pipe or a file nothing is wrapped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from corpus.pipeline.errors import CorpusError, DiskError
from corpus.pipeline.humanize import visible
from corpus.pipeline.progress import Progress
from corpus.pipeline.terminal.progress_log import ProgressLog

if TYPE_CHECKING:
    from corpus.pipeline.terminal.progress_bar import Bar


_DEFAULT_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""


class Console(Progress):
    """The progress of a stage, on standard error: a bar on a terminal, lines of a log elsewhere."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._log: ProgressLog | None = None

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Start a bar, or a log."""
        self.end()
        self._log = log = ProgressLog(label, total, unit, done=done)
        if sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}:
            from corpus.pipeline.terminal.progress_bar import Bar

            self._bar = Bar(label, total, unit, dropped=log.dropped.total, note=lambda: log.note, done=done)
            self._bar.start()

    def advance(self, amount: int) -> None:
        """Move the bar, or print the line that is due."""
        if self._bar is not None:
            self._bar.advance(self._bar.task, amount)
        elif self._log is not None:
            self._say_if(self._log.advance(amount))

    def drop(self, reasons: Mapping[str, int]) -> None:
        """Count what was dropped; the bar or the next line shows it."""
        if self._log is not None:
            self._log.drop(reasons)

    def note(self, text: str) -> None:
        """Show a note in the bar at once, in a log with the next line."""
        if self._log is not None:
            self._log.note = text

    def end(self) -> None:
        """Remove the bar; in a log, print the totals of long work."""
        bar, log, self._bar, self._log = self._bar, self._log, None, None
        if bar is not None:
            bar.stop()
        elif log is not None:
            self._say_if(log.ended())

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
    """Write a piece of the result to standard output at once; on a terminal unsafe characters are code points."""
    _put((visible(text) if sys.stdout.isatty() else text) + end)


def _put(text: str) -> None:
    with _named_output():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _named_output() -> Iterator[None]:
    """Name standard output where it cannot take the result; a reader that has left is click's to end quietly."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # so that nothing is left for Python to write when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        hint = "Send it to a disk with room; the workspace is as the command left it."
        raise DiskError(f"standard output: {error.strerror or error}", hint=hint) from error


def line(text: str) -> None:
    """A sentence of the result, wrapped for a terminal."""
    write(_fitting(text, sys.stdout))


def data(value: Any) -> None:
    """The result as JSON, for programs. Numbers that JSON does not have become null."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    _put(json.dumps(_finite(value), ensure_ascii=ascii_only, indent=2, allow_nan=False) + "\n")


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    left: int = 1,
    spare: Sequence[str] = (),
) -> None:
    """A table of results that fits the terminal.

    The first `left` columns are aligned to the left, the others to the right. Where there is no room the columns with
    the headings in `spare` are dropped, the first one first.
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
    return int(said) if said.isdecimal() and int(said) else columns or _DEFAULT_COLUMNS


def _fitting(text: str, stream: IO[str]) -> str:
    """Text for a terminal: safe and wrapped; for a pipe or a file as it is."""
    width = _width(stream)
    if width is None:
        return text
    text = visible(text, keep="\n")
    if len(text) * 2 <= width:  # no character is wider than two columns
        return text
    from corpus.pipeline.terminal.table import wrap

    return "\n".join(piece for part in text.split("\n") for piece in wrap(part, width))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def marked(pieces: Sequence[tuple[str, str]]) -> None:
    """A text with removals and additions marked: by colour on a terminal, by brackets elsewhere."""
    from rich.console import Console as RichConsole
    from rich.text import Text

    screen = RichConsole(highlight=False, soft_wrap=True)
    brackets = {"gone": ("[-", "-]"), "new": ("{+", "+}")} if screen.no_color or not screen.is_terminal else {}
    styles = {"gone": "red strike", "new": "green underline", "more": "dim"}
    line = Text()
    for kind, text in pieces:
        opening, closing = brackets.get(kind, ("", ""))
        line.append(opening + visible(text) + closing, style=styles.get(kind, ""))
    with _named_output():
        screen.print(line)


def failure(error: CorpusError) -> None:
    """A named failure in one or two lines on standard error."""
    print(_fitting(f"Error: {error.message}", sys.stderr), file=sys.stderr)
    if error.hint:
        print(_fitting(error.hint, sys.stderr), file=sys.stderr)


def open_closed_streams() -> None:
    """Give each closed standard stream the null device, so that no file of the command takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  # open until the process ends
            setattr(sys, name, stream)
