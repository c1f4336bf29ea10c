"""Rows of one stage each, against peers: ingest, pack and tokenizer, one worker on one core."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import inputs, measure
from tests.benchmarks.bench import NEWS, ONE, VOCABULARY, Bench, Start, drop
from tests.benchmarks.inputs import MEGABYTE
from tests.benchmarks.lines import Line, Side, Target, compare, side
from tests.benchmarks.measure import Run
from tests.benchmarks.ours import EVERYTHING

INGESTED = (NEWS, "baike2018qa", "webtext2019zh", "wiki2019zh")
ENCODERS_FACTOR = 5


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
        drop(workspace, out)
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
    drop(workspace, out)
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
    drop(workspace, theirs)
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
    drop(workspace)
    return lines


def _pinned(bench: Bench, name: str, **parameters: Any) -> Run:
    """A job on one core."""
    return measure.job(name, home=bench.home, on=1, threads=ONE, **parameters)


def _speed(megabytes: float, run: Run) -> float:
    return megabytes / run.work_s


def _on(simplify: bool) -> str:
    return "on" if simplify else "off"
