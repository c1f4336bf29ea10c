"""lm-evaluation-harness: whether it is installed, its model and tasks made of ours, and what it measured.

In: questions. Out: log-likelihoods and the harness's own figures.
Invariants: the harness is imported where it is used, and its absence is one line that names the extra; its log and its
bars stay off the terminal; a task of its own needs the hub, and one line says so where that is not reached.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.pipeline import tasks
from corpus.pipeline.errors import BenchmarkError, BooksError
from corpus.pipeline.progress import Progress
from corpus.train.benchmarks.config import HUB, BenchmarkConfig
from corpus.train.benchmarks.prompts import Question
from corpus.train.benchmarks.scores import Scored
from corpus.train.model.quiet import first_line, quiet

if TYPE_CHECKING:
    from corpus.train.benchmarks.harness_task import Probes
    from corpus.train.benchmarks.lm import CorpusLM
    from corpus.train.benchmarks.opened import Opened

_PACKAGE = "lm_eval"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the harness gave for one task."""

    scored: list[Scored]
    """The log-likelihoods of each question."""
    harness: Mapping[str, float]
    """Its own figures."""
    samples: Sequence[Mapping[str, Any]]
    """What it logged of each question."""
    prompt: str
    """The first question's whole prompt."""


def check() -> None:
    """Refuse to begin without the harness.

    Raises:
        BenchmarkError: it is not installed.

    """
    if find_spec(_PACKAGE) is None:
        raise BenchmarkError(
            "--benchmark needs lm-evaluation-harness, which is not installed",
            hint="Type: pip install 'corpus-zh[eval]'",
        )


def version() -> str:
    """Version of the harness."""
    return metadata.version(_PACKAGE)


def is_hub_task(name: str) -> bool:
    """Whether a name is `hf:NAME` or `hf:FILE.yaml`, or no task of ours but one that the harness knows.

    Raises:
        TaskError: nothing has this name.

    """
    if name.startswith(HUB):
        return True
    if name in tasks.TASKS or "/" in name or name.endswith(".toml"):
        return False
    return name in _manager(whole=True).task_index


@functools.cache
def _manager(*, whole: bool) -> Any:
    """What the harness finds its tasks with; with all that it ships (`whole`) it takes seconds."""
    with _silent():
        from lm_eval.tasks import TaskManager  # noqa: PLC0415  # an extra

        return TaskManager(include_defaults=whole)


def lm(opened: Opened, progress: Progress) -> CorpusLM:
    """The model as the harness sees it."""
    with _silent():
        from corpus.train.benchmarks.lm import CorpusLM  # noqa: PLC0415  # imports the harness, an extra

        return CorpusLM(
            opened.model, opened.tokenizer, context=opened.context, batch_size=opened.batch_size,
            precision=opened.device.precision, progress=progress,
        )  # fmt: skip


def probes(config: BenchmarkConfig) -> Probes:
    """What is scored beside the items' own contexts."""
    from corpus.train.benchmarks.harness_task import Probes  # noqa: PLC0415  # imports the harness, an extra

    return Probes(calibrate=config.calibrate, pmi=config.pmi)


def evaluate(
    model: CorpusLM, name: str, questions: Sequence[Question], *, examples: Mapping[str, Sequence[Question]],
    shots: int, probes: Probes,
) -> Answers:  # fmt: skip
    """Let the harness score questions."""
    with _silent():
        from lm_eval import evaluator  # noqa: PLC0415  # an extra

        from corpus.train.benchmarks.harness_task import QuestionTask, scored  # noqa: PLC0415  # as above

        task = QuestionTask(name, questions, examples=examples, shots=shots, probes=probes)
        found = evaluator.evaluate(model, {"tasks": {name: task}, "groups": {}}, bootstrap_iters=0)
    samples = sorted(found["samples"][name], key=lambda sample: int(sample["doc_id"]))
    return Answers(
        scored=scored(samples, questions, probes, model.lengths),
        harness=_figures(found["results"][name]),
        samples=samples,
        prompt=samples[0]["arguments"][0][0],
    )


def check_agreement(ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    """Refuse figures of ours that differ from the harness's own.

    Raises:
        BooksError: they differ.

    """
    for own, name in (("accuracy", "acc"), ("per_character", "acc_norm")):
        if abs(ours[own] - theirs[name]) > 1e-9:
            raise BooksError(f"{own} is {ours[own]}, the harness's {name} is {theirs[name]}: a bug in this program")


def evaluate_hub_task(
    model: CorpusLM, name: str, *, shots: int, seed: int, limit: int
) -> tuple[dict[str, float], dict[str, dict[str, float]], int]:
    """The harness's figures of a task or group of its own, those of its parts, and the number of items.

    Raises:
        BenchmarkError: the harness knows no such task, or its data cannot be had.

    """
    plain = name.removeprefix(HUB)
    loaded = _load(plain)
    with _silent():
        from lm_eval import evaluator  # noqa: PLC0415  # an extra

        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") != 0:  # a task that says 0 has no examples
                task.set_config(key="num_fewshot", value=shots)
            task.set_fewshot_seed(seed=seed)
        found = evaluator.evaluate(model, loaded, limit=limit or None, bootstrap_iters=0, log_samples=False)
    parts = {key: _figures(values) for key, values in found["results"].items()}
    items = {key: int(found["n-samples"][key]["effective"]) for key in loaded["tasks"]}
    whole = parts.pop(plain, None) or _mean([parts[key] for key in loaded["tasks"]])
    groups = {key: {"items": items[key], **parts[key]} for key in loaded["tasks"] if key in parts}
    return _named(whole), {key: _named(values) for key, values in groups.items()}, sum(items.values())


def _load(name: str) -> Any:
    """A task of the harness by its name, or by the path of its YAML file, with its data."""
    is_file = name.endswith(".yaml")
    manager = _manager(whole=not is_file)
    if not (Path(name).is_file() if is_file else name in manager.task_index):
        raise BenchmarkError(
            f"lm-evaluation-harness {version()} has no task {name}", hint="Type `lm_eval ls tasks` for its tasks."
        )
    try:
        with _silent():
            return manager.load([name])
    except (OSError, ValueError, RuntimeError) as error:  # offline, gone or moved
        raise BenchmarkError(
            f"the data of {name} cannot be had from the hub: {first_line(error)}",
            hint="Connect to the hub, or give a built-in benchmark with --data.",
        ) from error


def _figures(values: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the harness without the name of the filter and without standard errors."""
    return {
        name.partition(",")[0]: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and "stderr" not in name and name != "sample_len"
    }


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures by our names where we have them."""
    names = {"acc": "accuracy", "acc_norm": "per_character"}
    return {names.get(name, name): value for name, value in figures.items()}


def _mean(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0] if all(name in p for p in parts)}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what the harness logs off the terminal."""
    logger = logging.getLogger(_PACKAGE)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
