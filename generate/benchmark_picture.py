"""What a token costs, as a picture: time, keys and values, memory, each against the position in the text.

In: `Timings`. Out: the bytes of a PNG, the same for the same numbers and version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from corpus.generate.benchmark import Point, Timings

_WIDTH_IN, _HEIGHT_IN, _DPI = 12.0, 4.0, 110
_MB = 1e6
_CACHED, _RECOMPUTED = "with cache", "without cache"

_Value = Callable[[Point], float | None]
_PANELS: tuple[tuple[str, dict[str, _Value]], ...] = (
    (
        "time of the next token (ms)",
        {_RECOMPUTED: lambda point: point.recomputed_s * 1e3, _CACHED: lambda point: point.cached_s * 1e3},
    ),
    (
        "keys and values kept (MB)",
        {_RECOMPUTED: lambda _: 0.0, _CACHED: lambda point: point.kept_bytes / _MB},
    ),
    (
        "peak memory, weights included (MB)",
        {
            _RECOMPUTED: lambda point: point.recomputed_peak_bytes and point.recomputed_peak_bytes / _MB,
            _CACHED: lambda point: point.cached_peak_bytes and point.cached_peak_bytes / _MB,
        },
    ),
)


def picture(timings: Timings) -> bytes:
    """Three panels over the position; what could not be measured says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, for --timings alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=_DPI, layout="constrained")
    for panel, (title, lines) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("position: tokens of the text so far")
        panel.grid(alpha=0.25)
        for name, value in lines.items():
            points = [(point.position, value(point)) for point in timings.points if value(point) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, marker="o", markersize=3, linewidth=1.3)
        if panel.lines:
            panel.set_ylim(0, 1.08 * panel.dataLim.ymax)
            panel.legend(fontsize=8, frameon=False)
        else:
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", alpha=0.6)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
