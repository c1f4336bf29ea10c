"""Items of like length together in a pass, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def passes(lengths: Sequence[int], *, tokens: int = 0, rows: int | None = None) -> Iterator[list[int]]:
    """Places of items in `lengths`, longest first: `rows` a pass, or as many as `tokens` allow, padding included.

    A pass has at least one item.

    >>> list(passes([3, 9, 4, 2], tokens=8))
    [[1], [2, 0], [3]]
    """
    ordered = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    at = 0
    while at < len(ordered):
        many = rows or max(1, tokens // max(1, lengths[ordered[at]]))
        yield ordered[at : at + many]
        at += many
