"""`corpus sample --prompts`: any number of prompts in, one result a line out, in the order of the prompts.

In: prompts, read as they are needed. Out: `Result`s; in a file, JSON Lines that appear when all are there.
Invariants: a text depends on its prompt, the number of its line, the seed and the settings, not on the prompts beside
it (up to the rounding of the device); an interrupted file goes on where it was, and on the same machine ends with the
bytes of an undisturbed run.
Cost: a window of `WINDOW_BATCHES` batches in memory, however many prompts there are. Within a window, prompts are put
into batches by length, so that little is padded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from corpus.generate.config import Finish, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import PLAIN, Form
from corpus.generate.prompt_file import Prompt, PromptFile
from corpus.generate.results_file import Part
from corpus.pipeline.progress import SILENT, Progress

WINDOW_BATCHES = 8
"""Batches that are sorted by length together."""
_WINDOW_CHARACTERS = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One continuation of one prompt of a file."""

    prompt: Prompt
    sample: int
    """Which sample of the prompt, from 0."""
    text: str
    finish: Finish
    seed: int
    """The seed of the run; with it and the same settings the text comes again."""

    def to_line(self) -> str:
        """One line of JSON, its end included: what was asked, what came, and the other keys of the prompt."""
        values = {
            "prompt": self.prompt.text,
            "text": self.text,
            "sample": self.sample,
            "prompt_tokens": self.finish.prompt_tokens,
            "tokens": self.finish.tokens,
            "finish": self.finish.reason,
            "logprob": round(self.finish.logprob, 4),
            "seed": self.seed,
        }
        return json.dumps(values | self.prompt.rest, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a file of prompts became."""

    results: int
    kept: int
    """How many of them an interrupted run had left."""
    tokens: int
    """Tokens written by this run."""
    seconds: float
    """Time that this run took; opening the model does not count."""


class _Row(NamedTuple):
    prompt: Prompt
    sample: int


def results(
    model: Model, config: SampleConfig, prompts: Iterable[Prompt], *, form: Form = PLAIN, progress: Progress = SILENT
) -> Iterator[Result]:
    """Continue prompts, `num_samples` times each; `config.prompts` plays no part.

    Raises:
        PromptError: a line is no prompt.
        ModelError: the model computes no numbers, or the device is full.

    """
    writer = _Writer(model, config, form, progress)
    for window in _windows(prompts, config):
        yield from writer.write(window)


def run(
    config: SampleConfig, model: Model, prompts: PromptFile, output: Path, *, form: Form = PLAIN,
    new_seed: bool = False, progress: Progress = SILENT,
) -> Done:  # fmt: skip
    """Continue all prompts into a file; see `corpus.generate.results_file` for what an interruption leaves.

    Args:
        config: its `prompts` play no part.
        model: what continues them.
        prompts: what to continue.
        output: the file of results.
        form: how a prompt is put to the model.
        new_seed: nobody asked for `config.seed`: what an interrupted run has begun goes on with that run's seed.
        progress: hears of it.

    Raises:
        PromptError: a line is no prompt.
        ModelError: the model computes no numbers, or the device is full.
        DiskError: the file cannot be written.
        BusyError: another process writes it.

    """
    started = time.perf_counter()
    with Part(output, _job(config, model, prompts, form), progress=progress) as part:
        if new_seed and part.seed is not None:
            config = dataclasses.replace(config, seed=part.seed)
        part.begin(config.seed)
        writer = _Writer(model, config, form, progress)
        written = tokens = 0
        progress.begin("sample", prompts.count and prompts.count * config.num_samples, "samples")
        for window in _windows(prompts, config):
            if part.keep(len(window)):
                progress.advance(len(window))
                continue
            for result in writer.write(window):
                part.write(result.to_line())
                written += 1
                tokens += result.finish.tokens
        progress.end()
        part.finish()
        seconds = time.perf_counter() - started
        return Done(results=part.kept + written, kept=part.kept, tokens=tokens, seconds=seconds)


def _windows(prompts: Iterable[Prompt], config: SampleConfig) -> Iterator[list[_Row]]:
    """Samples to write, a bounded number at a time; prompts and settings alone decide where a window ends."""
    window: list[_Row] = []
    characters = 0
    for prompt in prompts:
        for sample in range(config.num_samples):
            if len(window) == WINDOW_BATCHES * config.batch_size or (window and characters > _WINDOW_CHARACTERS):
                yield window
                window, characters = [], 0
            window.append(_Row(prompt, sample))
            characters += len(prompt.text)
    if window:
        yield window


class _Writer:
    """Writes windows, one after another, with one model and one form."""

    def __init__(self, model: Model, config: SampleConfig, form: Form, progress: Progress) -> None:
        self._model = model
        self._config = config
        self._form = form
        self._encode = form.encoder(model)
        self._progress = progress
        self._has_told = False

    def write(self, window: Sequence[_Row]) -> Iterator[Result]:
        """The results of a window in its order, each as soon as it and those before it are there."""
        ids, sizes = self._encoded(window)
        rows = {(row.prompt.line - 1, row.sample): row for row in window}
        keys = sorted(rows, key=lambda key: -len(ids[key[0]]))
        turns = iter(rows)
        turn = next(turns)
        ready: dict[tuple[int, int], Result] = {}
        for start in range(0, len(keys), self._config.batch_size):
            for key, (text, finish) in self._batch(ids, keys[start : start + self._config.batch_size]).items():
                ready[key] = Result(
                    prompt=rows[key].prompt,
                    sample=key[1],
                    text=text,
                    finish=dataclasses.replace(finish, prompt_tokens=sizes[key[0]]),
                    seed=self._config.seed,
                )
                self._progress.advance(1)
            while turn in ready:
                yield ready.pop(turn)
                turn = next(turns, turn)

    def _encoded(self, window: Sequence[_Row]) -> tuple[dict[int, list[int]], dict[int, int]]:
        """For each line of the window the tokens that the model can look at, and how many there are in all."""
        context = self._model.context
        ids: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        for prompt in {row.prompt.line: row.prompt for row in window}.values():
            tokens = self._encode(prompt.text)
            ids[prompt.line - 1], sizes[prompt.line - 1] = tokens[-context:], len(tokens)
            if len(tokens) > context and not self._has_told:
                self._has_told = True
                self._progress.say(
                    f"line {prompt.line} has {len(tokens):,} tokens: of this and every longer prompt the model reads "
                    f"the newest {context:,}"
                )
        return ids, sizes

    def _batch(
        self, ids: Mapping[int, Sequence[int]], keys: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], tuple[str, Finish]]:
        """The texts of samples that are written side by side."""
        texts: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        finishes: dict[tuple[int, int], Finish] = {}
        for piece in self._form.answers(Batch(self._model, ids, keys, self._config).pieces()):
            texts[piece.prompt, piece.sample].append(piece.text)
            if piece.finish:
                finishes[piece.prompt, piece.sample] = piece.finish
        return {key: ("".join(texts[key]), finishes[key]) for key in keys}


def _job(config: SampleConfig, model: Model, prompts: PromptFile, form: Form) -> dict[str, Any] | None:
    """All that decides the texts, but for the seed; None where the prompts come from a pipe and cannot come again."""
    if not prompts.is_file:
        return None
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in {"prompts", "seed"}}
    return settings | {
        "prompts": prompts.digest(),
        "shots": [form.begin("\0") if form.begin else "", *form.shots],
        "model": _model_digest(model.folder),
        "device": model.network.device.type,
        "precision": str(model.network.dtype),
    }


def _model_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of what a model is made of."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
