"""`python -m tests.experiments.tasks`: what pre-training is worth on tasks, as the table of docs/tasks.md.

In: the folder of the tasks' data, a workspace with a tokenizer, and pre-trained models in it, each with the number of
tokens that it read. Out: a table in Markdown, and with `--page` in docs/tasks.md. Exit code 1 where a run failed.
Method: every run is `corpus train --objective task` and `corpus evaluate --task` as a user types them, or `corpus
evaluate --benchmark`; a finished run is kept, so the script resumes. Mean and standard deviation are over the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.humanize import count_text, markdown_table
from tests.experiments.weights import weights_digest

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
TUNED = {"ocnli": "ocnli", "chnsenticorp": "chnsenticorp", "lcqmc": "lcqmc_devtest", "c3": "c3_dialogue"}
"""Tasks that models are fine-tuned on, and the file of each one's items."""
ASKED = {
    "zhoblimp": "zhoblimp", "c3": "c3_dialogue", "chid": "chid_fewclue", "xcopa_zh": "xcopa_zh", "cmmlu": "cmmlu"
}  # fmt: skip
SHOTS = {"eprstmt": ("eprstmt", 1000), "tnews": ("tnews_fewclue", 200)}
"""Benchmarks of the few-shot curve: the file, and the most items. An item of TNEWS is 15 texts a draw."""
FORMS: dict[str, tuple[str, list[str]]] = {
    "both orders, auxiliary loss 0.5": ("lcqmc", []),
    "one order": ("lcqmc", ["--one-order"]),
    "both orders, no auxiliary loss": ("lcqmc", ["--aux-lm", "0"]),
    "both orders, no delimiter": ("lcqmc", ["--no-delimiter"]),
}
PEERS = {
    "ocnli": "59.73, babylm-pythia-14m, 14 M parameters, 102 M words, 50 k items",
    "chnsenticorp": "95.0, BERT-base (with the leak of the official split)",
    "lcqmc": "86.9, BERT-base, 239 k items",
    "c3": "50.26, ALBERT-tiny, 4 M parameters",
}
"""Published figures after fine-tuning, see the page for their sources."""
PEERS_ASKED = {
    "zhoblimp": "73.95, babylm-pythia-14m, 14 M parameters, 102 M words",
    "chid": "57.6, RoBERTa-wwm-ext, zero-shot",
    "cmmlu": "25.38, minimind, 64 M parameters",
    "eprstmt": "54.8, NEZHA-Gen, zero-shot",
    "tnews": "25.3, RoBERTa-wwm-ext, zero-shot",
}
"""The same without training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """What is run, and where."""

    data: Path
    workspace: Path
    models: Mapping[str, int]
    """Pre-trained models in the workspace, and the tokens that each read."""
    preset: str
    seeds: int
    steps: int
    """Steps of a fine-tuning run."""
    task_steps: Mapping[str, int]
    """Steps of a task where they are others."""
    learning_rate: float | None
    """Of all fine-tuning runs; that of `corpus train` when left out."""
    limit: int
    """Most items of a benchmark."""
    threads: int
    tasks: Sequence[str]
    """Tasks of the first table."""

    def corpus(self, *words: object) -> str:
        """Run a command in the workspace and give its output."""
        typed = [sys.executable, "-m", "corpus.pipeline.cli", *map(str, words), "--workspace", str(self.workspace)]
        done = subprocess.run(typed, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(typed)}\n{done.stderr}")
        return done.stdout

    def file(self, name: str) -> Path:
        """The items of a task."""
        return self.data / f"{name}.jsonl.xz"

    def tuned(self, task: str, model: str, more: Sequence[str] = ()) -> tuple[list[float], dict[str, float]]:
        """Accuracy on the test items for each seed, and the floors, of a model (or `none`) fine-tuned on a task."""
        values, floors = [], {}
        for seed in range(1, self.seeds + 1):
            run = "-".join([task, model, *(word.strip("-") for word in more), str(seed)])
            init = ["--init", model] if model != "none" else ["--init", "none", "--model", self.preset]
            data = ["--data", self.file(TUNED[task])]
            rate = ["--learning-rate", self.learning_rate] if self.learning_rate else []
            self.corpus(
                "train", "--objective", "task", "--task", task, *data, *init, "--run", run, "--seed", seed,
                "--max-steps", self.task_steps.get(task, self.steps), "--eval-rows", 500,
                "--threads", self.threads, *rate, *more,
            )  # fmt: skip
            found = self.evaluated(run, "--task", task, *data, "--model", run)
            values.append(100 * found["all"]["figures"]["accuracy"])
            floors = {name: 100 * each["figures"]["accuracy"] for name, each in found["floors"].items()}
            print(f"{run}: {values[-1]:.2f}", flush=True)
        return values, floors

    def asked(self, benchmark: str, file: str, model: str, limit: int, *more: object) -> dict[str, Any]:
        """What `corpus evaluate --benchmark` gives."""
        words = ("--data", self.file(file), "--model", model, "--limit", limit, *more)
        found = self.evaluated(model, "--benchmark", benchmark, *words)
        (result,) = found["benchmarks"]
        print(f"{benchmark}, {model}: {result['shots']}", flush=True)
        return dict(result)

    def evaluated(self, run: str, *words: object) -> dict[str, Any]:
        """What `corpus evaluate` prints as JSON about a run, kept beside the workspace for the same weights."""
        asked = json.dumps([weights_digest(self.workspace / "models" / run), *map(str, words)])
        folder = self.workspace.with_name(f"{self.workspace.name}-tasks")
        path = folder / f"{run}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            text = self.corpus("evaluate", *words, "--json")
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return dict(json.loads(path.read_bytes()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for and print their tables."""
    given = _parse(arguments)
    models = {name: int(tokens) for name, _, tokens in (text.partition("=") for text in given.model)}
    experiment = Experiment(
        data=given.data, workspace=given.workspace, models=models, preset=given.preset, seeds=given.seeds,
        steps=given.steps, task_steps=dict(map(_steps, given.task_steps)),
        learning_rate=given.learning_rate, limit=given.limit, threads=given.threads, tasks=given.task or tuple(TUNED),
    )  # fmt: skip
    parts = {"tuned": tuned, "forms": forms, "asked": asked, "shots": shots}
    text = "\n\n".join(line for name in given.only or parts for line in parts[name](experiment))
    print(f"\n{text}")
    if given.page:
        page = PAGE.read_text(encoding="utf-8")
        begin, end = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
        PAGE.write_text(f"{page[:begin]}{text}\n{page[end:]}", encoding="utf-8")
    return 0


