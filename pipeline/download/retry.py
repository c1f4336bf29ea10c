"""How long to wait for a place that is slow, busy or gone, and when to give it up.

In: what went wrong and how far one had come. Out: a pause before the next try, or DownloadError.
Invariant: every wait is bounded and the number of tries without gain is too, so nothing waits for ever.
Cost: the waiting itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from corpus.pipeline.errors import DownloadError
from corpus.pipeline.progress import Progress

T = TypeVar("T")
_LATER = "Run the same command again later: it goes on with what has come."


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait for what, and how often to try again."""

    connect_s: float = 20.0
    """Seconds for a connection to come about."""
    silence_s: float = 30.0
    """Seconds without a single byte after which a connection counts as cut."""
    least_rate: int = 1024
    """Bytes a second, over `rate_window_s`, below which a connection counts as cut."""
    rate_window_s: float = 30.0
    """Seconds over which the rate is taken."""
    attempts: int = 5
    """Tries in a row that gain less than `gain_bytes` before a place is given up."""
    connect_attempts: int = 2
    """The same for a place that cannot be reached at all."""
    gain_bytes: int = 1 << 20
    """Bytes beyond the furthest point so far that make a try a success."""
    backoff_s: float = 1.0
    """Seconds before the second try; each further one waits twice as long."""
    longest_wait_s: float = 120.0
    """Longest wait before a try; a server that asks for more is given up."""
    redirects: int = 10
    """Redirects followed for one request."""


PATIENCE = Patience()


class TransientError(Exception):
    """Worth another try at the same place; never leaves this stage."""

    def __init__(self, message: str, *, wait_s: float | None = None, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.is_unreachable = is_unreachable


class Tries:
    """Counts what went wrong at one place, waits between tries, and gives up in the end."""

    def __init__(self, shown: str, patience: Patience, progress: Progress) -> None:
        self._shown = shown
        self._patience = patience
        self._progress = progress
        self._failures = 0
        self._furthest = 0

    def failed(self, error: TransientError, position: int = 0) -> None:
        """Wait until the next try is due; `position` is how many bytes are there by now.

        Raises:
            DownloadError: it is not worth another try.

        """
        patience = self._patience
        has_gained = position >= self._furthest + patience.gain_bytes
        self._failures = 1 if has_gained else self._failures + 1
        self._furthest = max(self._furthest, position)
        backoff = min(patience.backoff_s * 2 ** (self._failures - 1), patience.longest_wait_s)
        wait = backoff if error.wait_s is None else error.wait_s
        if self._failures >= (patience.connect_attempts if error.is_unreachable else patience.attempts):
            raise DownloadError(
                f"{self._shown}: {error}; given up after {self._failures} tries", hint=_LATER
            ) from error
        if wait > patience.longest_wait_s:
            raise DownloadError(
                f"{self._shown}: {error}, and asks to come back in {wait:,.0f} s; "
                f"given up, because that is more than {patience.longest_wait_s:,.0f} s",
                hint=_LATER,
            ) from error
        self._progress.say(f"{self._shown}: {error}; trying again in {wait:.1f} s")
        time.sleep(wait)

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, tried until it comes or is given up.

        Raises:
            DownloadError: it is not worth another try.

        """
        while True:
            try:
                return function()
            except TransientError as error:
                self.failed(error)


def paced(chunks: Iterator[bytes], patience: Patience) -> Iterator[bytes]:
    """The same chunks, until they come too slowly to be worth waiting for.

    Raises:
        TransientError: less than `least_rate` over `rate_window_s`.

    """
    since, count = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        count += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed >= patience.rate_window_s:
            if count < patience.least_rate * elapsed:
                raise TransientError(f"too slow, {count / elapsed:,.0f} bytes a second over {elapsed:.1f} s")
            since, count = time.monotonic(), 0
