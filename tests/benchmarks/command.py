"""`python -m tests.benchmarks`: run rows, keep their lines in a JSON file, print the table, write the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from tests.benchmarks import measure, report
from tests.benchmarks.bench import Bench, tell
from tests.benchmarks.inputs import ROOT, source
from tests.benchmarks.lines import Line, Side
from tests.benchmarks.measure import Run
from tests.benchmarks.rows import ROWS

PAGE = ROOT / "docs" / "benchmarks.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--rows", "names", multiple=True, type=click.Choice(list(ROWS)), help="Row, may be repeated; all if none."
)
@click.option("--size", type=float, default=100, metavar="MB", help="Raw input of a dataset; text for the tokenizer.")
@click.option("--large-size", type=float, default=1000, metavar="MB", help="The tokenizer's second size, of text.")
@click.option("--whole-size", type=float, default=2000, metavar="MB", help="Raw input of the whole way.")
@click.option("--whole-runs", type=click.IntRange(1), default=3, help="How often the whole way is gone.")
@click.option(
    "--before",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    metavar="CORPUS",
    help="The `corpus` command of another installation: takes turns in the row whole.",
)
@click.option(
    "--sizes",
    multiple=True,
    type=float,
    default=(100, 400, 1600),
    metavar="MB",
    help="Raw input of the row sizes, may be repeated.",
)
@click.option(
    "--documents",
    "documents_counts",
    multiple=True,
    type=click.IntRange(1),
    default=(1_000_000, 5_000_000, 20_000_000),
    help="Documents of the row documents, may be repeated.",
)
@click.option("--copies", type=click.IntRange(1), default=100, help="Copies of each kind in the row recall.")
@click.option("--runs", type=click.IntRange(1), default=5, help="Rounds in which ours and peers take turns.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("bench-work"), help="Inputs and outputs lie here."
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where figures go.  [default: WORK/figures.json]")
@click.option("--page/--no-page", default=False, help="Write docs/benchmarks.md and its pictures from the figures.")
@click.option("--only-page", is_flag=True, help="Measure nothing: write the page from the figures that are there.")
@click.option("--quick", is_flag=True, help="Small sizes and one run: whether everything works, not how fast it is.")
def main(
    names: Sequence[str],
    size: float,
    large_size: float,
    whole_size: float,
    whole_runs: int,
    before: Path | None,
    sizes: Sequence[float],
    documents_counts: Sequence[int],
    copies: int,
    runs: int,
    work: Path,
    file: Path | None,
    page: bool,
    only_page: bool,
    quick: bool,
) -> None:
    """Measure ours and its peers side by side, as whole processes that take turns."""
    file = file or work / "figures.json"
    bench = Bench(
        work=work.resolve(),
        size=4 if quick else size,
        large_size=12 if quick else large_size,
        whole_size=20 if quick else whole_size,
        runs=1 if quick else runs,
        whole_runs=1 if quick else whole_runs,
        steps=4 if quick else 13,
        tokens=24 if quick else 512,
        sizes=(4, 8) if quick else sizes,
        documents_counts=(20_000, 50_000) if quick else documents_counts,
        copies=4 if quick else copies,
        before=before,
    )
    if not only_page:
        bench.work.mkdir(parents=True, exist_ok=True)
        os.sched_setaffinity(0, measure.cores()[-1:])
        for name in names or ROWS:
            tell(f"{name}: {ROWS[name].__doc__}")
            report.keep(file, name, _lines(name, bench), _circumstances(bench, quick=quick))
    figures = report.load(file)
    click.echo(report.table(figures, list(ROWS)))
    click.echo(report.recall_table(figures))
    if page or only_page:
        report.write_page(PAGE, figures, list(ROWS))


def _lines(name: str, bench: Bench) -> list[Line]:
    """A row's lines; a row that fails is a line that says so."""
    try:
        return ROWS[name](bench)
    except Exception as error:  # noqa: BLE001  # the other rows must come
        tell(f"{name}: failed: {type(error).__name__}: {error}")
        failed = Run(
            wall_s=0,
            cpu_s=0,
            work_s=0,
            peak_process=0,
            peak_total=0,
            maxrss=0,
            error=f"{type(error).__name__}: {error}",
        )
        return [Line(row=name, what=f"{name}: failed", unit="", ours=Side(name="ours", runs=[failed]))]


def _circumstances(bench: Bench, *, quick: bool) -> dict[str, object]:
    return report.machine() | {
        "input": source(),
        "size_mb": bench.size,
        "whole_size_mb": bench.whole_size,
        "whole_runs": bench.whole_runs,
        "large_size_mb": bench.large_size,
        "runs": bench.runs,
        "quick": quick,
    }
