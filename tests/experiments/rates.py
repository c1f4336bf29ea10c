"""`python -m tests.experiments.rates`: processor seconds, files and bytes of each stage, for docs/scale.md.

In: the sample of real text (CORPUS_MIRROR), enlarged to the sizes asked for, in the shares of the official corpora;
evaluation files. Out: a table in Markdown, and with `--json FILE` all figures.
Method: one worker, so a stage runs in this process. Processor time, user and system, does not depend on what else the
machine does, as seconds by the clock do. Each stage has a constant part, so a rate is the slope between the smallest
and the largest size. The smallest size is run once before, so that nothing is loaded while it is measured. The
tokenizer, whose training is constant and in a process of its own, is not measured.
Cost: some 60 s of one core with the default sizes, and three bytes of disk for each byte of the input.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpus.pipeline import decontaminate, dedup, documents, download, export, pack, quality, tokenizer
from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.manifest import CORPORA
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger
from tests.benchmarks import inputs
from tests.benchmarks.whole import SHARES

AREAS = {
    "ingest": ("documents", "dedup/keys", "dedup/bands"), "ingest without signatures": ("documents",),
    "dedup": ("dedup/lists", "dedup/clusters.parquet"), "dedup --spans 200": ("dedup/spans", "dedup/passages.parquet"),
    "decontaminate": ("decontaminate",), "quality": ("quality",), "pack": ("packed",), "export": ("../export",),
}  # fmt: skip
"""What each measured stage writes."""


def seconds() -> float:
    """Processor seconds of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def stages(workspace: Workspace, against: Sequence[Path]) -> Iterator[tuple[str, Callable[[], object]]]:
    """The stages in order, each as one call."""

    def ingest(*, signatures: bool) -> None:
        shutil.rmtree(workspace.root / "documents", ignore_errors=True)
        for name in CORPORA:
            documents.run(documents.IngestConfig(dataset=name, workers=1, signatures=signatures), workspace)

    def rows() -> None:
        for name in CORPORA:
            pack.run(pack.PackConfig(dataset=name, workers=1), workspace)

    positive = quality.QualityConfig(positive=("wiki2019zh",), workers=1)
    evaluation = decontaminate.DecontaminateConfig(against=tuple(against), workers=1)
    place = workspace.root.parent / "export"
    yield "ingest without signatures", lambda: ingest(signatures=False)
    yield "ingest", lambda: ingest(signatures=True)
    yield "dedup", lambda: dedup.run(dedup.DedupConfig(workers=1), workspace)
    yield "dedup --spans 200", lambda: dedup.run(dedup.DedupConfig(workers=1, spans=200), workspace)
    yield "decontaminate", lambda: decontaminate.run(evaluation, workspace)
    yield "quality", lambda: quality.run(positive, workspace)
    shutil.rmtree(workspace.quality, ignore_errors=True)  # so that all documents are packed, as by default
    yield "tokenizer", lambda: tokenizer.run(tokenizer.TokenizerConfig(), workspace)
    yield "pack", rows
    yield "export", lambda: export.run(export.ExportConfig("megatron", place, workers=1), workspace)


def measure(work: Path, megabytes: float, against: Sequence[Path]) -> dict[str, Any]:
    """Figures of all stages at one size."""
    folder = work / f"{megabytes:g}"
    shutil.rmtree(folder, ignore_errors=True)
    workspace, size, found = Workspace(folder / "workspace"), 0, dict[str, Any]()
    scale = megabytes / sum(SHARES.values())
    with workspace.writing("rates"):
        for name in CORPORA:
            source = inputs.archive(work, name, round(scale * SHARES[name], 1))
            size += inputs.size(source)
            download.run(download.DownloadConfig(dataset=name, source=str(source)), workspace)
        for name, stage in stages(workspace, against):
            begun = seconds()
            stage()
            spent = seconds() - begun
            if name not in AREAS:
                continue
            files = [path for area in AREAS[name] for path in _files((workspace.root / area).resolve())]
            found[name] = {"seconds": spent, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}
            print(f"{megabytes:g} MB, {name}: {spent:.2f} s", file=sys.stderr, flush=True)
        counted = _counts(workspace)
    shutil.rmtree(folder)
    return {"megabytes": size / 1e6, **counted, "stages": found}


def _files(place: Path) -> list[Path]:
    return [path for path in (place, *place.rglob("*")) if path.is_file()]


def _counts(workspace: Workspace) -> dict[str, int]:
    """Documents, their characters, tokens and pieces, as the ledgers have them."""
    counts = dict.fromkeys(("documents", "characters", "tokens", "shards", "ledger_bytes"), 0)
    for name in CORPORA:
        made, rows = read_ledger(workspace.documents(name)), read_ledger(workspace.packed(name))
        if made is None or rows is None:
            raise RuntimeError(f"{name} is not packed")
        counts["documents"] += made.counts["documents"]
        counts["characters"] += sum(made.counts["characters"].values())
        counts["tokens"] += sum(split["tokens"] for split in rows.counts["splits"].values())
        counts["shards"] += len(made.outputs)
        counts["ledger_bytes"] += (workspace.documents(name) / LEDGER).stat().st_size
    return counts


def table(points: Sequence[dict[str, Any]]) -> str:
    """The rates between the smallest and the largest size, in Markdown."""
    small, large = points[0], points[-1]
    more, rows = large["megabytes"] - small["megabytes"], list[list[str]]()
    for name in large["stages"]:
        one, other = small["stages"][name], large["stages"][name]
        slope = (other["seconds"] - one["seconds"]) / more
        constant = one["seconds"] - slope * small["megabytes"]
        rows.append([
            name, f"{slope * 1000:.1f}", f"{max(constant, 0):.1f}", f"{slope * 1e6 / 3600:.1f}",
            f"{(other['bytes'] - one['bytes']) / more / 1e6:.3f}",
        ])  # fmt: skip
    heads = ["stage", "ms a MB", "and once, s", "core-hours a TB", "bytes written a byte of records"]
    return markdown_table(heads, rows)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Libraries use one thread, as workers of several processes do."""
    import pyarrow as pa  # only here

    before = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        yield
    finally:
        pa.set_cpu_count(before)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.rates", description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for inputs and workspaces")
    parser.add_argument("--sizes", type=float, nargs="+", default=[40.0, 160.0], metavar="MB", help="two or more")
    parser.add_argument("--against", type=Path, action="append", required=True, metavar="FILE", help="evaluation set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all figures go")
    asked = parser.parse_args()
    sizes = sorted(asked.sizes)
    with _one_thread():
        measure(asked.work, sizes[0], asked.against)
        points = [measure(asked.work, size, asked.against) for size in sizes]
    if asked.json:
        asked.json.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    print(f"Input from the {inputs.source()}:\n\n{table(points)}")


if __name__ == "__main__":
    main()
