"""Calibration as a picture.

In: the bins of `figures.calibration`, by dataset. Out: the bytes of a PNG, the same for the same bins and version of
matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

_SIDE_IN, _DPI = 5.0, 120


def calibration(bins: Mapping[str, Sequence[Sequence[float]]], *, title: str) -> bytes:
    """The share of pairs whose preferred answer is the better one, over the probability that the scores give it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, at the end of a run alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    drawing = Figure(figsize=(_SIDE_IN, _SIDE_IN), dpi=_DPI, layout="constrained")
    axes = drawing.subplots()
    axes.plot((0.5, 1), (0.5, 1), color="grey", linestyle="--", linewidth=1, label="as predicted")
    for name, own in bins.items():
        most = max(each[0] for each in own)
        predicted, observed = [each[1] for each in own], [each[2] for each in own]
        (line,) = axes.plot(predicted, observed, linewidth=1, label=name)
        sizes = [8 + 72 * each[0] / most for each in own]
        axes.scatter(predicted, observed, s=sizes, color=line.get_color())
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("predicted probability of the preferred answer")
    axes.set_ylabel("share in which it is the better one")
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(drawing).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
