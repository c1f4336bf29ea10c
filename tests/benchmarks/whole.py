"""The whole way, from archives to packed rows: the commands that a user types, and the seconds of their stages.

In: the archives of the five corpora, in the shares of the official ones, and two evaluation sets.
Out: lines of the rows `whole` (one size, medians of turns) and `sizes` (one way a size).
Method: `corpus ingest --against A --against B`, `corpus tokenizer` and `corpus pack`, each a process, with the default
settings and two workers. Stages are timed by their own `timings.json`, so another installation of the toolkit, also an
older one, takes its turns beside ours (`--before`). `corpus ingest --no-dedup` in a workspace of its own shows what the
search for duplicates adds to ingest, its signatures included.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.benchmarks import inputs, measure
from tests.benchmarks.bench import Bench, drop, tell
from tests.benchmarks.inputs import MEGABYTE
from tests.benchmarks.lines import Line, Side, Target, alone, compare, side
from tests.benchmarks.measure import Run

SHARES = {"wiki2019zh": 1.6, "news2016zh": 9.0, "baike2018qa": 1.6, "webtext2019zh": 3.7, "translation2019zh": 1.2}
"""Gigabytes of the official corpora: the whole way takes them in these shares."""
GIGABYTE = 1_000_000_000
STAGES = {
    "download": "raw", "documents": "documents", "dedup": "dedup", "decontaminate": "decontaminate",
    "tokenizer": "tokenizer", "pack": "packed",
}  # fmt: skip
"""Stages in order, and the folder below which their `timings.json` are."""
EVALS = Path(os.environ.get("CORPUS_EVALS", inputs.ROOT.parent / "shared" / "evals"))
_OURS, _BEFORE = "ours", "before"
_BARE = "ingest --no-dedup"


@dataclass(frozen=True, slots=True)
class Way:
    """One way from archives to rows."""

    runs: Mapping[str, Run]
    """By command, those that were started."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage."""

    @property
    def error(self) -> str:
        """Why it did not come to its end."""
        return next((f"{name}: {run.error}" for name, run in self.runs.items() if run.error), "")

    @property
    def seconds(self) -> float:
        """Of all commands but the one without dedup."""
        return sum(run.wall_s for name, run in self.runs.items() if name != _BARE)


def whole(bench: Bench) -> list[Line]:
    """All five corpora from archives to packed rows on two workers, the commands as a user types them."""
    source, raw = _archives(bench, bench.whole_size)
    commands = {_OURS: _installed()}
    if bench.before:  # which must not find the code of this checkout
        commands[_BEFORE] = ["env", "-u", "PYTHONPATH", str(bench.before)]
    ways: dict[str, list[Way]] = {name: [] for name in commands}
    for number in range(bench.whole_runs):
        for name, corpus in commands.items():
            if not any(way.error for way in ways[name]):
                ways[name].append(_way(bench, corpus, source, bare=True))
                tell(f"whole: {number + 1}/{bench.whole_runs} {name}: {_told(ways[name][-1])}")
    drop(source)
    return _lines(ways, raw)


def sizes(bench: Bench) -> list[Line]:
    """Seconds of each stage of the whole way at several sizes of the input, one way each."""
    lines = []
    for megabytes in sorted(bench.sizes):
        source, raw = _archives(bench, megabytes)
        way = _way(bench, _installed(), source)
        tell(f"sizes: {raw:,.0f} MB: {_told(way)}")
        drop(source)
        runs = list(way.runs.values())
        speed = Side(name=_OURS, values=[] if way.error else [raw / way.seconds], runs=runs)
        note = f"{way.seconds:.0f} s: {', '.join(f'{name} {seconds:.1f}' for name, seconds in way.stages.items())}"
        extra = {"megabytes": raw, "seconds": way.seconds, "stages": dict(way.stages)}
        what = f"the whole way with {raw:,.0f} MB raw, two workers"
        lines.append(Line(row="sizes", what=what, unit="MB/s raw", ours=speed, note=note, extra=extra))
    return lines


def evaluation_sets(work: Path) -> list[Path]:
    """Two evaluation sets: those beside the sample of real text, else questions of the built-in dataset."""
    found = sorted(EVALS.glob("*.jsonl.xz"))[:2] if EVALS.is_dir() else []
    if len(found) == 2:
        return found
    made = []
    for name in ("baike", "webtext"):
        path = work / "evals" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (inputs.ROOT / "manifests" / "demo" / f"{name}.json").read_text(encoding="utf-8").splitlines()
        questions = [json.dumps({"question": json.loads(line)["title"]}, ensure_ascii=False) for line in lines]
        path.write_text("\n".join(questions) + "\n", encoding="utf-8")
        made.append(path)
    return made


def _installed() -> list[str]:
    return [str(Path(sys.executable).with_name("corpus"))]


