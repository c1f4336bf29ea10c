"""`corpus sample`: prompts in, text out, streamed.

In: a model folder and a `SampleConfig`. Out: `Piece`s as they are written, or complete `Sample`s. A prompt is read as
the beginning of a document, after the tokens that the model's tokenizer puts before a text; where it puts none, an
empty prompt starts from the separator.
Invariants: a sample depends on seed, prompt, its own number and the settings, not on the other samples of its batch (up
to the rounding of the device); no piece ends inside a character or shows part of a stop string; no separator is
printed.
Cost: one step of the model for each token, batched; `train.model.kv_cache` says what passing the context costs.
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
    """Open a model and write all samples, ordered by prompt and number; `best_of` chooses none here.

    Raises:
        ModelError, TokenizerError, DeviceError: as `corpus.generate.engine.model.load`.

    """
    model = load(folder, device=device, precision=precision)
    with progress.bar("sample", len(config.prompts) * config.drawn, "samples"):
        samples = joined(stream(model, config, form=form, progress=progress), progress)
    return [
        Sample(prompt=config.prompts[prompt], sample=number, text=text, finish=finish, seed=config.seed)
        for (prompt, number), (text, finish) in sorted(samples.items())
    ]


def stream(model: Model, config: SampleConfig, *, form: Form = PLAIN, progress: Progress = SILENT) -> Iterator[Piece]:
    """Write all samples, `batch_size` at a time; the last piece of each has a `finish`.

    Pieces of different samples alternate; `in_order` sorts them. Remarks, such as that a prompt is longer than the
    context, go to `progress.say`.

    Raises:
        ModelError: the model returned NaN or infinity.
        DeviceError: the device is out of memory.

    """
    prompts = list(map(form.encoder(model), config.prompts))
    return iter(form.answers(stream_ids(model, prompts, config, progress=progress)))


def stream_ids(
    model: Model, prompts: Sequence[Sequence[int]], config: SampleConfig, *, progress: Progress = SILENT
) -> Iterator[Piece]:
    """`stream` for prompts of tokens, in place of `config.prompts`."""
    most = model.context
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) > most:
            progress.say(f"prompt {number} has {len(prompt)} tokens; the model reads the newest {most} of them")
    if max(map(len, prompts)) + config.max_new_tokens > most:
        progress.say(f"where a text passes {most} tokens, the model continues from the newest {most // 2}")
    keys = list(itertools.product(range(len(prompts)), range(config.drawn)))
    for start in range(0, len(keys), config.batch_size):
        yield from Batch(model, prompts, keys[start : start + config.batch_size], config).pieces()


def joined(pieces: Iterable[Piece], progress: Progress) -> dict[tuple[int, int], tuple[str, Finish]]:
    """Text and finish of each sample, by prompt and number; the progress counts the samples."""
    texts: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    finishes: dict[tuple[int, int], Finish] = {}
    for piece in pieces:
        texts[piece.prompt, piece.sample].append(piece.text)
        if piece.finish:
            finishes[piece.prompt, piece.sample] = piece.finish
            progress.advance(1)
    return {key: ("".join(texts[key]), finish) for key, finish in finishes.items()}


def in_order(pieces: Iterable[Piece], config: SampleConfig) -> Iterator[Piece]:
    """The pieces sample by sample: those of the first unfinished sample at once, the others after it."""
    turns = itertools.product(range(len(config.prompts)), range(config.drawn))
    turn = next(turns, None)
    waiting: defaultdict[tuple[int, int] | None, list[Piece]] = defaultdict(list)
    for piece in pieces:
        waiting[piece.prompt, piece.sample].append(piece)
        while ready := waiting.pop(turn, None):
            yield from ready
            if ready[-1].finish:
                turn = next(turns, None)
