"""How often a request to a storage is repeated, and how long it waits in between.

Invariant: attempts and waits have a limit.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """The limits of one request."""

    attempts: int = 6
    """Attempts before a request has failed."""
    other_bytes: int = 2
    """Attempts at bytes of another SHA-256: a transfer can damage them once."""
    backoff_s: float = 0.5
    """Longest wait after the first attempt; doubled after each further one."""
    most_s: float = 20.0
    """Longest wait."""
    timeout_s: float = 30.0
    """Seconds without a byte after which a request to S3 or a web server has failed."""
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int) -> float:
        """Wait after so many failures, and return for how long.

        The time is drawn from the upper half of what is due, so that clients that failed together do not come back
        together.
        """
        due: float = min(self.most_s, self.backoff_s * 2 ** (failures - 1))
        seconds = due * random.uniform(0.5, 1.0)  # noqa: S311  # a wait is no secret
        self.sleep(seconds)
        return seconds
