"""The page of the benchmarks: rows that were not measured stay, and pictures are drawn from the figures."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.lines import Line, Side
from tests.benchmarks.pictures import PICTURES

SEEN = {
    "day": "2026-12-01", "cpu": "a", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11", "versions": {},
    "input": "sample", "size_mb": 4, "large_size_mb": 4, "whole_size_mb": 4, "runs": 1, "quick": False,
}  # fmt: skip
ORDER = ("pack", "recall", "sizes", "documents")


def line(row: str, what: str, **extra: object) -> Line:
    return Line(row=row, what=what, unit="s", ours=Side(name="ours", values=[1.0]), extra=dict(extra))


def measured(tmp_path: Path, points: int) -> report.Figures:
    """Figures as they come back from the file; a curve of one point has no picture."""
    file = tmp_path / "figures.json"
    shares = {"typos 1%": 1.0, "typos 3%": 0.96, "cut 5%": 0.5}
    recall = line("recall", "found", recall={"ours": shares, "other": shares}, similarity=shares)
    sizes = [
        line("sizes", f"{size} MB", megabytes=size, seconds=size, stages={"pack": size}) for size in (4, 1)[:points]
    ]
    counts = [
        line("documents", f"{n}", documents=n, seconds=1, peak=n, peak_total=2 * n) for n in (1000, 2000)[:points]
    ]
    for name, lines in {"recall": [recall], "sizes": sizes, "documents": counts}.items():
        report.keep(file, name, lines, SEEN)
    return report.load(file)


def test_what_was_not_measured_stays_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# A\n\n{report.BEGIN}\n\n{report.END}\n\nEnd.\n", encoding="utf-8")
    report.write_page(page, measured(tmp_path, 1), ORDER)
    whole = page.read_text(encoding="utf-8")
    assert "| recall | found | s | 1.00 |" in whole
    assert "| cut 5 % | 0.50 | 0.50 | 0.50 |" in whole
    report.write_page(page, {}, ORDER)
    assert page.read_text(encoding="utf-8") == whole

    file = tmp_path / "other.json"
    report.keep(file, "pack", [line("pack", "new")], SEEN | {"day": "2026-12-02"})
    report.write_page(page, report.load(file), ORDER)
    after = page.read_text(encoding="utf-8")
    assert after.index("| pack | new |") < after.index("| recall | found |")
    assert [kept for kept in whole.splitlines() if kept not in after.splitlines()] == []
    report.keep(file, "sizes", [line("sizes", "8 MB")], SEEN)
    report.write_page(page, report.load(file), ORDER)
    assert "| sizes | 4 MB |" not in page.read_text(encoding="utf-8")


def test_pictures_of_equal_figures_are_equal(tmp_path: Path) -> None:
    figures = measured(tmp_path, 2)
    names = ("benchmarks-sizes.svg", "benchmarks-recall.svg", "benchmarks-documents.svg")
    assert all(PICTURES[name][1](tmp_path / name, figures) for name in names)
    drawn = [(tmp_path / name).read_bytes() for name in names]
    assert len(set(drawn)) == len(names)
    assert PICTURES[names[0]][1](tmp_path / names[0], json.loads(json.dumps(figures)))
    assert (tmp_path / names[0]).read_bytes() == drawn[0]
    assert not PICTURES["benchmarks.svg"][1](tmp_path / "none.svg", figures)
    assert not (tmp_path / "none.svg").exists()
