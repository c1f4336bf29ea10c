"""The pictures of `docs/benchmarks.md`, each drawn from the figures of the rows.

In: the figures that `make bench` keeps. Out: SVG files; equal figures give equal bytes. A picture is not drawn where
figures for it are missing, or matplotlib is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]
_MEGABYTE = 1_000_000
_DRAWN = ("ingest", "pack", "duplicates", "history", "tokenizer", "train", "sample")
_OURS, _PEER = "#2a6f97", "#bfbfbf"
_OTHERS = (_OURS, "#e07a1f", "#7a7a7a", "#8a5aa8", "#3a9d5d", "#c0392b")
_EDITED = "typos "
"""How kinds of copies begin that have a share of their characters changed."""


def digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _bars(path: Path, figures: Figures) -> bool:
    """Bars for each stage that has a peer. True when the picture was made."""
    stages: dict[str, dict[str, tuple[float, str]]] = {}
    for name in _DRAWN:
        for line in figures.get(name, {}).get("lines", ()):
            peer = line["peer"] or {}
            if not line["bar"] or not peer or peer["median"] is None:
                continue
            suffix = f" ({line['unit']})"
            bars = stages.setdefault(
                line["bar"] + suffix if line["unit"] != "MB/s" else f"{line['bar']} (MB/s text)", {}
            )
            if line["ours"]["median"] is not None:
                bars[_short(line["ours"]["name"])] = line["ours"]["median"], _OURS
            bars[_short(peer["name"])] = peer["median"], _PEER
    plt = _plot()
    if not stages or plt is None or not set(_DRAWN) <= set(figures):  # else bars of the page would be lost
        return False
    heights = [max(2, len(bars)) for bars in stages.values()]
    figure, axes = plt.subplots(
        len(stages), 1, figsize=(8, 0.45 * sum(heights) + 0.6 * len(stages)), squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, (stage, bars) in zip(axes[:, 0], stages.items(), strict=True):
        names = list(bars)
        values = [bars[name][0] for name in names]
        drawn = axis.barh(names, values, color=[bars[name][1] for name in names])
        axis.bar_label(drawn, labels=[digits(value) for value in values], padding=3, fontsize=8)
        axis.set_title(stage + (": less is better" if stage.endswith("(s)") else ""), loc="left", fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return _save(plt, figure, path)


def _short(name: str) -> str:
    return name.replace(", texts in memory", "").replace(" as in run_clm", "")


def _memory(path: Path, figures: Figures) -> bool:
    """Memory over time through the stages of the whole way. True when the picture was made."""
    lines = [line for line in figures.get("whole", {}).get("lines", ()) if line["extra"].get("curve")]
    plt = _plot()
    if not lines or plt is None:
        return False
    figure, axis = plt.subplots(figsize=(8, 3.2))
    start = 0.0
    for number, line in enumerate(lines):
        times, totals, largest = zip(*line["extra"]["curve"], strict=True)
        moments = [start + moment for moment in times]
        first = number == 0
        axis.plot(moments, [size / _MEGABYTE for size in totals], color=_PEER, label="all processes" if first else None)
        axis.plot(
            moments, [size / _MEGABYTE for size in largest], color=_OURS, label="largest process" if first else None
        )
        axis.axvline(start, color="#dddddd", linewidth=0.8, zorder=0)
        height = 1.01 + 0.06 * (number % 2)
        axis.annotate(line["extra"]["stage"], (start, height), xycoords=("data", "axes fraction"), fontsize=8)
        start += line["ours"]["runs"][-1]["wall_s"]
    axis.set_ylim(bottom=0)
    _label(axis, "seconds", "resident memory, MB")
    return _save(plt, figure, path)


def _plot() -> Any:
    """Matplotlib of the extra `bench`, or None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "corpus"
    import matplotlib.pyplot as plt

    return plt


def _save(plt: Any, figure: Any, path: Path) -> bool:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return True


