"""Retry policy for downloads: timeouts, backoff, and when to give up.

In: a failure, and the size of the partial file.
Out: a wait before the next attempt, or DownloadError.
Invariant: every wait is bounded, and so is the number of attempts without progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from corpus.pipeline.errors import DownloadError
from corpus.pipeline.progress import Progress

T = TypeVar("T")
_LATER = "Run the same command again later: it resumes the download."


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Timeouts and numbers of attempts."""

    connect_timeout_s: float = 20.0
    read_timeout_s: float = 30.0
    """Seconds without a single byte after which a connection counts as cut."""
    min_rate: int = 1024
    """Bytes a second, over `rate_window_s`, below which a connection counts as cut."""
    rate_window_s: float = 30.0
    attempts: int = 5
    """Attempts in a row that add less than `progress_bytes` before a server is given up."""
    connect_attempts: int = 2
    """The same for a server that cannot be reached at all."""
    progress_bytes: int = 1 << 20
    """Bytes beyond the furthest position so far that reset the count of failures."""
    backoff_s: float = 1.0
    """Seconds before the second attempt; doubled before each further one."""
    max_wait_s: float = 120.0
    """Longest wait before an attempt; a server that asks for more is given up."""
    max_redirects: int = 10


DEFAULT_RETRY = RetryPolicy()


class TransientError(Exception):
    """A failure worth another attempt at the same server; never leaves this package."""

    def __init__(self, message: str, *, wait_s: float | None = None, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.is_unreachable = is_unreachable


class Retrier:
    """Counts the failures of one URL or file, and waits between attempts."""

    def __init__(self, shown: str, policy: RetryPolicy, progress: Progress) -> None:
        self._shown = shown
        self._policy = policy
        self._progress = progress
        self._failures = 0
        self._furthest = 0

    def failed(self, error: TransientError, position: int = 0) -> None:
        """Wait until the next attempt is due; `position` is the size of the partial file.

        Raises:
            DownloadError: the attempts are used up, or the server asks for too long a wait.

        """
        policy = self._policy
        has_progress = position >= self._furthest + policy.progress_bytes
        self._failures = 1 if has_progress else self._failures + 1
        self._furthest = max(self._furthest, position)
        backoff = min(policy.backoff_s * 2 ** (self._failures - 1), policy.max_wait_s)
        wait = backoff if error.wait_s is None else error.wait_s
        if self._failures >= (policy.connect_attempts if error.is_unreachable else policy.attempts):
            why = f"{error}; given up after {self._failures} attempts"
            raise DownloadError(f"{self._shown}: {why}", hint=_LATER) from error
        if wait > policy.max_wait_s:
            why = f"{error}, Retry-After {wait:,.0f} s; given up, because that is more than {policy.max_wait_s:,.0f} s"
            raise DownloadError(f"{self._shown}: {why}", hint=_LATER) from error
        self._progress.say(f"{self._shown}: {error}; retrying in {wait:.1f} s")
        time.sleep(wait)

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, retried after each TransientError; raises DownloadError as `failed` does."""
        while True:
            try:
                return function()
            except TransientError as error:
                self.failed(error)


def with_minimum_rate(chunks: Iterator[bytes], policy: RetryPolicy) -> Iterator[bytes]:
    """The same chunks, as long as they arrive fast enough.

    Raises:
        TransientError: less than `min_rate` over `rate_window_s`.

    """
    since, count = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        count += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed >= policy.rate_window_s:
            if count < policy.min_rate * elapsed:
                raise TransientError(f"too slow, {count / elapsed:,.0f} bytes a second over {elapsed:.1f} s")
            since, count = time.monotonic(), 0
