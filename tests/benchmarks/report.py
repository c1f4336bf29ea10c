"""Figures kept, and what is drawn from them: the table, the page, the pictures.

In: lines of rows. Out: one JSON file in which a row that is run again replaces itself, a Markdown table, and
`docs/benchmarks.md` between its two markers with `benchmarks.svg` and `benchmarks-memory.svg` beside it.
No path of the machine is in any of them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from corpus.pipeline import kernels
from tests.benchmarks.lines import Line

Figures = dict[str, Any]
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
_MEGABYTE, _GIGABYTE = 1_000_000, 1 << 30
_PACKAGES = (
    "corpus-zh", "datatrove", "datasets", "transformers", "tokenizers", "fastokens", "gigabpe", "gigatoken", "torch",
    "pyarrow", "numpy",
    "orjson", "OpenCC",
)  # fmt: skip
_DRAWN = ("ingest", "pack", "history", "tokenizer", "train", "sample")
_OURS, _PEER = "#2a6f97", "#bfbfbf"


def machine() -> dict[str, object]:
    """Where and with what versions figures were made."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return {
        "cpu": found[1] if found else platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if os.cpu_count() is None else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / _GIGABYTE),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES} | {"characters by": kernels.NAME},
        "day": time.strftime("%Y-%m-%d"),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def load(file: Path) -> Figures:
    """All rows measured so far."""
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}


def keep(file: Path, name: str, lines: Sequence[Line], circumstances: Mapping[str, object]) -> None:
    """Put a row's lines in place of those it had."""
    figures = load(file)
    figures[name] = {"circumstances": circumstances, "lines": [line.to_dict() for line in lines]}
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".tmp")
    aside.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    aside.replace(file)


def table(figures: Figures, order: Sequence[str]) -> str:
    """The table of all rows, as Markdown."""
    heads = (
        "what",
        "unit",
        "ours",
        "peer",
        "peer's figure",
        "ratio",
        "target",
        "met",
        "peak memory: ours, peer",
        "note",
    )
    rows = [_row(line) for name in order if name in figures for line in figures[name]["lines"]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _row(line: Mapping[str, Any]) -> list[str]:
    ours, peer, target = line["ours"], line["peer"] or {}, line["target"] or {}
    bare = not line["peer"]
    ratio = "" if line["ratio"] is None or bare else f"{line['ratio']:.{3 if 0.8 < line['ratio'] < 1.2 else 2}f}"
    met = {True: "yes", False: "**no**", None: ""}[line["met"]]
    peaks = [f"{side['peak_bytes'] / _MEGABYTE:,.0f}" if side.get("peak_bytes") else "–" for side in (ours, peer)]
    memory = f"{', '.join(peaks)} MB" if any(peak != "–" for peak in peaks) else ""
    cells = (
        line["what"], line["unit"], _figure(ours), peer.get("name", ""), _figure(peer), ratio, target.get("text", ""),
        met, memory, line["note"],
    )  # fmt: skip
    return [str(cell).replace("|", "/").replace("\n", " ") for cell in cells]


def _figure(side: Mapping[str, Any]) -> str:
    """Median and spread."""
    if not side:
        return ""
    if side["median"] is None:
        return f"failed: {side['error']}" if side["error"] else side["name"]
    median, least, most = (_digits(side[key]) for key in ("median", "least", "most"))
    return median if len(side["values"]) == 1 else f"{median} ({least}–{most})"


def _digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write_page(page: Path, figures: Figures, order: Sequence[str]) -> None:
    """Put table, circumstances and pictures between the page's markers."""
    pictures = [("benchmarks.svg", _bars), ("benchmarks-memory.svg", _memory)]
    drawn = [name for name, draw in pictures if draw(page.with_name(name), figures)]
    titles = {
        "benchmarks.svg": "Ours against peers, stage by stage",
        "benchmarks-memory.svg": "Memory on the whole way",
    }
    parts = [_circumstances(figures), table(figures, order), *(f"![{titles[name]}]({name})" for name in drawn)]
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text("\n\n".join((head + BEGIN, *parts, END)) + tail, encoding="utf-8")


def _circumstances(figures: Figures) -> str:
    """Machine, versions and sizes; where rows were measured under others, that is said."""
    groups: dict[str, list[str]] = {}
    for name, row in figures.items():
        groups.setdefault(_sentence(row["circumstances"]), []).append(name)
    if len(groups) == 1:
        return next(iter(groups))
    return "\n\n".join(f"Rows {', '.join(names)}: {sentence}" for sentence, names in groups.items())


def _sentence(seen: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in seen["versions"].items())
    quick = " **Smoke test: too small to say anything about speed.**" if seen["quick"] else ""
    return (
        f"{seen['day']}, {seen['cpu']}, {seen['cores']} cores, {seen['memory_gib']} GiB, {seen['system']}, Python "
        f"{seen['python']}; {versions}. Input from the {seen['input']}: {seen['size_mb']:g} MB for each row, "
        f"{seen['large_size_mb']:g} MB for the tokenizer's larger size, {seen['whole_size_mb']:g} MB for the whole "
        f"way; {seen['runs']} runs of each.{quick}"
    )


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
    if not stages or plt is None:
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
        axis.bar_label(drawn, labels=[_digits(value) for value in values], padding=3, fontsize=8)
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
    axis.set_xlabel("seconds", fontsize=8)
    axis.set_ylabel("resident memory, MB", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
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
