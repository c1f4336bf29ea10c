"""The curves of a run as a picture: loss, a figure of each validation set, a benchmark, learning rate.

In: the lines of `metrics.jsonl`. Out: the bytes of a PNG, the same for the same lines and version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH_IN, _HEIGHT_IN, _DPI = 9.0, 8.0, 110
_BENCHMARK_IN = 2.9
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _BETWEEN = 0.75, 0.15, 0.35, 0.55, 0.19
"""Margins, and the room between panels as a share of their mean height: matplotlib takes as long to find them as to
draw."""


def picture(
    history: Sequence[Mapping[str, Any]], *, figure: str = "bits_per_character", title: str = "bits a character",
    loss: str = "nats a token",
) -> bytes:  # fmt: skip
    """Three panels over the steps, four with a benchmark; a panel without points says so.

    `figure` is that of the evaluations.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, at the end of a run alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    asked = sorted({key for line in history for key in line if key.startswith("benchmark/")})
    more = {"benchmark (%)": {key.partition("/")[2]: _points(history, key, 100) for key in asked}} if asked else {}
    height = _HEIGHT_IN + _BENCHMARK_IN * len(more)
    drawing = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI)
    drawing.subplots_adjust(
        left=_LEFT_IN / _WIDTH_IN, right=1 - _RIGHT_IN / _WIDTH_IN, top=1 - _TOP_IN / height,
        bottom=_BOTTOM_IN / height, hspace=_BETWEEN,
    )  # fmt: skip
    panels = drawing.subplots(3 + len(more), 1, sharex=True, height_ratios=(3, 3, *(3 for _ in more), 1.4))
    keys = sorted({key for line in history for key in line if key.endswith(f"/{figure}")})
    lines = {
        f"training loss ({loss})": {"training": _points(history, "loss")},
        f"validation ({title})": {key.partition("/")[0]: _points(history, key) for key in keys},
        **more,
        "learning rate": {"": _points(history, "learning_rate")},
    }
    for panel, (heading, series) in zip(panels, lines.items(), strict=True):
        panel.set_title(heading, loc="left", fontsize=10)
        panel.grid(alpha=0.25)
        for name, points in series.items():
            marker = "o" if len(points) < 40 else ""
            if points:
                panel.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3, linewidth=1.3)
        if not any(series.values()):
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", alpha=0.6)
        elif len(series) > 1:
            panel.legend(fontsize=8, frameon=False, ncols=2)
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[-1].set_xlabel("optimizer step")
    buffer = io.BytesIO()
    FigureCanvasAgg(drawing).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _points(history: Sequence[Mapping[str, Any]], key: str, factor: float = 1) -> list[tuple[int, float]]:
    return [(line["step"], factor * line[key]) for line in history if key in line]
