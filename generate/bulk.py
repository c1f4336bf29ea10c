"""`corpus sample --prompts`: any number of prompts in, one line per result out, in the order of the prompts.

In: prompts, streamed. Out: `Result`s; with `--output` a file of JSON Lines, which appears when it is complete.
Invariants: a text depends on its prompt, the number of its line, the seed and the settings, not on the prompts of its
batch (up to the rounding of the device); an interrupted file is resumed and, on the same machine, ends with the bytes
of an undisturbed run.
Cost: a window of `WINDOW_BATCHES` batches in memory, however many prompts there are; prompts of a window are batched by
length, so that little is padded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from corpus.generate import best_of
from corpus.generate.best_of import Scorer
from corpus.generate.config import Choice, Finish, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model
from corpus.generate.few_shot import PLAIN, Form
from corpus.generate.prompt_file import Prompt, PromptFile
from corpus.generate.results_file import ResultsFile
from corpus.generate.stage import joined
from corpus.pipeline.progress import SILENT, Progress

WINDOW_BATCHES = 8
"""Batches that are sorted by length together."""
_DIGITS = 6
WINDOW_CHARACTERS = 4_000_000
"""Characters after which a window ends, whatever its number of prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One continuation of one prompt of a file."""

    prompt: Prompt
    sample: int
    """Which sample of the prompt, from 0."""
    text: str
    finish: Finish
    seed: int
    """The seed of the run; it reproduces the text with the same settings."""
    choice: Choice | None = None
    """Of best-of-n: the scores of all samples that were drawn."""

    def to_line(self) -> str:
        """One line of JSON: prompt, text, figures, and the other keys of the prompt."""
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
        if self.choice:
            scores = [None if score is None else round(score, _DIGITS) for score in self.choice.scores]
            values |= {"score": scores[self.choice.sample], "scores": scores}
        return json.dumps(values | self.prompt.rest, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Summary of a file of results."""

    results: int
    kept: int
    """How many of them an interrupted run had written."""
    tokens: int
    """Tokens written by this run."""
    seconds: float
    """Duration of this run, without opening the model."""


class _Row(NamedTuple):
    prompt: Prompt
    sample: int


def results(
    model: Model, config: SampleConfig, prompts: Iterable[Prompt], *, form: Form = PLAIN,
    scorer: Scorer | None = None, progress: Progress = SILENT, window_characters: int = WINDOW_CHARACTERS,
) -> Iterator[Result]:  # fmt: skip
    """Continue prompts, `num_samples` times each, or with the best of `best_of`; `config.prompts` is ignored.

    Raises:
        PromptError: a line is no prompt.
        ModelError: model or reward model returned NaN or infinity.
        DeviceError: the device is out of memory.

    """
    writer = _Writer(model, config, form, progress, scorer)
    for window in _windows(prompts, config, window_characters):
        yield from writer.write(window)


