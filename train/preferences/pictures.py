"""Calibration of a reward model, and the steps of PPO, as pictures.

In: the bins of `figures.calibration`, by dataset; the lines of `metrics.jsonl`. Out: the bytes of a PNG, the same for
the same figures and version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

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


_PANELS = (
    ("score, and reward: less the penalty of a missing end", {"score": "score", "reward": "reward"}),
    ("divergence from the reference (nats an answer)", {"kl": "log-ratio", "kl_k3": "k3"}),
    ("entropy (nats a token)", {"entropy": ""}),
    ("tokens an answer", {"length": ""}),
    ("share of answers that end", {"ended": ""}),
    ("share of tokens whose ratio was clipped", {"clip_fraction": ""}),
    ("loss of the value model", {"value_loss": ""}),
    ("explained variance of the returns", {"explained_variance": ""}),
)
_WIDTH_IN, _ROW_IN = 10.0, 2.2
_SHARES = {"ended", "clip_fraction"}


def ppo(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The figures of PPO's steps, one panel each; dots are the means over validation prompts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # as above
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # as above

    panels = [*_PANELS]
    if any("ptx_loss" in line for line in history):
        panels.append(("loss on pre-training rows (nats a token)", {"ptx_loss": ""}))
    rows = -(-len(panels) // 2)
    drawing = Figure(figsize=(_WIDTH_IN, _ROW_IN * rows), dpi=_DPI)
    drawing.subplots_adjust(left=0.07, right=0.985, bottom=0.06, top=0.965, hspace=0.3, wspace=0.18)
    grid = drawing.subplots(rows, 2, sharex=True).flatten()
    for axes, (heading, series) in zip(grid, panels, strict=False):
        axes.set_title(heading, loc="left", fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        for name, label in series.items():
            points = [(line["step"], line[name]) for line in history if name in line]
            measured = [
                (line["step"], sum(own) / len(own))
                for line in history
                if (own := [value for key, value in line.items() if key.endswith(f"/{name}")])
            ]
            if points:
                (line_,) = axes.plot(*zip(*points, strict=True), label=label, linewidth=1.3)
                if measured:
                    axes.scatter(*zip(*measured, strict=True), s=14, color=line_.get_color(), zorder=3)
        if _SHARES & series.keys():
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(series) > 1:
            axes.scatter((), (), s=14, color="grey", label="validation prompts")
            axes.legend(fontsize=8, frameon=False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[len(panels) - 2 : len(panels)]:  # the last ones of both columns
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("step", fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(drawing).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
