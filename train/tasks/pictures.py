"""The confusion matrix as a picture.

In: counts by true and predicted label, and the names of the labels. Out: the bytes of a PNG, the same for the same
counts and version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

_CELL_IN, _MARGIN_IN, _LETTER_IN, _DPI = 0.62, 2.0, 0.08, 120
_MOST_WRITTEN = 20
"""Labels up to which each cell has its count."""
_FONT = "DejaVu Sans"
_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei", "PingFang SC")
"""Fonts with Chinese characters, the first that is there."""


def confusion(matrix: np.ndarray, names: Sequence[Sequence[str]], *, title: str) -> bytes:
    """Rows are true labels; a cell's colour is its share of the row, its number the count.

    Of the lists of names the first is written that a font of this machine has, else numbers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, at the end of a run alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    count = len(matrix)
    side = max(3.4, min(12.0, _MARGIN_IN + _CELL_IN * count))
    shown, family = _readable(names, count)
    room = _LETTER_IN * max(map(len, shown))  # of the labels beside the axis, and below it where they are turned
    figure = Figure(figsize=(side + 0.8 + room, side + room), dpi=_DPI, layout="compressed")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    turned = 0 if count <= 3 and max(map(len, shown)) <= 12 else 90
    axes.set_xticks(range(count), shown, rotation=turned, fontsize=8, family=family)
    axes.set_yticks(range(count), shown, fontsize=8, family=family)
    if count <= _MOST_WRITTEN:
        for row in range(count):
            for column in range(count):
                colour = "white" if share[row, column] > 0.55 else "black"
                text = f"{matrix[row, column]:,}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true label", fraction=0.046)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _readable(names: Sequence[Sequence[str]], count: int) -> tuple[list[str], str]:
    """The first list of names that a font has, and the font."""
    from matplotlib import font_manager  # noqa: PLC0415  # as above

    there = {font.name for font in font_manager.fontManager.ttflist}
    chinese = next((font for font in _FONTS if font in there), "")
    for each in names:
        if all(name.isascii() for name in each):
            return list(each), _FONT
        if chinese:
            return list(each), chinese
    return [str(number) for number in range(count)], _FONT
