"""What each part of ingest costs: process time without and with masks, filter rules, duplicates and decontamination.

In: the sample of real text (CORPUS_MIRROR) and evaluation files. Out: a table, one row a dataset, MB of raw records a
second of process time of one core. All variants are measured in turns, medians of the turns.

Run it with `python -m tests.benchmarks.parts --work FOLDER [--against FILE]...`. Cost: about two minutes.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from corpus.pipeline import manifest as manifests
from corpus.pipeline.clean.quality import QUALITY
from corpus.pipeline.decontaminate import config
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents import transform
from corpus.pipeline.download import stage as download
from corpus.pipeline.manifest import CORPORA, Manifest
from corpus.pipeline.read import discover, pieces, spans
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks.inputs import MIRROR

VARIANTS = ("cleaning only", "and masks", "and filter rules")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for a workspace.")
@click.option("--against", multiple=True, type=click.Path(path_type=Path), help="Evaluation files.")
@click.option("--runs", default=5, show_default=True, help="Turns; medians are shown.")
def main(work: Path, against: tuple[Path, ...], runs: int) -> None:
    """Print the table."""
    shutil.rmtree(work, ignore_errors=True)
    workspace = Workspace(work)
    print("dataset, MB | MB a second: " + ", ".join(VARIANTS), flush=True)
    size = 0.0
    with workspace.writing("parts"):
        for name in CORPORA:
            download.run(download.DownloadConfig(dataset=name, source=str(MIRROR)), workspace)
            size += _dataset(workspace, name, runs)
            ingest.run(ingest.IngestConfig(dataset=name, workers=1), workspace)
        for what, stage in _stages(workspace, against):
            seconds = statistics.median(_timed(stage) for _ in range(runs))
            print(
                f"{what}: {seconds:.2f} s of process time, {size / seconds:.1f} MB of raw records a second", flush=True
            )


def _dataset(workspace: Workspace, name: str, runs: int) -> float:
    raw, manifest = workspace.raw(name), manifests.load(name)
    files = discover.list_files(raw, manifest)
    size = sum(file.bytes or 0 for file in files) / 1e6
    bare = replace(manifest.quality, off=QUALITY, mask=(), adverts=False)
    masked = replace(bare, mask=manifest.quality.mask)
    variants = [replace(manifest, quality=bare), replace(manifest, quality=masked), manifest]
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(runs):
        for variant, kept in zip(variants, times, strict=True):
            kept.append(_timed(partial(_make, workspace, raw, files, variant)))
    speeds = [size / statistics.median(kept) for kept in times]
    print(f"{name}, {size:.1f} | {', '.join(f'{speed:.1f}' for speed in speeds)}", flush=True)
    return size


def _make(workspace: Workspace, raw: Path, files: list[spans.RecordFile], manifest: Manifest) -> None:
    for piece in pieces.cut(raw, files, ingest.PIECE_BYTES):
        transform.make_part(
            piece,
            raw=raw,
            folder=workspace.root / "parts",
            manifest=manifest,
            min_length=manifest.min_length,
            identity="parts",
        )


def _stages(workspace: Workspace, against: tuple[Path, ...]) -> list[tuple[str, Callable[[], object]]]:
    def duplicates() -> None:
        shutil.rmtree(workspace.dedup, ignore_errors=True)
        dedup.run(dedup.DedupConfig(workers=1), workspace)

    def evaluation() -> None:
        shutil.rmtree(workspace.decontaminate, ignore_errors=True)
        decontaminate.run(config.DecontaminateConfig(against=against, workers=1), workspace)

    stages: list[tuple[str, Callable[[], object]]] = [("duplicates", duplicates)]
    return [*stages, ("evaluation items", evaluation)] if against else stages


def _timed(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
