"""A job's share of the pieces of a stage: `--shard I/N`, for array jobs that write into one workspace.

In: the flag, and pieces numbered from 0. Out: which pieces are the job's, and what it did.
Invariants: the shares 1/N to N/N have each piece once, whatever N is. A job writes files and receipts of pieces of its
share alone, and neither a ledger nor a list. So two jobs with one share write the same bytes, and any later run without
a share finishes the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_EXPECTED = "must be I/N, the I-th of N shares, as 3/16"


@dataclass(frozen=True, slots=True)
class Share:
    """The `index`-th of `count` shares, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--shard {_EXPECTED}: there is at least 1 share, not {self.count}")
        if not 1 <= self.index <= self.count:
            first = "; shares count from 1: give I + 1 for an array that counts from 0" if self.index == 0 else ""
            raise ValueError(f"--shard {_EXPECTED}: I is from 1 to {self.count}, not {self.index}{first}")

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that a flag names.

        >>> Share.parse("3/16")
        Share(index=3, count=16)

        Raises:
            ValueError: the flag names none.

        """
        index, slash, count = text.partition("/")
        if not (slash and _is_number(index) and _is_number(count)):
            raise ValueError(f"--shard {_EXPECTED}, is {text!r}")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, number: int) -> bool:
        """Whether a piece is in this share.

        >>> [number for number in range(8) if Share(3, 3).has(number)]
        [2, 5]
        """
        return number % self.count == self.index - 1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareReport:
    """What a job did with its share of one dataset, or of all."""

    stage: str
    dataset: str | None
    """None for a stage over all datasets."""
    folder: Path
    share: Share
    pieces: int = 0
    """Pieces of all shares; 0 where the stage was finished before."""
    made: int = 0
    """Pieces that this job made."""
    kept: int = 0
    """Pieces of its share that were there before."""
    finished: bool = False
    """Whether the stage was finished and current before, so that nothing was to be done."""
    seconds: float = 0.0
    notes: Sequence[str] = ()
    """What to tell the user."""
