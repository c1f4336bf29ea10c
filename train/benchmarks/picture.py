"""Accuracy over the number of examples, as figure 1.2 of GPT-3 (Brown et al., 2020) shows it.

In: results. Out: the bytes of a PNG, the same for the same results and version of matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from corpus.train.benchmarks.config import BenchmarkResult, interval

_WIDTH_IN, _HEIGHT_IN, _DPI = 6.4, 4.0, 110
_ASIDE = 0.03
_MARKERS = "os^Dv"
_LINES = {
    "accuracy": "log-probability",
    "per_character": "per character",
    "calibrated": "calibrated",
    "pmi": "PMI",
    "pmi_domain": "PMI, domain",
}


def picture(results: Sequence[BenchmarkResult]) -> bytes:
    """One panel for each benchmark: the ways to compare answers, and the floor as a dashed line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, at the end alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    figure = Figure(figsize=(_WIDTH_IN * len(results), _HEIGHT_IN), dpi=_DPI, layout="constrained")
    for panel, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        _panel(panel, result)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _panel(panel: Any, result: BenchmarkResult) -> None:
    shots = sorted(result.shots)
    places = range(len(shots))
    summaries = [result.summary(each) for each in shots]
    there = [name for name in _LINES if all(name in summary for summary in summaries)]
    for number, name in enumerate(there):
        means = [100 * summary[name][0] for summary in summaries]
        bars = [100 * summary[name][1] for summary in summaries]
        aside = [place + _ASIDE * (number - len(there) // 2) for place in places]  # equal figures stay visible
        panel.errorbar(
            aside, means, yerr=bars, label=_LINES[name], marker=_MARKERS[number], markersize=4, linewidth=1.2, capsize=3
        )
    ends = [interval(summary["accuracy"][0], result.items) for summary in summaries]
    panel.fill_between(
        places, [100 * low for low, _ in ends], [100 * high for _, high in ends], alpha=0.12, label="95 % of items"
    )
    if result.floor is not None:
        panel.axhline(100 * result.floor, linestyle="--", linewidth=1, color="0.35", label="floor")
    draws = max(sum(run.shots == each for run in result.runs) for each in shots)
    panel.set_title(f"{result.benchmark}: {result.items:,} items, {draws} draws", loc="left", fontsize=10)
    panel.set_xticks(list(places), [str(each) for each in shots])
    panel.set_xlabel("examples in the prompt")
    panel.set_ylabel("accuracy (%)")
    panel.grid(alpha=0.25)
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
