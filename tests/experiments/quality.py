"""`python -m tests.experiments.quality`: whether the learned score pays, as the table of docs/quality.md.

In: a workspace with documents, after `corpus ingest`; it is not changed. Out: bits per character of a model trained on
all documents and of one trained on those that `corpus quality` keeps, in Markdown, and with `--page` in
docs/quality.md. Exit code 1 where a command failed.
Method: two workspaces beside the given one, of the same documents. In one of them `corpus quality --positive ...` runs;
then in both `corpus tokenizer`, `corpus pack`, `corpus train` with as many steps of as many tokens, and `corpus
evaluate` on the validation documents, of which the score leaves out none. Each side has a tokenizer of its own, of the
same size. A finished command is not run again, so the script resumes; mean and standard deviation are over the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.humanize import count_text, markdown_table
from corpus.pipeline.workspace.ledger import read_ledger
from tests.experiments.weights import weights_digest

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
_BEGIN, _END = "<!-- bits per character: begin -->\n", "<!-- bits per character: end -->\n"
_AREAS = ("manifests", "documents", "dedup", "decontaminate")
SIDES = ("all documents", "with the score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """What is run, and where."""

    workspace: Path
    positive: Sequence[str]
    """Datasets and files of good text."""
    scored: Sequence[str]
    """Datasets that are scored; all but the positive ones when empty."""
    datasets: Sequence[str]
    """Whose validation documents the models are measured on."""
    alpha: float | None
    preset: str
    seeds: int
    steps: int
    batch_size: int
    seq_length: int
    vocab_size: int
    learning_rate: float | None
    documents: int
    """Most validation documents of a dataset."""
    threads: int

    def place(self, side: str) -> Path:
        """The workspace of a side."""
        return self.workspace.with_name(f"{self.workspace.name}-quality") / side.replace(" ", "-")

    def corpus(self, side: str, *words: object) -> str:
        """Run a command in a side's workspace and give its output."""
        typed = [sys.executable, "-m", "corpus.pipeline.cli", *map(str, words), "--workspace", str(self.place(side))]
        done = subprocess.run(typed, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(typed)}\n{done.stderr}")
        return done.stdout

    def rows(self, side: str) -> None:
        """Documents to packed rows."""
        _link(self.workspace, self.place(side))
        if side == SIDES[1]:
            named = [word for name in self.positive for word in ("--positive", name)]
            named += [word for name in self.scored for word in ("--dataset", name)]
            self.corpus(side, "quality", *named, *(("--alpha", self.alpha) if self.alpha else ()))
        self.corpus(side, "tokenizer", "--vocab-size", self.vocab_size)
        self.corpus(side, "pack", "--seq-length", self.seq_length)

    def characters(self, side: str) -> int:
        """Characters of training documents in the rows."""
        ledgers = map(read_ledger, sorted((self.place(side) / "packed").iterdir()))
        return sum(ledger.counts["splits"].get("train", {}).get("characters", 0) for ledger in ledgers if ledger)

    def bits(self, side: str) -> list[list[float]]:
        """For each seed, the bits per character on each dataset."""
        found = []
        for seed in range(1, self.seeds + 1):
            run = f"{self.preset}-{self.steps}-{seed}"
            rate = ["--learning-rate", self.learning_rate] if self.learning_rate else []
            self.corpus(
                side, "train", "--model", self.preset, "--run", run, "--seed", seed, "--max-steps", self.steps,
                "--batch-size", self.batch_size, "--eval-steps", self.steps, "--save-steps", max(1, self.steps // 10),
                "--threads", self.threads, *rate,
            )  # fmt: skip
            found.append(self.evaluated(side, run))
            print(f"{side}, seed {seed}: {', '.join(f'{bits:.3f}' for bits in found[-1])}", flush=True)
        return found

    def evaluated(self, side: str, run: str) -> list[float]:
        """What `corpus evaluate` says of a run, kept in the workspace for the same weights."""
        words = [word for name in self.datasets for word in ("--dataset", name)]
        words += ["--documents", str(self.documents)]
        asked = json.dumps([weights_digest(self.place(side) / "models" / run), *words])
        path = self.place(side) / f"{run}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            path.write_text(self.corpus(side, "evaluate", "--model", run, *words, "--json"), encoding="utf-8")
        found = {each["dataset"]: each["bits_per_character"] for each in json.loads(path.read_bytes())["datasets"]}
        return [float(found[name]) for name in self.datasets]


def _link(source: Path, target: Path) -> None:
    """The documents of a workspace and what is left out of them, in another one, without copies where that can be."""
    for area in _AREAS:
        if (source / area).is_dir() and not (target / area).is_dir():
            aside = target / f"{area}.part"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(source / area, aside, copy_function=_one)
            aside.rename(target / area)


def _one(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both sides and print the table."""
    given = vars(_parse(arguments))
    page = given.pop("page")
    experiment = Experiment(**given)
    text = "\n\n".join(_tables(experiment))
    print(f"\n{text}")
    if page:
        whole = PAGE.read_text(encoding="utf-8")
        begin, end = whole.index(_BEGIN) + len(_BEGIN), whole.index(_END)
        PAGE.write_text(f"{whole[:begin]}{text}\n{whole[end:]}", encoding="utf-8")
    return 0


def _tables(experiment: Experiment) -> Iterator[str]:
    """What was trained, and the bits per character of both sides with the difference, seed by seed."""
    bits: dict[str, list[list[float]]] = {}
    sizes = []
    for side in SIDES:
        experiment.rows(side)
        sizes.append(f"{count_text(experiment.characters(side))} characters ({side})")
        bits[side] = experiment.bits(side)
    tokens = experiment.steps * experiment.batch_size * experiment.seq_length
    named = ", ".join(f"`{Path(name).name}`" for name in experiment.positive)
    yield (
        f"Bits per character of `{experiment.preset}` on validation documents, which are the same for both; good text: "
        f"{named}; {experiment.steps} steps of {experiment.batch_size} rows of {experiment.seq_length} tokens "
        f"({count_text(tokens)} tokens), {experiment.seeds} seeds; trained on {', '.join(sizes)}:"
    )
    rows = []
    for place, name in enumerate(experiment.datasets):
        both = [[seed[place] for seed in bits[side]] for side in SIDES]
        change = [100 * (after / before - 1) for before, after in zip(*both, strict=True)]
        rows.append((name, *(_mean(values, 3) for values in both), f"{_mean(change, 1, sign='+')} %"))
    yield markdown_table(("", *SIDES, "change"), rows)


def _mean(values: Sequence[float], places: int, sign: str = "") -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.{places}f}{deviation}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.quality", description=__doc__)
    add = parser.add_argument
    add("--workspace", type=lambda name: Path(name).resolve(), required=True, help="with documents; it is not changed")
    add("--positive", action="append", required=True, help="dataset or file of good text, may be repeated")
    add("--scored", action="append", default=[], metavar="DATASET", help="all but the positive ones when left out")
    add("--dataset", dest="datasets", action="append", metavar="DATASET",
        help="measured on its validation documents  [default: wiki2019zh, news2016zh, baike2018qa]")  # fmt: skip
    add("--alpha", type=float, help="of the score  [default: that of corpus quality]")
    add("--preset", default="tiny")
    add("--seeds", type=int, default=3)
    add("--steps", type=int, default=600)
    add("--batch-size", type=int, default=4)
    add("--seq-length", type=int, default=512)
    add("--vocab-size", type=int, default=8000)
    add("--learning-rate", type=float, help="[default: that of corpus train]")
    add("--documents", type=int, default=500, help="most validation documents of a dataset")
    add("--threads", type=int, default=1)
    add("--page", action="store_true", help="write the table into docs/quality.md")
    given = parser.parse_args(arguments)
    given.datasets = given.datasets or ["wiki2019zh", "news2016zh", "baike2018qa"]
    return given


if __name__ == "__main__":
    sys.exit(main())
