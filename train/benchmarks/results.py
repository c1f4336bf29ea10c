"""What `corpus evaluate --benchmark` leaves behind: `results.json`, `samples.jsonl`, and a picture of few-shot runs.

In: a result. Out: files in the result's folder, each written whole.
Invariants: no clock time and no path of the machine in `results.json`, so equal work gives equal bytes; `timings.json`
holds the seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.pipeline.workspace.files import disk_errors, sha256_file, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.benchmarks.config import BenchmarkConfig, BenchmarkResult
from corpus.train.benchmarks.picture import picture
from corpus.train.benchmarks.prompts import Question

if TYPE_CHECKING:
    from corpus.train.benchmarks.chosen import Benchmark
    from corpus.train.benchmarks.harness import Answers

SCHEMA = 1
_PACKAGES = ("lm_eval", "torch", "transformers")


def write(
    result: BenchmarkResult, config: BenchmarkConfig, benchmark: Benchmark | None, about: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]], prompt: str,
) -> None:  # fmt: skip
    """Write the files of a benchmark.

    Raises:
        DiskError: the folder cannot be written.

    """
    folder = result.folder
    if folder is None:
        return
    settings = {
        name: getattr(config, name) for name in ("shots", "orders", "seed", "limit", "calibrate", "pmi", "context")
    }
    whole = {
        "schema": SCHEMA,
        "benchmark": result.benchmark,
        **about,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "settings": settings,
        "task": _task(benchmark, prompt) if benchmark else None,
        "items": result.items,
        "chance": result.chance,
        "majority": result.majority,
        "shots": {str(shots): result.summary_dict(shots) for shots in result.shots},
        "runs": [asdict(run) for run in result.runs],
        "notes": list(result.notes),
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "samples.jsonl", b"".join(map(_line, samples)))
        write_atomic(folder / "timings.json", _line({"seconds": round(result.seconds, 3)}))
        if len(result.shots) > 1:
            write_atomic(folder / "few_shot.png", picture([result]))
        text = json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
        write_atomic(folder / "results.json", f"{text}\n".encode())


def sample_lines(questions: Sequence[Question], answers: Answers, *, shots: int, draw: int) -> Iterator[dict[str, Any]]:
    """A line of `samples.jsonl` for each question."""
    for question, sample, scored in zip(questions, answers.samples, answers.scored, strict=True):
        yield {
            "id": question.id,
            "group": question.group,
            "shots": shots,
            "draw": draw,
            "answers": list(question.answers),
            "label": question.label,
            "log_likelihoods": [likelihood for likelihood, _ in sample["filtered_resps"][: len(question.answers)]],
            "preferred": scored.preferred(),
            "probes": [
                {"context": context, "log_likelihoods": values} for context, values in _probes(question, sample).items()
            ],
        }


def model_files(folder: Path, workspace: Workspace) -> dict[str, str]:
    """Digests of what makes the model: configuration, weights and tokenizer."""
    names = ["config.json", "tokenizer.json", *(path.name for path in folder.glob("*.safetensors"))]
    return {name: workspace.digest(folder / name) for name in sorted(names) if (folder / name).is_file()}


def _probes(question: Question, sample: Mapping[str, Any]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    many = len(question.answers)
    for (context, _), (likelihood, _) in zip(sample["arguments"][many:], sample["filtered_resps"][many:], strict=True):
        found.setdefault(context, []).append(likelihood)
    return found


def _task(benchmark: Benchmark, prompt: str) -> dict[str, Any]:
    """What was asked: the task, its prompt, and a digest of the questions."""
    task = benchmark.task
    return {
        "name": task.name,
        "title": task.title,
        "kind": task.kind,
        "licence": task.licence,
        "citation": task.citation,
        "file": sha256_file(task.file) if task.file else None,
        "split": benchmark.split,
        "examples_from": benchmark.pool_split,
        "labels": list(task.labels),
        "prompt": asdict(task.prompt) if task.prompt else None,
        "first_prompt": prompt,
        "questions_sha256": _digest(benchmark.questions),
        "pool_sha256": _digest(benchmark.pool),
    }


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(_line(asdict(question)))
    return digest.hexdigest()


def _line(value: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False, sort_keys=True)}\n".encode()