def _sizes(path: Path, figures: Figures) -> bool:
    """Seconds of each stage against the size of the input. True when the picture was made."""
    points = _extras(figures, "sizes", "stages")
    plt = _plot()
    if len(points) < 2 or plt is None:
        return False
    figure, axis = plt.subplots(figsize=(8, 3.6))
    sizes = [point["megabytes"] for point in points]
    for stage, colour in zip(points[0]["stages"], _OTHERS, strict=False):
        axis.plot(sizes, [point["stages"][stage] for point in points], "o-", color=colour, label=stage, markersize=3)
    axis.plot(sizes, [point["seconds"] for point in points], "o--", color="black", label="all commands", markersize=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axis.minorticks_off()
    _label(axis, "megabytes of records", "seconds, two workers")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(plt, figure, path)


def _recall(path: Path, figures: Figures) -> bool:
    """Copies that are found against the share of changed characters, and by kind. True when the picture was made."""
    points = _extras(figures, "recall", "recall")
    plt = _plot()
    if not points or plt is None:
        return False
    shares: Mapping[str, Mapping[str, float]] = points[0]["recall"]
    edited = [kind for kind in points[0]["similarity"] if kind.startswith(_EDITED)]
    others = [kind for kind in points[0]["similarity"] if kind not in edited]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), gridspec_kw={"width_ratios": [1, 1]})
    strengths = [float(kind.removeprefix(_EDITED).removesuffix("%")) for kind in edited]
    for place, (name, own) in enumerate(shares.items()):
        left.plot(strengths, [own[kind] for kind in edited], "o-", color=_OTHERS[place], label=name, markersize=4)
        rows = [line + 0.2 * (place - 1) for line in range(len(others))]
        right.plot([own[kind] for kind in others], rows, "o", color=_OTHERS[place], label=name, markersize=4)
    left.set_xticks(strengths, [f"{strength:g} %" for strength in strengths])
    left.set_ylim(-0.03, 1.03)
    _label(left, "characters changed", "share of copies found")
    right.set_yticks(range(len(others)), others)
    right.invert_yaxis()
    right.set_xlim(-0.03, 1.03)
    _label(right, "share of copies found", "")
    return _save(plt, figure, path)


def _documents(path: Path, figures: Figures) -> bool:
    """Memory of the search for duplicates against the number of documents. True when the picture was made."""
    points = _extras(figures, "documents", "documents")
    plt = _plot()
    if len(points) < 2 or plt is None:
        return False
    figure, axis = plt.subplots(figsize=(8, 3.2))
    counts = [point["documents"] / _MEGABYTE for point in points]
    for name, key, colour in (("all processes", "peak_total", _PEER), ("largest process", "peak", _OURS)):
        axis.plot(counts, [point[key] / _MEGABYTE for point in points], "o-", color=colour, label=name, markersize=4)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    _label(axis, "million documents", "peak memory of corpus dedup, MB")
    return _save(plt, figure, path)


def _extras(figures: Figures, row: str, key: str) -> Sequence[Mapping[str, Any]]:
    """What the lines of a row keep for its picture; of runs that failed nothing."""
    lines = figures.get(row, {}).get("lines", ())
    return [line["extra"] for line in lines if line["extra"].get(key) and line["ours"]["median"] is not None]


def _label(axis: Any, across: str, up: str) -> None:
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


PICTURES: dict[str, tuple[str, Callable[[Path, Figures], bool]]] = {
    "benchmarks.svg": ("Ours against peers, stage by stage", _bars),
    "benchmarks-memory.svg": ("Memory on the whole way", _memory),
    "benchmarks-sizes.svg": ("Seconds of each stage against the size of the input", _sizes),
    "benchmarks-recall.svg": ("Planted copies that are found, by strength and kind of the change", _recall),
    "benchmarks-documents.svg": ("Memory of the search for duplicates against the number of documents", _documents),
}
"""Titles, and what draws them."""
