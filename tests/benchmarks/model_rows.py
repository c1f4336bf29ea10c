"""Rows of a model: a training step and a sample, on all cores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import measure
from tests.benchmarks.bench import NEWS, VOCABULARY, Bench, Start, drop
from tests.benchmarks.lines import Line, Target, compare, side
from tests.benchmarks.measure import Run

WARMUP_STEPS = 3
LOADER_ROWS = 4_000
MODEL = "tiny"
SAMPLED = "gpt2-small"
PROMPT = "春天来了，院子里的"
TOP_K = 30


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
    drop(workspace)
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
    drop(workspace, model)
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


def _packed(bench: Bench, name: str) -> Path:
    """A workspace with packed news."""
    workspace = bench.documents(name, NEWS, min(bench.size, 60))
    bench.need("ours.tokenizer", workspace=workspace, vocab_size=VOCABULARY)
    bench.need("ours.pack", workspace=workspace, dataset=NEWS, workers=2)
    return workspace


def _tokens_per_second(run: Run) -> float:
    return float(run.figures["tokens"]) / run.work_s


def _milliseconds(key: str, run: Run) -> float:
    return 1000 * float(run.figures[key])
