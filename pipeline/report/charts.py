"""The charts of the report: bars, distributions and lines.

In: numbers.
Out: `Chart`: a picture as SVG with alternative text, and its numbers as a table.
Cost: a tenth of a second each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from corpus.pipeline.report import page, svg
from corpus.pipeline.report.svg import FAINT, INK, NAMED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 3.9
_SMALL, _TEXT = 8, 8.5
_BINS = 32
_ROOM, _ROOM_LOG = 1.75, 1.15
"""Length of an axis over its longest bar; the value stands beside the bar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A picture with its numbers."""

    svg: str
    title: str
    """A key of the page's words."""
    heading: tuple[str, ...]
    """Keys of the words over the columns of the numbers."""
    rows: Sequence[tuple[str, ...]]
    named: bool = False
    """Whether the first cell of each row is a key of the words, too."""


def bars(
    key: str,
    title: str,
    values: Mapping[str, float],
    *,
    form: str = "{:,.0f}",
    whole: float = 0,
    colours: Sequence[int] = (),
    logarithmic: bool = False,
    named: bool = False,
) -> list[Chart]:
    """One bar for each name, with its value, and its share of `whole` if given, beside it; no chart without values.

    With `named` the names are keys of the page's words, and are shown in both languages.
    """
    if not values:
        return []
    figure, axes = _figure(0.12 + 0.22 * len(values))
    texts = {name: form.format(value) + (f" · {value / whole:.2%}" if whole else "") for name, value in values.items()}
    largest, left = max(values.values()) or 1.0, 0.5 if logarithmic else 0.0
    axes.set_xscale("log" if logarithmic else "linear")
    spoken = {name: page.words()[name] if named else (name, name) for name in values}
    names: dict[str, tuple[str, str]] = {}
    for number, (name, value) in enumerate(values.items()):
        place, end = len(values) - 1 - number, max(value, 0.6) if logarithmic else value
        colour = SERIES[colours[number] if colours else 0]
        (bar,) = axes.barh([place], [end - left], left=left, color=colour, height=0.72)
        _name(bar, names, *(f"{each}: {texts[name]}" for each in spoken[name]))
        axes.annotate(
            texts[name], (end, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=_SMALL,
            color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(values))[::-1], [english for english, _ in spoken.values()], fontsize=_TEXT)
    axes.set_xlim(left, (largest**_ROOM_LOG * 20) if logarithmic else largest * _ROOM)
    axes.set_ylim(-0.6, len(values) - 0.4)
    axes.set_xticks([])
    axes.minorticks_off()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    summaries = [", ".join(f"{spoken[name][at]} {value:,}" for name, value in values.items()) for at in (0, 1)]
    picture = svg.picture(figure, key, page.alternative(title, *summaries), names, dict(spoken.values()))
    return [Chart(svg=picture, title=title, heading=("name", "value"), rows=list(texts.items()), named=named)]


def distribution(key: str, title: str, values: np.ndarray, *, unit: str) -> list[Chart]:
    """A histogram of lengths; the edges grow by a factor. No chart without values."""
    if not len(values):
        return []
    figure, axes = _figure(1.75)
    summary, values = f"{values.min():,} - {values.max():,}", np.maximum(values, 1)
    largest = max(float(values.max()), 2.0)
    edges = np.unique(np.round(np.geomspace(1, largest + 1, _BINS + 1)))
    counts, _ = np.histogram(values, edges)
    names: dict[str, tuple[str, str]] = {}
    rows: list[tuple[str, str]] = []
    axes.set_xscale("log")
    for count, begin, end in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        (bar,) = axes.bar([begin], [count], width=end - begin, align="edge", color=SERIES[0], linewidth=0)
        lengths = f"{begin:,.0f} - {end - 1:,.0f}"
        _name(bar, names, f"{lengths}: {count:,}", f"{lengths}: {count:,}")
        if count:
            rows.append((lengths, f"{count:,}"))
    axes.set_ylim(0, counts.max() * 1.05)
    axes.set_xlim(1, largest + 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.minorticks_off()
    _grid(axes)
    picture = svg.picture(figure, key, page.alternative(title, summary, summary), names)
    return [Chart(svg=picture, title=title, heading=(unit, "documents"), rows=rows)]


def lines(key: str, title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> list[Chart]:
    """Values over the steps of a run, one line for each name that has any; no chart without values."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # 0.3 s that only a report should pay

    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return []
    figure, axes = _figure(2.1)
    for colour, (name, points) in zip(itertools.cycle(SERIES), drawn.items(), strict=False):
        marker = "o" if len(points) < 40 else ""
        axes.plot(*zip(*points, strict=True), label=name, color=colour, marker=marker, markersize=2.5, linewidth=1.2)
    _grid(axes)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(drawn) > 1:
        above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
        axes.legend(fontsize=_SMALL, frameon=False, labelcolor=INK, ncols=2, **above)
    summary = ", ".join(f"{name} {points[0][1]:.4g} - {points[-1][1]:.4g}" for name, points in drawn.items())
    rows = [
        (name, f"{step:,.0f}", f"{value:.6g}") for name, points in drawn.items() for step, value in _thinned(points)
    ]
    picture = svg.picture(figure, key, page.alternative(title, summary, summary), {})
    return [Chart(svg=picture, title=title, heading=("name", "step", "value"), rows=rows)]


def _thinned(points: Sequence[tuple[float, float]], most: int = 50) -> Sequence[tuple[float, float]]:
    if len(points) <= most:
        return points
    return [points[place] for place in np.linspace(0, len(points) - 1, most).round().astype(int).tolist()]


def _figure(height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # 0.3 s that only a report should pay

    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.spines[:].set_edgecolor(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=_SMALL)
    return figure, axes


def _grid(axes: Axes) -> None:
    axes.grid(color=FAINT, alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name(mark: Any, names: dict[str, tuple[str, str]], english: str, chinese: str) -> None:
    mark.set_gid(f"{NAMED}{len(names)}")
    names[f"{NAMED}{len(names)}"] = (english, chinese)
