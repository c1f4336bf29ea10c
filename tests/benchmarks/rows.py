"""The rows of the table: one function each, `ROWS` names them in their order.

A row makes its input ready, lets ours and the peers take turns as whole processes, and returns its lines. Speeds are
figures per second of the work itself (`Run.work_s`): without the interpreter's start and imports, for both sides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from corpus.pipeline.manifest import CORPORA
from tests.benchmarks import inputs, measure
from tests.benchmarks.bench import NEWS, ONE, VOCABULARY, Bench, Start, drop, tell
from tests.benchmarks.dedup_rows import documents, near_duplicates, recall
from tests.benchmarks.inputs import MEGABYTE
from tests.benchmarks.lines import Line, Side, Target, alone, compare, side
from tests.benchmarks.measure import Run
from tests.benchmarks.model_rows import sample, train
from tests.benchmarks.stage_rows import ingest, pack, tokenizer
from tests.benchmarks.whole import GIGABYTE, sizes, whole

HELP_RUNS = 11
WORKERS_FACTORS = {"pack": 14, "ingest": 4}
"""Work is cut into pieces of 32 MiB: of 100 MB the last round of two workers would be half empty. Packing is fast, so
that workers have to have started for it to tell."""


def workers(bench: Bench) -> list[Line]:
    """Two workers on two cores against one on one, one single large file."""
    two, one = {"on": 2, "workers": 2}, {"on": 1, "threads": ONE, "workers": 1}
    target = Target(least=1.8, text="1.8 x")
    return _on_one_file(bench, "workers", {"two workers": two, "one worker": one}, "", target)


def engine(bench: Bench) -> list[Line]:
    """Ray on this machine against the worker processes, two of each on two cores; Ray has started before."""
    both = {"on": 2, "workers": 2}
    target = Target(least=0.9, text="at most a tenth more")
    return _on_one_file(bench, "engine", {"Ray": both | {"engine": "ray"}, "worker processes": both}, " on Ray", target)


def _on_one_file(
    bench: Bench, row: str, ways: Mapping[str, Mapping[str, Any]], how: str, target: Target
) -> list[Line]:  # fmt: skip
    """Seconds of ingest and pack of one large file in two ways, which are settings of the jobs."""
    lines = []
    for stage, factor in WORKERS_FACTORS.items():
        megabytes = bench.size * factor
        if stage == "pack":
            workspace = bench.documents(row, NEWS, megabytes)
            bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
        else:
            workspace = bench.downloaded(row, {NEWS: inputs.plain(bench.work, NEWS, megabytes)})
        given: dict[str, Any] = {"home": bench.home, "workspace": workspace, "dataset": NEWS}
        starts: dict[str, Start] = {
            name: partial(measure.job, f"ours.{stage}", **given, **settings) for name, settings in ways.items()
        }
        runs = bench.turns(f"{row} {stage}", starts)
        sides = [side(name, made, lambda run: run.work_s) for name, made in runs.items()]
        what = f"{stage}{how}, news2016zh, one file of {megabytes:,.0f} MB"
        lines.append(compare(row, what, "s", *sides, target=target, less_is_better=True))
        drop(workspace)
    return lines


def memory(bench: Bench) -> list[Line]:
    """Peak memory of each stage at two sizes of input, two workers."""
    made: dict[str, list[Run]] = {"ingest": [], "tokenizer": [], "pack": []}
    for factor in (1, 10):
        source = inputs.plain(bench.work, NEWS, bench.size * factor)
        workspace = bench.downloaded("memory", {NEWS: source})
        given: dict[str, Any] = {"home": bench.home, "on": 2, "workspace": workspace}
        made["ingest"].append(measure.job("ours.ingest", dataset=NEWS, workers=2, **given))
        made["tokenizer"].append(measure.job("ours.tokenizer", vocab_size=VOCABULARY, **given))
        made["pack"].append(measure.job("ours.pack", dataset=NEWS, workers=2, **given))
        for stage, runs in made.items():
            tell(f"memory: {stage} x {factor}: {runs[-1].error or f'{runs[-1].peak / MEGABYTE:,.0f} MB'}")
        drop(workspace)
    lines = []
    for stage, (small, large) in made.items():
        sides = [
            side(f"{bench.size * factor:,.0f} MB", [run], lambda run: run.peak / MEGABYTE)
            for factor, run in ((10, large), (1, small))
        ]
        what = f"{stage}: peak memory of a process"
        growth = sides[0].median / sides[1].median if sides[0].values and sides[1].values else None
        lines.append(
            Line(
                row="memory", what=f"{what}, input x 10", unit="MB", ours=sides[0], peer=sides[1], ratio=growth,
                target=Target(most=1.1, text="at most 1.1 x"), note="one run at each size, two workers",
            )
        )  # fmt: skip
        limit = Target(most=GIGABYTE / MEGABYTE, text="under 1,000 MB")
        lines.append(alone("memory", what, "MB", sides[0], target=limit))
    return lines


def disk(bench: Bench) -> list[Line]:
    """Bytes of a packed dataset for each token, lineage and descriptions included."""
    sources = {dataset: inputs.plain(bench.work, dataset, bench.size) for dataset in CORPORA}
    workspace = bench.downloaded("disk", sources)
    for dataset in CORPORA:
        bench.need("ours.ingest", workspace=workspace, dataset=dataset, workers=2)
    bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
    lines = []
    for dataset in CORPORA:
        run = measure.job("ours.pack", home=bench.home, on=2, workspace=workspace, dataset=dataset, workers=2)
        packed = side("ours", [run], lambda run: run.figures["bytes"] / run.figures["tokens"])
        most = 2.6 if dataset == "translation2019zh" else 2.2
        what = f"packed {dataset}: bytes a token, lineage included"
        lines.append(alone("disk", what, "bytes/token", packed, target=Target(most=most, text=f"at most {most:g}")))
    drop(workspace)
    return lines


def start(bench: Bench) -> list[Line]:
    """`corpus --help`, and what it loads."""
    command = [str(Path(sys.executable).with_name("corpus")), "--help"]
    runs = [measure.process(command, threads=ONE, home=bench.home) for _ in range(HELP_RUNS)]
    seen = bench.need("ours.help_imports").figures["heavy"]
    loaded = ", ".join(seen) or "neither torch, transformers, datasets nor pyarrow"
    return [
        alone(
            "start", "corpus --help", "s", side("ours", runs, lambda run: run.wall_s),
            target=Target(most=0.3, text="under 0.3 s"), note=f"{HELP_RUNS} runs; loads {loaded}",
        )
    ]  # fmt: skip


def history(bench: Bench) -> list[Line]:
    """The tokenization that people used, as measured once."""
    return [
        Line(
            row="history", what="tokenization of GPT2-Chinese", unit="MB/s",
            ours=Side(name="not run"), peer=Side(name="GPT2-Chinese", values=[0.65]),
            note="measured once on one core; build_files in train.py of github.com/Morizeyao/GPT2-Chinese",
            bar="pack",
        )
    ]  # fmt: skip


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "ingest": ingest,
    "pack": pack,
    "tokenizer": tokenizer,
    "workers": workers,
    "engine": engine,
    "memory": memory,
    "disk": disk,
    "train": train,
    "sample": sample,
    "start": start,
    "duplicates": near_duplicates,
    "recall": recall,
    "documents": documents,
    "whole": whole,
    "sizes": sizes,
    "history": history,
}