def _archives(bench: Bench, megabytes: float) -> tuple[Path, float]:
    """A folder of the five archives, and how many megabytes of records are in them."""
    source, total = bench.folder("archives"), sum(SHARES.values())
    for dataset, share in SHARES.items():
        made = inputs.archive(bench.work, dataset, round(megabytes * share / total, 1))
        for path in made.iterdir():
            (source / path.name).hardlink_to(path)
    measure.warm(source)
    return source, inputs.size(source) / MEGABYTE


def _way(bench: Bench, corpus: Sequence[str], source: Path, *, bare: bool = False) -> Way:
    """The commands in a fresh workspace; with `bare` also ingest without dedup, in another one."""
    workspace, other = bench.work / "whole", bench.work / "whole-bare"
    against = [word for path in evaluation_sets(bench.work) for word in ("--against", str(path))]
    ingest = ["ingest", "--source", str(source), "--workers", "2"]
    commands = {
        "ingest": ([*ingest, *against], workspace),
        "tokenizer": (["tokenizer"], workspace),
        "pack": (["pack", "--workers", "2"], workspace),
    }
    if bare:
        commands = {_BARE: ([*ingest, "--no-dedup"], other), **commands}
    drop(workspace, other)
    runs: dict[str, Run] = {}
    for name, (arguments, folder) in commands.items():
        command = [*corpus, *arguments, "--workspace", str(folder)]
        runs[name] = measure.process(command, on=2, home=bench.home, curve=True)
        if runs[name].error:
            return Way(runs)
    stages = {stage: _seconds(workspace / area) for stage, area in STAGES.items()}
    if bare:
        stages[_BARE] = _seconds(other / "documents")
    drop(workspace, other)
    return Way(runs, stages)


def _seconds(folder: Path) -> float:
    """Of a stage, over all datasets."""
    return float(sum(json.loads(path.read_bytes())["seconds"] for path in folder.rglob("timings.json")))


def _told(way: Way) -> str:
    return way.error or f"{way.seconds:.1f} s: " + ", ".join(f"{name} {s:.1f}" for name, s in way.stages.items())


def _lines(ways: Mapping[str, Sequence[Way]], raw: float) -> list[Line]:
    """Commands, stages, ingest with and without dedup, and memory; ours against the code before where it was run."""
    what, ours = f"the whole way with {raw:,.0f} MB raw, two workers", ways[_OURS]
    lines = [
        Line(
            row="whole", what=f"{what}: corpus {name}", unit="s",
            ours=side(_OURS, [way.runs[name] for way in ours if name in way.runs], lambda run: run.wall_s),
            extra={"stage": name, "curve": list(ours[-1].runs[name].curve)},
        )
        for name in ours[-1].runs if name != _BARE
    ]  # fmt: skip
    for stage in STAGES:
        sides = [_side(name, own, partial(_stage_seconds, stage)) for name, own in ways.items()]
        lines.append(_against(f"{what}: stage {stage}", "s", sides))
    sides = [_side(name, own, lambda way: way.seconds) for name, own in ways.items()]
    note = f"whole commands, start-up included; two evaluation sets; medians of {len(ours)}"
    target = Target(least=1 / 0.63, text="1.59 x") if len(sides) > 1 else None
    lines.append(_against(f"{what}: archives to packed rows", "s", sides, target=target, note=note))
    speed = _side(_OURS, ours, lambda way: raw / way.seconds)
    limit = Target(least=28.0, text="28 MB/s")
    lines.append(alone("whole", f"{what}: archives to packed rows", "MB/s raw", speed, target=limit, note=note))
    note = "seconds of documents and dedup above those of `ingest --no-dedup`"
    for name, own in ways.items():
        share, target = _side(name, own, _dedup_share), Target(most=0.25, text="at most 0.25")
        told = f"{what}: dedup, of the rest of ingest" + (", the code before" if name == _BEFORE else "")
        lines.append(alone("whole", told, "", share, target=target if name == _OURS else None, note=note))
    peak = side(_OURS, [run for way in ours for run in way.runs.values()], lambda run: run.peak / MEGABYTE)
    largest = Side(name=_OURS, values=[max(peak.values)] if peak.values else [], runs=peak.runs)
    limit = Target(most=GIGABYTE / MEGABYTE, text="under 1,000 MB")
    return [*lines, alone("whole", "the whole way: largest process", "MB", largest, target=limit)]


def _side(name: str, ways: Sequence[Way], figure: Callable[[Way], float]) -> Side:
    """A figure of each way that came to its end."""
    runs = [run for way in ways for run in way.runs.values()]
    return Side(name=name, values=[figure(way) for way in ways if not way.error], runs=runs)


def _against(what: str, unit: str, sides: Sequence[Side], *, target: Target | None = None, note: str = "") -> Line:
    """Ours alone, or against the code before."""
    if len(sides) == 1:
        return alone("whole", what, unit, sides[0], note=note)
    return compare("whole", what, unit, *sides, target=target, less_is_better=True, note=note)


def _stage_seconds(stage: str, way: Way) -> float:
    return way.stages[stage]


def _dedup_share(way: Way) -> float:
    return (way.stages["documents"] + way.stages["dedup"]) / way.stages[_BARE] - 1