def tuned(experiment: Experiment) -> Iterator[str]:
    """Fine-tuned from random weights and from each model: the curve over pre-training tokens."""
    rows = []
    for task in experiment.tasks:
        scratch, floors = experiment.tuned(task, "none")
        cells = [_mean(experiment.tuned(task, model)[0]) for model in experiment.models]
        rows.append((task, *_floors(floors), _mean(scratch), *cells, PEERS.get(task, "")))
    heads = [f"after {count_text(tokens)} tokens" for tokens in experiment.models.values()]
    others = ", ".join(f"{task} {steps}" for task, steps in experiment.task_steps.items())
    others = others and f" ({others})"
    rate = f", learning rate {experiment.learning_rate:g}" if experiment.learning_rate else ""
    yield (
        f"Accuracy on test items, %, after {experiment.steps} steps of 32 items{others}{rate}, "
        f"{experiment.seeds} seeds:"
    )
    yield markdown_table(("task", "majority", "n-grams", "from scratch", *heads, "peer"), rows)


def forms(experiment: Experiment) -> Iterator[str]:
    """The input forms of GPT-1, each changed in one point."""
    model = list(experiment.models)[-1]
    rows = [(name, _mean(experiment.tuned(task, model, more)[0])) for name, (task, more) in FORMS.items()]
    yield f"Forms, on lcqmc, from `{model}`:"
    yield markdown_table(("form", "accuracy, %"), rows)


