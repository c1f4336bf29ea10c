"""Figures kept, and what is drawn from them: the table, the page, the pictures.

In: lines of rows. Out: one JSON file in which a row that is run again replaces itself, a Markdown table, and
`docs/benchmarks.md` between its two markers with the pictures beside it.
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
from tests.benchmarks.pictures import PICTURES, digits

Figures = dict[str, Any]
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
_MEGABYTE, _GIGABYTE = 1_000_000, 1 << 30
_PACKAGES = (
    "corpus-zh", "datatrove", "datasets", "transformers", "tokenizers", "fastokens", "gigabpe", "gigatoken", "torch",
    "pyarrow", "numpy",
    "orjson", "OpenCC",
)  # fmt: skip
_RECALL = "planted copies that are found"
_HEADS = (
    "row", "what", "unit", "ours", "peer", "peer's figure", "ratio", "target", "met", "peak memory: ours, peer", "note",
)  # fmt: skip
_ROWS = re.compile(r"^Rows ([a-z, ]+): (.*)$", re.MULTILINE)


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


def table(figures: Figures, order: Sequence[str], page: str = "") -> str:
    """The table of all rows, as Markdown; rows that are not among the figures as the page has them."""
    rows: dict[str, list[str]] = {name: [] for name in order}
    for line in page.splitlines():
        name = line.removeprefix("| ").partition(" | ")[0]
        if name in rows and name not in figures:
            rows[name].append(line)
    for name, row in figures.items():
        rows[name] = [_cells((name, *_row(line))) for line in row["lines"]]
    lines = [line for found in rows.values() for line in found]
    return "\n".join((_cells(_HEADS), _cells(["---"] * len(_HEADS)), *lines))


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
    median, least, most = (digits(side[key]) for key in ("median", "least", "most"))
    return median if len(side["values"]) == 1 else f"{median} ({least}–{most})"


def write_page(page: Path, figures: Figures, order: Sequence[str]) -> None:
    """Put table, circumstances and pictures between the page's markers.

    A row that is not among the figures stays as the page has it, and so does a picture that needs one.
    """
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    before, _, tail = rest.partition(END)
    shown = []
    for name, (title, draw) in PICTURES.items():
        if draw(page.with_name(name), figures) or f"({name})" in before:
            shown.append(f"![{title}]({name})")
    recall = recall_table(figures) or _old_recall(before)
    parts = [_circumstances(figures, before), table(figures, order, before), *filter(None, [recall]), *shown]
    page.write_text("\n\n".join((head + BEGIN, *parts, END)) + tail, encoding="utf-8")


def recall_table(figures: Figures) -> str:
    """The share of planted copies that each tool finds, by kind; empty where it was not measured."""
    found = [line["extra"] for line in figures.get("recall", {}).get("lines", ()) if line["extra"].get("recall")]
    if not found:
        return ""
    shares, alike = found[0]["recall"], found[0]["similarity"]
    lines = [_cells((_RECALL, "similarity", *shares)), _cells(["---"] * (2 + len(shares)))]
    for kind, similarity in alike.items():
        told = kind.replace("typos", "characters changed:").replace("%", " %")
        lines.append(_cells((told, f"{similarity:.2f}", *(f"{own[kind]:.2f}" for own in shares.values()))))
    return "\n".join(lines)


def _old_recall(page: str) -> str:
    """The table of copies on the page."""
    found = re.search(rf"^\| {re.escape(_RECALL)} \|.*(?:\n\|.*)*", page, re.MULTILINE)
    return found[0] if found else ""


def _circumstances(figures: Figures, page: str = "") -> str:
    """Machine, versions and sizes of the rows; of those that are not among the figures as the page has them."""
    groups: dict[str, list[str]] = {}
    for names, sentence in _ROWS.findall(page):
        groups.setdefault(sentence, []).extend(name for name in names.split(", ") if name not in figures)
    for name, row in figures.items():
        groups.setdefault(_sentence(row["circumstances"]), []).append(name)
    return "\n\n".join(f"Rows {', '.join(names)}: {sentence}" for sentence, names in groups.items() if names)


def _sentence(seen: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in seen["versions"].items())
    quick = " **Smoke test: too small to say anything about speed.**" if seen["quick"] else ""
    return (
        f"{seen['day']}, {seen['cpu']}, {seen['cores']} cores, {seen['memory_gib']} GiB, {seen['system']}, Python "
        f"{seen['python']}; {versions}. Input from the {seen['input']}: {seen['size_mb']:g} MB for each row, "
        f"{seen['large_size_mb']:g} MB for the tokenizer's larger size, {seen['whole_size_mb']:g} MB for the whole "
        f"way; {seen['runs']} runs of each, {seen.get('whole_runs', 1)} of the whole way.{quick}"
    )
