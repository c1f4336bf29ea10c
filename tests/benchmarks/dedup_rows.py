"""The rows about duplicates: speed beside other tools, recall on planted copies, and memory by number of documents.

In: the benchmark's input (`duplicates`), the sample of real text or else the built-in dataset (`recall`), synthetic
signatures (`documents`). Out: lines; those of `recall` also have the shares by kind of copy, and those of `documents`
the numbers that a picture is drawn from.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.manifest import BUILT_IN, CORPORA
from corpus.pipeline.workspace.layout import Workspace
from tests.benchmarks import dedup_peers, duplicates, inputs, measure
from tests.benchmarks.bench import NEWS, Bench, Start, drop, tell
from tests.benchmarks.inputs import MEGABYTE
from tests.benchmarks.lines import Line, Side, Target, alone, compare, side
from tests.benchmarks.measure import Run

WORKERS = 2
_LEAST_FOUND = 0.95
_EDITED = "typos 3%"
"""The kind of copy that the target is about."""
Clusters = Mapping[str, tuple[int, bool]]
"""By `DATASET:ID`: the cluster, and whether the document stays."""


@dataclasses.dataclass(frozen=True, slots=True)
class Planted:
    """Documents that have no duplicate, with altered copies of some of them."""

    workspace: Path
    originals: Sequence[str]
    """Texts; their ids are their places."""
    copies: Sequence[tuple[str, int, str]]
    """Kind, place of the original, text."""


def near_duplicates(bench: Bench) -> list[Line]:
    """Texts on disk to lists of duplicates, ours and other tools, two workers each."""
    workspace = bench.documents("duplicates", NEWS, bench.size)
    text = bench.text_megabytes(workspace, NEWS)
    measure.warm(workspace / "documents")
    runs = bench.turns("duplicates", _starts(bench, workspace))
    ours, *others = (side(name, made, partial(_speed, text)) for name, made in runs.items())
    what = f"near duplicates of {text:,.0f} MB of news, two workers"
    note = "texts to lists, signatures included; in the default way ingest writes the signatures"
    lines = [compare("duplicates", what, "MB/s text", ours, each, note=note, bar="duplicates") for each in others]
    drop(workspace, *(bench.work / f"dedup-{name}" for name in dedup_peers.NEEDS))
    return [*(lines or [alone("duplicates", what, "MB/s text", ours, note=note)]), *_missing("duplicates", what)]


def recall(bench: Bench) -> list[Line]:
    """The share of planted copies that are found, ours and other tools; it does not depend on the machine."""
    planted = _planted(bench)
    starts = _starts(bench, planted.workspace)
    runs = {name: start() for name, start in starts.items()}
    shares: dict[str, dict[str, float]] = {}
    true: dict[str, float] = {}
    for name, run in runs.items():
        tell(f"recall: {name}: {run.error or f'{run.work_s:.1f} s'}")
        if not run.error:
            clusters = _clusters_of(bench, planted.workspace, name)
            shares[name], true[name] = _found(planted, clusters), _precision(planted, clusters)
    alike = _by_kind(planted, lambda kind, place, text: duplicates.similarity(planted.originals[place], text))
    extra = {"recall": shares, "similarity": alike, "precision": true, "copies": len(planted.copies)}
    edited = {name: found[_EDITED] for name, found in shares.items()}
    means = {name: statistics.mean(found.values()) for name, found in shares.items()}
    target = Target(least=_LEAST_FOUND, text="at least 0.95")
    lines = [
        _recall_line("planted copies found, 3 % of the characters changed", runs, edited, target),
        _recall_line("planted copies found, all kinds", runs, means, None),
    ]
    lines.append(_recall_line("removed documents that are alike by 0.7 to one that stays", runs, true, None))
    drop(planted.workspace, *(bench.work / f"dedup-{name}" for name in dedup_peers.NEEDS))
    return [dataclasses.replace(lines[0], extra=extra), *lines[1:], *_missing("recall", "planted copies found")]


def documents(bench: Bench) -> list[Line]:
    """Peak memory and seconds of the search by number of documents, from synthetic signatures."""
    lines = []
    for count in sorted(bench.documents_counts):
        folder = bench.folder("synthetic")
        bench.need("synthetic.make", workspace=folder, documents=count)  # the memory of this process must not grow
        command = [str(Path(sys.executable).with_name("corpus")), "dedup", "--workers", str(WORKERS)]
        run = measure.process([*command, "--workspace", str(folder)], on=WORKERS, home=bench.home)
        tell(f"documents: {count:,}: {run.error or f'{run.peak_process / MEGABYTE:,.0f} MB, {run.wall_s:.0f} s'}")
        found = _counts(folder) if not run.error else {}
        removed = sum(found.get(reason, 0) for reason in (dedup.EXACT, dedup.NEAR))
        note = f"{run.wall_s:,.0f} s; {removed:,} removed; all processes {run.peak_total / MEGABYTE:,.0f} MB"
        extra = {"documents": count, "seconds": run.wall_s, "peak": run.peak_process, "peak_total": run.peak_total}
        line = alone(
            "documents", f"corpus dedup, {count:,} documents: largest process", "MB",
            side("ours", [run], lambda run: run.peak_process / MEGABYTE), note=note,
        )  # fmt: skip
        lines.append(dataclasses.replace(line, extra=extra))
        drop(folder)
    return lines


def _starts(bench: Bench, workspace: Path) -> dict[str, Start]:
    given: dict[str, Any] = {"home": bench.home, "on": WORKERS, "workers": WORKERS}
    starts: dict[str, Start] = {"ours": partial(measure.job, "ours.dedup", workspace=workspace, **given)}
    for name, module in dedup_peers.NEEDS.items():
        if importlib.util.find_spec(module):
            job = f"dedup_peers.{name.replace('-', '_')}"
            out = bench.work / f"dedup-{name}"
            starts[name] = partial(measure.job, job, documents=workspace / "documents", out=out, **given)
    return starts


def _missing(row: str, what: str) -> list[Line]:
    """A line for each tool that is not installed."""
    lines = []
    for name, module in dedup_peers.NEEDS.items():
        if importlib.util.find_spec(module) is None:
            tell(f"{row}: {name} is left out: it is not installed")
            lines.append(
                Line(row=row, what=what, unit="", ours=Side(name="-"), peer=Side(name=f"{name}: not installed"))
            )
    return lines


def _planted(bench: Bench) -> Planted:
    """Originals, as many other documents, and copies of each kind, in a workspace of their own."""
    source = _sample(bench)
    random = np.random.default_rng(duplicates.SEED)
    texts = [text for _, text in duplicates.without_like(source)]
    order = random.permutation(len(texts))
    wanted = bench.copies * len(duplicates.KINDS)
    originals = [texts[place] for place in order[: 2 * wanted]]
    copies = duplicates.plant(originals[: len(originals) // 2], random)
    workspace = Workspace(bench.folder("recall"))
    rows = [(f"{place}", "train", text) for place, text in enumerate(originals)]
    duplicates.lay_documents(workspace, CORPORA[0], [rows])
    duplicates.lay_documents(workspace, BUILT_IN, [[(f"{place}", "train", text) for _, place, text in copies]])
    tell(f"recall: {len(originals):,} documents without a like, {len(copies):,} copies")
    return Planted(workspace.root, originals, copies)


def _sample(bench: Bench) -> Workspace:
    """The documents of the sample of real text, else of the built-in dataset, and which have duplicates."""
    if not inputs.has_mirror():
        workspace = duplicates.built_in(bench.work / "recall-source")
    else:
        names = [name for name in CORPORA if name != "webtext2019zh"]
        root = bench.downloaded("recall-source", dict.fromkeys(names, inputs.MIRROR))
        for name in names:
            bench.need("ours.ingest", workspace=root, dataset=name, workers=WORKERS)
        workspace = Workspace(root)
    duplicates.find_duplicates(workspace, dedup.THRESHOLD)
    return workspace


def _clusters_of(bench: Bench, workspace: Path, name: str) -> Clusters:
    if name != "ours":
        read = json.loads((bench.work / f"dedup-{name}" / dedup_peers.CLUSTERS).read_bytes())
        return {document: (cluster, stays) for document, (cluster, stays) in read.items()}
    rows = pq.read_table(Workspace(workspace).dedup / dedup.CLUSTERS).to_pylist()
    return {f"{row['dataset']}:{row['id']}": (row["cluster"], row["kept"]) for row in rows}


def _found(planted: Planted, clusters: Clusters) -> dict[str, float]:
    """By kind, the share of copies that are in a cluster with their original."""

    def is_found(kind: str, place: int, text: str) -> float:
        pair = [clusters.get(f"{name}:{place}", (None, True))[0] for name in (CORPORA[0], BUILT_IN)]
        return float(pair[0] is not None and pair[0] == pair[1])

    return _by_kind(planted, is_found)


def _by_kind(planted: Planted, figure: Callable[[str, int, str], float]) -> dict[str, float]:
    values: dict[str, list[float]] = {kind: [] for kind in duplicates.KINDS}
    for copy in planted.copies:
        values[copy[0]].append(figure(*copy))
    return {kind: round(statistics.mean(found), 4) for kind, found in values.items() if found}


def _precision(planted: Planted, clusters: Clusters) -> float:
    """Of the documents that are removed, the share that is truly alike to one of its cluster that stays."""
    texts = {f"{CORPORA[0]}:{place}": text for place, text in enumerate(planted.originals)}
    texts |= {f"{BUILT_IN}:{place}": text for _, place, text in planted.copies}
    staying: dict[int, list[str]] = {}
    for name, (cluster, stays) in clusters.items():
        if stays:
            staying.setdefault(cluster, []).append(texts[name])
    alike = [
        any(duplicates.similarity(texts[name], other) >= dedup.THRESHOLD for other in staying.get(cluster, ()))
        for name, (cluster, stays) in clusters.items()
        if not stays
    ]
    return statistics.mean(alike) if alike else 0.0


def _recall_line(what: str, runs: Mapping[str, Run], figures: Mapping[str, float], target: Target | None) -> Line:
    """Ours, the target, and the other tools in the note."""
    ours = Side(name="ours", values=[figures["ours"]] if "ours" in figures else [], runs=[runs["ours"]])
    others = [f"{name} {figures[name]:.2f}" if name in figures else f"{name} failed" for name in runs if name != "ours"]
    return alone("recall", what, "share", ours, target=target, note="; ".join(others))


def _counts(folder: Path) -> dict[str, int]:
    """Removed documents by reason."""
    counts = json.loads((folder / "dedup" / "ledger.json").read_bytes())["counts"]["datasets"]
    return {
        reason: sum(sum(found[reason].values()) for found in counts.values()) for reason in (dedup.EXACT, dedup.NEAR)
    }


def _speed(megabytes: float, run: Run) -> float:
    return megabytes / run.work_s
