"""Stop strings in streamed text: what may be printed, and whether a stop string was found.

In: pieces of text, cut anywhere. Out: the text before the stop string, as early as it is final.
Invariants: a stop string ends the text at its last character; where several end there, the longest counts; the cuts
between pieces do not matter.
Cost: the newest piece and the longest stop string are searched.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Finds stop strings in one text. Text that may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """The text that is now final, and whether a stop string was found, which is the end."""
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        certain = len(text) - self._undecided(text)
        self._held = text[certain:]
        return text[:certain], False

    def flush(self) -> str:
        """The text held back, at the end of a text without a stop string."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest suffix of `text` that is a prefix of a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
