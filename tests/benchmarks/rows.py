"""The rows of the table: one function each, `ROWS` names them in their order.

A row makes its input ready, lets ours and the peers take turns as whole processes, and returns its lines. Speeds are
figures per second of the work itself (`Run.work_s`): without the interpreter's start and imports, for both sides.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from corpus.pipeline.manifest import CORPORA
from tests.benchmarks import inputs, measure
from tests.benchmarks.bench import ONE, Bench, Start, tell
from tests.benchmarks.inputs import MEGABYTE
from tests.benchmarks.lines import Line, Side, Target, alone, compare, side
from tests.benchmarks.measure import Run
from tests.benchmarks.ours import EVERYTHING

NEWS = "news2016zh"
INGESTED = (NEWS, "baike2018qa", "webtext2019zh", "wiki2019zh")
VOCABULARY = 32_000
WARMUP_STEPS = 3
LOADER_ROWS = 4_000
HELP_RUNS = 11
WORKERS_FACTORS = {"pack": 14, "ingest": 4}
"""Work is cut into pieces of 32 MiB: of 100 MB the last round of two workers would be half empty. Packing is fast, so
that workers have to have started for it to tell."""
ENCODERS_FACTOR = 5
SHARES = {"wiki2019zh": 1.6, "news2016zh": 9.0, "baike2018qa": 1.6, "webtext2019zh": 3.7, "translation2019zh": 1.2}
"""Gigabytes of the official corpora: the whole way takes them in these shares."""
MODEL = "tiny"
SAMPLED = "gpt2-small"
PROMPT = "春天来了，院子里的"
TOP_K = 30
GIGABYTE = 1_000_000_000


def ingest(bench: Bench) -> list[Line]:
    """Records to documents, one worker on one core, with and without OpenCC on both sides."""
    lines: list[Line] = []
    for dataset in INGESTED:
        source = inputs.plain(bench.work, dataset, bench.size)
        workspace = bench.downloaded("ingest", {dataset: source})
        out, raw = bench.work / "peer", inputs.size(source) / MEGABYTE
        measure.warm(source)
        starts: dict[str, Start] = {}
        for simplify in (False, True):
            ours: dict[str, Any] = {"workspace": workspace, "dataset": dataset, "simplify": simplify}
            theirs: dict[str, Any] = {"source": source, "dataset": dataset, "out": out, "simplify": simplify}
            starts[f"ours, OpenCC {_on(simplify)}"] = partial(_pinned, bench, "ours.ingest", **ours)
            starts[f"datatrove, OpenCC {_on(simplify)}"] = partial(_pinned, bench, "peers.datatrove_ingest", **theirs)
        bare: dict[str, Any] = {"workspace": workspace, "dataset": dataset, "rules": False}
        starts["ours, no rule"] = partial(_pinned, bench, "ours.ingest", **bare)
        runs = bench.turns(f"ingest {dataset}", starts)
        sides = {name: side(name, runs[name], partial(_speed, raw)) for name in runs}
        for simplify, least in ((False, 3.0), (True, 2.0)):
            with_opencc = f"OpenCC {_on(simplify)}"
            lines.append(
                compare(
                    "ingest", f"ingest, {dataset}, {with_opencc} for both", "MB/s raw",
                    sides[f"ours, {with_opencc}"], sides[f"datatrove, {with_opencc}"],
                    target=Target(least=least, text=f"{least:g} x"),
                    bar=f"ingest {dataset.removesuffix('2016zh')}" if dataset == NEWS else "",
                )
            )  # fmt: skip
        plain_peer = sides["datatrove, OpenCC off"]
        for what, ours_too, note in (
            (
                "OpenCC on for ours alone", "ours, OpenCC on",
                "the same runs once more: ours as shipped against the peer without OpenCC",
            ),
            (
                "none of our rules", "ours, no rule",
                "a bound: reading, JSON, the checks of a record and Parquet, which remain if rules take no time",
            ),
        ):  # fmt: skip
            told = f"ingest, {dataset}, {what}"
            lines.append(compare("ingest", told, "MB/s raw", sides[ours_too], plain_peer, note=note))
        _drop(workspace, out)
    return lines


def pack(bench: Bench) -> list[Line]:
    """Documents to rows of 1,024 tokens, one worker on one core; against bare encoders on five times the size."""
    pipelines = {"datatrove DocumentTokenizer": 5.0, "datasets.map as in run_clm": 5.0, "tokenizers alone": None}
    encoders = {"fastokens alone": 0.85, "gigatoken alone": None, "our kernel alone": None}
    return [
        *_pack_against(bench, bench.size, pipelines),
        *_pack_against(bench, bench.size * ENCODERS_FACTOR, encoders),
    ]


def _pack_against(bench: Bench, megabytes: float, targets: dict[str, float | None]) -> list[Line]:
    workspace = bench.documents("pack", NEWS, megabytes)
    bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
    documents, out = workspace / "documents" / NEWS, bench.work / "peer"
    text = bench.text_megabytes(workspace, NEWS)
    given: dict[str, Any] = {"documents": documents, "tokenizer": workspace / "tokenizer"}
    measure.warm(documents)
    peers: dict[str, Start] = {
        "datatrove DocumentTokenizer": partial(_pinned, bench, "peers.datatrove_tokens", out=out, **given),
        "datasets.map as in run_clm": partial(_pinned, bench, "peers.datasets_clm", out=out, **given),
        "fastokens alone": partial(_pinned, bench, "peers.raw_fastokens", **given),
        "gigatoken alone": partial(_pinned, bench, "peers.raw_gigatoken", **given),
        "our kernel alone": partial(_pinned, bench, "peers.raw_kernel", **given),
        "tokenizers alone": partial(_pinned, bench, "peers.raw_tokenizers", **given),
    }
    starts: dict[str, Start] = {"ours": partial(_pinned, bench, "ours.pack", workspace=workspace, dataset=NEWS)}
    runs = bench.turns("pack", starts | {name: peers[name] for name in targets})
    ours = side("ours", runs["ours"], partial(_speed, text))
    engines = sorted({str(run.figures.get("engine")) for run in runs["ours"] if not run.error})
    note = f"our encoder: {', '.join(engines)}{_differing(runs)}"
    lines = []
    for name, least in targets.items():
        target = None if least is None else Target(least=least, text=f"{least:g} x" if least > 1 else f"{least:.0%}")
        told = f"{name}, texts in memory" if name.endswith("alone") else name
        lines.append(
            compare(
                "pack", f"pack, news2016zh, {text:,.0f} MB of text", "MB/s text", ours,
                side(told, runs[name], partial(_speed, text)),
                target=target, note=note, bar="pack" if megabytes == bench.size else "pack, bare encoders",
            )
        )  # fmt: skip
    _drop(workspace, out)
    return lines


def _differing(runs: dict[str, list[Run]]) -> str:
    """Says so when ours, its separators left out, and the bare encoders do not count alike."""
    found = {
        run.figures["tokens"] - run.figures.get("documents", 0)
        for name in runs
        for run in runs[name]
        if not run.error and "tokens" in run.figures
    }
    return "" if len(found) <= 1 else f"; THE ENCODERS COUNT DIFFERENTLY: {sorted(found)}"


def tokenizer(bench: Bench) -> list[Line]:
    """Training 32,000 entries on all training documents, one core."""
    workspace = bench.documents("tokenizer", NEWS, bench.size, as_text=True)
    documents, theirs = workspace / "documents" / NEWS, bench.work / "peer.json"
    text = bench.text_megabytes(workspace, NEWS, split="train")
    ours = workspace / "tokenizer" / "tokenizer.json"
    everything: dict[str, Any] = {"workspace": workspace, "vocab_size": VOCABULARY, "sample_characters": EVERYTHING}
    measure.warm(documents)
    starts: dict[str, Start] = {
        "ours": partial(_pinned, bench, "ours.tokenizer", **everything),
        "tokenizers BpeTrainer": partial(
            _pinned, bench, "peers.bpe_trainer", documents=documents, like=ours, vocab_size=VOCABULARY, out=theirs
        ),
    }
    runs = bench.turns("tokenizer", starts)
    what = f"tokenizer, {VOCABULARY:,} entries on {text:,.0f} MB of text"
    seconds = [side(name, made, lambda run: run.work_s) for name, made in runs.items()]
    memory = [side(name, made, lambda run: run.peak / MEGABYTE) for name, made in runs.items()]
    lines = [
        compare(
            "tokenizer", f"{what}: time", "s", *seconds, target=Target(least=3.0, text="3 x"), less_is_better=True,
            bar="tokenizer",
        ),
        compare(
            "tokenizer", f"{what}: peak memory of a process", "MB", *memory, target=Target(least=3.0, text="3 x less"),
            less_is_better=True,
        ),
        _held_out(bench, documents, ours, theirs),
    ]  # fmt: skip
    _drop(workspace, theirs)
    return [*lines, *_large(bench, memory[0])]


def _held_out(bench: Bench, documents: Path, ours: Path, theirs: Path) -> Line:
    sides = []
    for name, path in (("ours", ours), ("tokenizers BpeTrainer", theirs)):
        run = measure.job("ours.bytes_per_token", home=bench.home, tokenizer=path, documents=documents)
        sides.append(side(name, [run], lambda run: float(run.figures["bytes_per_token"])))
    return compare(
        "tokenizer", "tokenizer: bytes a token on held-out originals", "bytes/token", *sides,
        target=Target(least=0.99, text="within 1 %"), note="the validation split, of which no repeat is made",
    )  # fmt: skip


def _large(bench: Bench, small: Side) -> list[Line]:
    """Our trainer once at the larger size, as shipped and told to learn from everything: does its memory grow?"""
    workspace = bench.documents("tokenizer", NEWS, bench.large_size, as_text=True)
    text = bench.text_megabytes(workspace, NEWS, split="train")
    small = dataclasses.replace(small, name=f"ours, {bench.size:,.0f} MB")
    lines = []
    for how, characters, target in (
        ("as shipped", None, Target(most=1.1, text="flat: at most 1.1 x")),
        ("told to learn from all of it", EVERYTHING, None),
    ):
        run = _pinned(
            bench, "ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY, sample_characters=characters
        )  # fmt: skip
        large = side("ours", [run], lambda run: run.peak / MEGABYTE)
        growth = large.median / small.median if large.values and small.values else None
        what = f"tokenizer, {how}: peak memory at {text:,.0f} MB against {bench.size:,.0f} MB"
        note = f"{run.work_s:,.0f} s at the larger size, one run"
        lines.append(
            Line(
                row="tokenizer", what=what, unit="MB", ours=large, peer=small, ratio=growth, target=target, note=note
            )
        )  # fmt: skip
    _drop(workspace)
    return lines


def workers(bench: Bench) -> list[Line]:
    """Two workers on two cores against one on one, one single large file."""
    lines = []
    for stage, factor in WORKERS_FACTORS.items():
        megabytes = bench.size * factor
        if stage == "pack":
            workspace = bench.documents("workers", NEWS, megabytes)
            bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
        else:
            workspace = bench.downloaded("workers", {NEWS: inputs.plain(bench.work, NEWS, megabytes)})
        given: dict[str, Any] = {"home": bench.home, "workspace": workspace, "dataset": NEWS}
        starts: dict[str, Start] = {
            "two workers": partial(measure.job, f"ours.{stage}", on=2, workers=2, **given),
            "one worker": partial(measure.job, f"ours.{stage}", on=1, threads=ONE, workers=1, **given),
        }
        runs = bench.turns(f"workers {stage}", starts)
        sides = [side(name, made, lambda run: run.work_s) for name, made in runs.items()]
        lines.append(
            compare(
                "workers", f"{stage}, news2016zh, one file of {megabytes:,.0f} MB", "s", *sides,
                target=Target(least=1.8, text="1.8 x"), less_is_better=True,
            )
        )  # fmt: skip
        _drop(workspace)
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
        _drop(workspace)
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
    _drop(workspace)
    return lines


def train(bench: Bench) -> list[Line]:
    """A training step of `tiny` against a bare loop, and the loader alone against what the model takes; all cores."""
    workspace = _packed(bench, "train")
    given: dict[str, Any] = {"home": bench.home, "on": len(measure.cores()), "workspace": workspace, "model": MODEL}
    steps: dict[str, Any] = {"steps": bench.steps, "warmup": min(WARMUP_STEPS, bench.steps - 1)}
    starts: dict[str, Start] = {
        "ours": partial(measure.job, "ours.train", **given, **steps),
        "bare PyTorch loop": partial(measure.job, "peers.bare_training", **given, **steps),
        "our loader alone": partial(measure.job, "ours.loader", rows=LOADER_ROWS, **given),
    }
    runs = bench.turns("train", starts)
    ours, bare, loader = (side(name, made, _tokens_per_second) for name, made in runs.items())
    _drop(workspace)
    return [
        compare(
            "train", f"training step of {MODEL}, fp32, 4 rows of 1,024", "tokens/s", ours, bare,
            target=Target(least=0.97, text="97 %"), note="positions, padding included; same batches on both sides",
            bar="training step",
        ),
        compare(
            "train", f"the loader alone against what {MODEL} takes", "tokens/s", loader, ours,
            target=Target(least=20.0, text="20 x"),
        ),
    ]  # fmt: skip


def sample(bench: Bench) -> list[Line]:
    """A sample of gpt2-small with random weights against `generate`, all cores."""
    workspace = _packed(bench, "sample")
    model = bench.folder("model")
    bench.need("ours.random_model", workspace=workspace, model=SAMPLED, folder=model)
    given: dict[str, Any] = {
        "home": bench.home, "on": len(measure.cores()), "model": model, "prompt": PROMPT, "tokens": bench.tokens,
        "top_k": TOP_K, "seed": 7,
    }  # fmt: skip
    starts: dict[str, Start] = {
        "ours": partial(measure.job, "ours.sample", **given),
        "model.generate": partial(measure.job, "peers.generate", **given),
    }
    runs = bench.turns("sample", starts)
    ours, theirs = (side(name, made, _tokens_per_second) for name, made in runs.items())
    last, tenth = (
        side(name, runs["ours"], partial(_milliseconds, key))
        for name, key in (("last", "last_s"), ("tenth", "tenth_s"))
    )
    _drop(workspace, model)
    return [
        compare(
            "sample", f"sample of {SAMPLED}, {bench.tokens} new tokens", "tokens/s", ours, theirs,
            target=Target(least=1.0, text="1 x"), bar="sample",
        ),
        Line(
            row="sample", what="time of the last token against the tenth", unit="ms", ours=last, peer=tenth,
            ratio=last.median / tenth.median if last.values else None, target=Target(most=1.5, text="at most 1.5 x"),
            note="medians of five tokens each",
        ),
    ]  # fmt: skip


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


def whole(bench: Bench) -> list[Line]:
    """All five corpora from archives to packed rows on two workers, the commands as a user types them."""
    source = bench.folder("archives")
    total = sum(SHARES.values())
    for dataset, share in SHARES.items():
        made = inputs.archive(bench.work, dataset, round(bench.whole_size * share / total, 1))
        for path in made.iterdir():
            (source / path.name).hardlink_to(path)
    raw = inputs.size(source) / MEGABYTE
    measure.warm(source)
    workspace = bench.work / "whole"
    ways = [_whole_way(bench, source, workspace) for _ in range(bench.whole_runs)]
    _drop(source, workspace)
    lines = [
        Line(
            row="whole", what=f"the whole way: {stage}, {raw:,.0f} MB raw", unit="MB/s raw",
            ours=side("ours", [way[stage] for way in ways], partial(_wall_speed, raw)),
            note=f"{statistics.median(way[stage].wall_s for way in ways):.1f} s",
            extra={"stage": stage, "curve": list(ways[-1][stage].curve)},
        )
        for stage in ways[0]
    ]  # fmt: skip
    every = [run for way in ways for run in way.values()]
    seconds = [sum(run.wall_s for run in way.values()) for way in ways]
    speed = Side(name="ours", values=[] if any(run.error for run in every) else [raw / s for s in seconds], runs=every)
    what = f"the whole way: archives to packed rows, {raw:,.0f} MB raw, two workers"
    note = f"{statistics.median(seconds):.0f} s of whole commands, start-up included; gone {len(ways)} time(s)"
    peak = side("ours", every, lambda run: run.peak / MEGABYTE)
    largest = Side(name="ours", values=[max(peak.values)] if peak.values else [], runs=every)
    limit = Target(most=GIGABYTE / MEGABYTE, text="under 1,000 MB")
    return [
        *lines,
        alone("whole", what, "MB/s raw", speed, target=Target(least=22.0, text="22 MB/s"), note=note),
        alone("whole", "the whole way: largest process", "MB", largest, target=limit),
    ]


def _whole_way(bench: Bench, source: Path, workspace: Path) -> dict[str, Run]:
    """One process a stage, in a fresh workspace."""
    _drop(workspace)
    commands = {
        "download": ["download", "--source", str(source)],
        "ingest": ["clean", "--workers", "2"],
        "tokenizer": ["tokenizer"],
        "pack": ["pack", "--workers", "2"],
    }
    runs: dict[str, Run] = {}
    for stage, arguments in commands.items():
        command = [str(Path(sys.executable).with_name("corpus")), *arguments, "--workspace", str(workspace)]
        runs[stage] = measure.process(command, on=2, home=bench.home, curve=True)
        tell(f"whole: {stage}: {runs[stage].error or f'{runs[stage].wall_s:.1f} s'}")
    return runs


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


def _packed(bench: Bench, name: str) -> Path:
    """A workspace with packed news."""
    workspace = bench.documents(name, NEWS, min(bench.size, 60))
    bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
    bench.need("ours.pack", workspace=workspace, dataset=NEWS, workers=2)
    return workspace


def _pinned(bench: Bench, name: str, **parameters: Any) -> Run:
    """A job on one core."""
    return measure.job(name, home=bench.home, on=1, threads=ONE, **parameters)


def _speed(megabytes: float, run: Run) -> float:
    return megabytes / run.work_s


def _wall_speed(megabytes: float, run: Run) -> float:
    return megabytes / run.wall_s


def _tokens_per_second(run: Run) -> float:
    return float(run.figures["tokens"]) / run.work_s


def _milliseconds(key: str, run: Run) -> float:
    return 1000 * float(run.figures[key])


def _on(simplify: bool) -> str:
    return "on" if simplify else "off"


def _drop(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "ingest": ingest,
    "pack": pack,
    "tokenizer": tokenizer,
    "workers": workers,
    "memory": memory,
    "disk": disk,
    "train": train,
    "sample": sample,
    "start": start,
    "whole": whole,
    "history": history,
}