def run(
    config: SampleConfig, model: Model, prompts: PromptFile, output: Path, *, form: Form = PLAIN,
    scorer: Scorer | None = None, new_seed: bool = False, progress: Progress = SILENT,
) -> Done:  # fmt: skip
    """Continue all prompts into a file; `corpus.generate.results_file` says how it is resumed.

    `config.prompts` is ignored. With `new_seed` an interrupted run is resumed with its own seed: the user gave none.

    Raises:
        PromptError: a line is no prompt.
        ModelError: the model returned NaN or infinity.
        DeviceError: the device is out of memory.
        DiskError: the file cannot be written.
        BusyError: another process writes it.

    """
    started = time.perf_counter()
    with ResultsFile(output, _job(config, model, prompts, form, scorer), progress=progress) as file:
        if new_seed and file.seed is not None:
            config = dataclasses.replace(config, seed=file.seed)
        file.begin(config.seed)
        writer = _Writer(model, config, form, progress, scorer)
        written = tokens = 0
        with progress.bar("sample", prompts.count and prompts.count * config.drawn, "samples"):
            for window in _windows(prompts, config, WINDOW_CHARACTERS):
                if file.keep(len(window) // (config.best_of or 1)):
                    progress.advance(len(window))
                    continue
                for result in writer.write(window):
                    file.write(result.to_line())
                    written += 1
                    tokens += result.finish.tokens
        file.finish()
        seconds = time.perf_counter() - started
        return Done(results=file.kept + written, kept=file.kept, tokens=tokens, seconds=seconds)


def _windows(prompts: Iterable[Prompt], config: SampleConfig, most: int) -> Iterator[list[_Row]]:
    """Samples to write, a bounded number at a time; where a window ends depends on prompts and settings alone."""
    window: list[_Row] = []
    characters = 0
    for prompt in prompts:
        for sample in range(config.drawn):
            is_full = len(window) >= WINDOW_BATCHES * config.batch_size or (window and characters > most)
            if is_full and not (config.best_of and sample):  # samples to choose from are in one window
                yield window
                window, characters = [], 0
            window.append(_Row(prompt, sample))
            characters += len(prompt.text)
    if window:
        yield window


class _Writer:
    """Writes windows with one model and one form."""

    def __init__(
        self, model: Model, config: SampleConfig, form: Form, progress: Progress, scorer: Scorer | None
    ) -> None:
        best_of.check(config, scorer)
        self._scorer = scorer
        self._model = model
        self._config = config
        self._form = form
        self._encode = form.encoder(model)
        self._progress = progress
        self._has_warned = False

    def write(self, window: Sequence[_Row]) -> Iterator[Result]:
        """The results of a window in its order, each as soon as it and those before it are ready.

        The best of several come when all of the window are ready, and are scored together.
        """
        if self._scorer is None:
            yield from self._written(window)
            return
        found, reader = list(self._written(window)), self._form.reader(self._model)
        many, read = self._config.drawn, [reader(result.prompt.text, result.text) for result in found]
        for number, choice in enumerate(best_of.choose(read, self._scorer, many=many)):
            yield dataclasses.replace(found[number * many + choice.sample], choice=choice)

    def _written(self, window: Sequence[_Row]) -> Iterator[Result]:
        """All samples of a window in its order."""
        ids, sizes = self._encoded(window)
        rows = {(row.prompt.line - 1, row.sample): row for row in window}
        keys = sorted(rows, key=lambda key: -len(ids[key[0]]))
        turns = iter(rows)
        turn = next(turns)
        ready: dict[tuple[int, int], Result] = {}
        for start in range(0, len(keys), self._config.batch_size):
            batch = Batch(self._model, ids, keys[start : start + self._config.batch_size], self._config)
            for key, (text, finish) in joined(self._form.answers(batch.pieces()), self._progress).items():
                whole = dataclasses.replace(finish, prompt_tokens=sizes[key[0]])
                ready[key] = Result(
                    prompt=rows[key].prompt, sample=key[1], text=text, finish=whole, seed=self._config.seed
                )
            while turn in ready:
                yield ready.pop(turn)
                turn = next(turns, turn)

    def _encoded(self, window: Sequence[_Row]) -> tuple[dict[int, list[int]], dict[int, int]]:
        """By line of the window: the newest tokens that fit the context, and the number of all tokens."""
        context = self._model.context
        ids: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        for prompt in {row.prompt.line: row.prompt for row in window}.values():
            tokens = self._encode(prompt.text)
            ids[prompt.line - 1], sizes[prompt.line - 1] = tokens[-context:], len(tokens)
            if len(tokens) > context and not self._has_warned:
                self._has_warned = True
                self._progress.say(
                    f"line {prompt.line} has {len(tokens):,} tokens: of this and every longer prompt the model reads "
                    f"the newest {context:,}"
                )
        return ids, sizes


def _job(
    config: SampleConfig, model: Model, prompts: PromptFile, form: Form, scorer: Scorer | None
) -> dict[str, Any] | None:
    """Everything that determines the texts except the seed; None where the prompts come from a pipe."""
    if not prompts.is_file:
        return None
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in {"prompts", "seed"}}
    return settings | {
        "prompts": prompts.digest(),
        "shots": [form.begin("\0") if form.begin else "", *form.shots],
        "model": _model_digest(model.folder),
        "reward": scorer and _model_digest(scorer.folder),
        "device": model.network.device.type,
        "precision": str(model.network.dtype),
    }


def _model_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a model's files."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
