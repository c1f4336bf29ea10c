"""Stop strings in text that comes in pieces: what may be printed, and whether a stop string has come.

In: pieces of text, cut anywhere. Out: the text before the stop string, as early as it is certain. A stop string ends
the text as soon as its last character has come; when several end there, the longest counts. Where the pieces are cut
changes nothing. Cost: the newest piece and the longest stop string are looked at, nothing older.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Looks for stop strings in one text. Text that may be the beginning of one is held back until that is decided."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """The text that is now certain, and whether a stop string has come; after that nothing may be fed."""
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        certain = len(text) - self._undecided(text)
        self._held = text[certain:]
        return text[:certain], False

    def flush(self) -> str:
        """What was held back, at the end of a text in which no stop string has come."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