def asked(experiment: Experiment) -> Iterator[str]:
    """Without training, by likelihood."""
    rows = []
    for benchmark, file in ASKED.items():
        found = [experiment.asked(benchmark, file, model, experiment.limit) for model in experiment.models]
        cells = [_figure(each, 0, "accuracy") for each in found]
        chance = f"{100 * (found[0]['chance'] or 0):.1f}"
        rows.append((benchmark, found[0]["items"], chance, *cells, PEERS_ASKED.get(benchmark, "")))
        others = {"per character": "per_character", "SLLN-LP": "slln_lp"} if benchmark == "zhoblimp" else {}
        for name, figure in others.items():
            rows.append((f"{benchmark}, {name}", "", "", *(_figure(each, 0, figure) for each in found), ""))
    heads = [f"after {count_text(tokens)} tokens" for tokens in experiment.models.values()]
    yield "Zero-shot accuracy, %:"
    yield markdown_table(("benchmark", "items", "chance", *heads, "peer"), rows)


def shots(experiment: Experiment) -> Iterator[str]:
    """With examples before the item."""
    model = list(experiment.models)[-1]
    numbers = (0, 1, 4, 8)
    rows = []
    for benchmark, (file, most) in SHOTS.items():
        flags = [word for number in numbers for word in ("--shots", number)]
        limit = min(most, experiment.limit)
        found = experiment.asked(benchmark, file, model, limit, *flags, "--calibrate", "--pmi")
        for name in ("accuracy", "calibrated", "pmi"):
            cells = [_figure(found, number, name) for number in numbers]
            peer = PEERS_ASKED[benchmark] if name == "accuracy" else ""
            rows.append((benchmark, found["items"], name, f"{100 * (found['chance'] or 0):.1f}", *cells, peer))
    yield f"Few-shot accuracy of `{model}`, %, mean and standard deviation over three draws:"
    yield markdown_table(
        ("benchmark", "items", "score", "chance", *(_shots(number) for number in numbers), "peer"), rows
    )


def _shots(number: int) -> str:
    return f"{number} shot" if number == 1 else f"{number} shots"


def _steps(text: str) -> tuple[str, int]:
    task, _, steps = text.partition("=")
    return task, int(steps)


def _figure(found: dict[str, Any], number: int, name: str) -> str:
    figure = found["shots"][str(number)].get(name)
    if figure is None:
        return "-"
    deviation = f" ± {100 * figure['deviation']:.1f}" if number else ""
    return f"{100 * figure['mean']:.1f}{deviation}"


def _mean(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def _floors(floors: Mapping[str, float]) -> tuple[str, str]:
    """The share of the most frequent label, and the best floor that reads the items."""
    others = [value for name, value in floors.items() if name not in {"majority", "chance"}]
    return f"{floors.get('majority', floors.get('chance', 0.0)):.1f}", f"{max(others):.1f}" if others else "-"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.tasks", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the items: ocnli.jsonl.xz and others")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True, metavar="RUN=TOKENS", help="may be repeated")
    parser.add_argument("--preset", default="tiny", help="size of the models from scratch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of 32 items, in each fine-tuning run")
    parser.add_argument("--task-steps", action="append", default=[], metavar="TASK=STEPS", help="where they are others")
    parser.add_argument("--learning-rate", type=float, help="of all fine-tuning runs  [default: that of corpus train]")
    parser.add_argument("--limit", type=int, default=1000, help="most items of a benchmark")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--task", action="append", choices=tuple(TUNED), help="of the first table; all when left out")
    parser.add_argument("--only", action="append", choices=("tuned", "forms", "asked", "shots"))
    parser.add_argument("--page", action="store_true", help="write the tables into docs/tasks.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
