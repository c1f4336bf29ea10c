"""`corpus sample`: prompts in, text out while it is written.

In: a model folder and a `SampleConfig`. Out: `Piece`s as they come, or `Sample`s when all is done. A prompt is read
from position 0 without a token before it, as documents are in training; an empty one starts from the separator.
Invariants: a sample depends on seed, prompt, its own number and the settings, not on what runs beside it (up to the
rounding of the device); no piece ends inside a character or shows part of a stop string; no separator is printed.
Cost: one token of the model for each token, batched; see `window` for what the end of the context costs.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from corpus.generate.config import Finish, Piece, Sample, SampleConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model, load
from corpus.generate.few_shot import PLAIN, Form
from corpus.pipeline.progress import SILENT, Progress

__all__ = ["Finish", "Model", "Piece", "Sample", "SampleConfig", "in_order", "load", "run", "stream", "stream_ids"]


def run(
    config: SampleConfig, folder: Path, *, form: Form = PLAIN, device: str = "auto", precision: str = "auto",
    progress: Progress = SILENT,
) -> list[Sample]:  # fmt: skip
    """Open a model and write all samples, ordered by prompt and number.

    Raises:
        ModelError: the folder holds no model that can be loaded safely, or it does not fit the device.

    """
    model = load(folder, device=device, precision=precision)
    texts: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    finishes: dict[tuple[int, int], Finish] = {}
    progress.begin("sample", len(config.prompts) * config.num_samples, "samples")
    for piece in stream(model, config, form=form, progress=progress):
        texts[piece.prompt, piece.sample].append(piece.text)
        if piece.finish:
            finishes[piece.prompt, piece.sample] = piece.finish
            progress.advance(1)
    progress.end()
    return [
        Sample(
            prompt=config.prompts[prompt],
            sample=number,
            text="".join(texts[prompt, number]),
            finish=finish,
            seed=config.seed,
        )
        for (prompt, number), finish in sorted(finishes.items())
    ]


def stream(model: Model, config: SampleConfig, *, form: Form = PLAIN, progress: Progress = SILENT) -> Iterator[Piece]:
    """Write all samples at once, as many as `batch_size` allows; each ends with the one piece that has a `finish`.

    Pieces of different samples alternate; `in_order` sorts them. Notes, such as that a prompt is longer than the model
    can read, go to `progress.say`.

    Raises:
        ModelError: the model computes no numbers, or the device is full.

    """
    prompts = list(map(form.encoder(model), config.prompts))
    return iter(form.answers(stream_ids(model, prompts, config, progress=progress)))


def stream_ids(
    model: Model, prompts: Sequence[Sequence[int]], config: SampleConfig, *, progress: Progress = SILENT
) -> Iterator[Piece]:
    """`stream` for prompts that are tokens already, in place of `config.prompts`."""
    for note in _notes(model, prompts, config):
        progress.say(note)
    keys = list(itertools.product(range(len(prompts)), range(config.num_samples)))
    for start in range(0, len(keys), config.batch_size):
        yield from Batch(model, prompts, keys[start : start + config.batch_size], config).pieces()


def in_order(pieces: Iterable[Piece], config: SampleConfig) -> Iterator[Piece]:
    """The pieces sample by sample: the first unfinished one as it comes, those of the others when their turn comes."""
    turns = itertools.product(range(len(config.prompts)), range(config.num_samples))
    turn = next(turns, None)
    waiting: defaultdict[tuple[int, int] | None, list[Piece]] = defaultdict(list)
    for piece in pieces:
        waiting[piece.prompt, piece.sample].append(piece)
        while ready := waiting.pop(turn, None):
            yield from ready
            if ready[-1].finish:
                turn = next(turns, None)


def _notes(model: Model, prompts: Sequence[Sequence[int]], config: SampleConfig) -> Iterator[str]:
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) > model.context:
            yield f"prompt {number} has {len(prompt)} tokens; the model reads the newest {model.context} of them"
    if max(map(len, prompts)) + config.max_new_tokens > model.context:
        yield f"where a text passes {model.context} tokens, the model goes on from the newest {model.context // 2}"
