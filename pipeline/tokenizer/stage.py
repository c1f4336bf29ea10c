"""The tokenizer stage: byte-level BPE, trained on a bounded sample of the documents, balanced over the datasets.

In: `documents/*`, the train split only. Out: `tokenizer/tokenizer.json` and `tokenizer_config.json`, which
AutoTokenizer opens.
Invariants: no unknown token, decode(encode(x)) = x; the sample depends on the documents alone, and the tokenizer on the
sample alone, whichever trainer is installed; special strings in ordinary text never become special tokens.
Cost: the sample's size bounds it, however much there is: 100 MB take 14 s and 0.54 GB with gigabpe
(`tokenizer.trainer`), several times that without. The sample is never in memory; it waits in a file of the workspace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from corpus.pipeline.errors import BooksError, WorkerError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.tokenizer import special_tokens
from corpus.pipeline.tokenizer import trainer as bpe
from corpus.pipeline.tokenizer.files import PATTERN, hub_config
from corpus.pipeline.tokenizer.sample import Sample, share_quota
from corpus.pipeline.tokenizer.special_tokens import SPECIAL_TOKENS
from corpus.pipeline.workers import run_pieces
from corpus.pipeline.workspace.files import disk_errors, remove_leftovers, scratch, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    changes,
    fingerprint,
    read_ledger,
    write_ledger,
)

STAGE = "tokenizer"
VERSION = 3
VOCAB_SIZE = 32_000
SAMPLE_CHARACTERS = 40_000_000
LARGEST_VOCAB = 1_000_000
SMALLEST_VOCAB = 256 + len(SPECIAL_TOKENS)
_ASIDE_CHARACTERS = 1_000_000
_HAN = re.compile("[" + "".join(f"{chr(first)}-{chr(end - 1)}" for first, end in bpe.HAN_RANGES) + "]")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """What the tokenizer is trained on and how large it gets."""

    datasets: tuple[str, ...] = ()
    """Datasets to sample from; all that have documents when empty."""
    vocab_size: int = VOCAB_SIZE
    """Entries, special tokens included."""
    sample_characters: int = SAMPLE_CHARACTERS
    """Characters of the sample over all datasets."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.vocab_size < SMALLEST_VOCAB:
            raise ValueError(
                f"--vocab-size must be at least {SMALLEST_VOCAB} (256 bytes and the special tokens), "
                f"is {self.vocab_size}"
            )
        if self.vocab_size > LARGEST_VOCAB:
            raise ValueError(f"--vocab-size must be at most {LARGEST_VOCAB:,}, is {self.vocab_size:,}")
        if self.sample_characters < 1:
            raise ValueError(f"--sample-characters must be at least 1, is {self.sample_characters}")


def run(config: TokenizerConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Train the tokenizer; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: there are no documents to train on.
        BooksError: the tokenizer does not give its sample back.
        DamageError: a documents shard cannot be read.

    """
    watch = Stopwatch()
    folder = workspace.tokenizer
    names = sorted(config.datasets or workspace.finished("documents"))
    chosen = {name: selection.load(workspace, name) for name in names}
    inputs = _inputs(workspace, names, chosen)
    settings: dict[str, Any] = {
        "datasets": names,
        "vocab_size": config.vocab_size,
        "sample_characters": config.sample_characters,
        "pattern": PATTERN,
        "tokenizers": tokenizers.__version__,
    }
    identity = fingerprint(STAGE, VERSION, settings, inputs)
    remove_leftovers(folder)
    before = read_ledger(folder)
    reasons = changes(before, folder, VERSION, settings, inputs, workspace.digest)
    if before is not None and not reasons:
        return Report(ledger=before, folder=folder, skipped=True)
    for reason in reasons:
        progress.say(f"the tokenizer is trained again: {reason}")
    sample = Sample(workspace, share_quota(workspace, chosen, config.sample_characters), chosen)
    progress.say(f"training {config.vocab_size:,} entries on {sample.quota:,} characters of {', '.join(names)}")
    tokenizer, trainer, why = _train(sample, config.vocab_size, folder, progress)
    table = {
        name: {"sampled": sample.characters[name]} | measure(tokenizer, texts)
        for name, texts in sample.measured.items()
    }
    (folder / LEDGER).unlink(missing_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_atomic(folder / "tokenizer_config.json", hub_config())
    outputs = [workspace.file_digest(folder / name, folder) for name in ("tokenizer.json", "tokenizer_config.json")]
    characters = sum(sample.characters.values())
    counts = {"entries": tokenizer.get_vocab_size(), "characters": characters, "datasets": table}
    ledger = Ledger(
        stage=STAGE, dataset=None, version=VERSION, config=settings, inputs=inputs, outputs=outputs, counts=counts,
        fingerprint=identity,
    )  # fmt: skip
    write_ledger(folder, ledger, {"seconds": watch.seconds, "trainer": trainer})
    notes = [why] if why else []
    if tokenizer.get_vocab_size() < config.vocab_size:
        notes.append(
            f"the sample gives only {tokenizer.get_vocab_size():,} of {config.vocab_size:,} entries: it is small"
        )
    return Report(ledger=ledger, folder=folder, reasons=tuple(reasons), notes=tuple(notes), seconds=watch.seconds)


def _train(sample: Sample, vocab_size: int, folder: Path, progress: Progress) -> tuple[Tokenizer, str, str]:
    """The tokenizer, the trainer that made it, and what to tell when a large sample was not for the fast one."""
    if sample.quota <= _ASIDE_CHARACTERS:
        return bpe.train(list(sample.batches(SILENT)), vocab_size), bpe.REFERENCE, ""
    neighbours = bpe.Neighbours()
    with scratch(folder / "sample.txt") as path:
        progress.begin("tokenizer: reading", 2 * sample.quota, "characters")
        try:
            for text in sample.batches(progress):
                neighbours.add(text)
            with disk_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
                for text in sample.batches(progress):
                    file.write(neighbours.cut(text, vocab_size) + "\n")
        finally:
            progress.end()
        progress.begin(f"tokenizer: learning {vocab_size:,} entries", None, "entries")
        try:  # in a process of its own: the trainers hear no Ctrl-C, and keep the memory they took
            work = partial(bpe.merges_of, vocab_size=vocab_size, fast=bpe.fast_available())
            (learnt,) = run_pieces(work, [path], workers=2)
        except WorkerError as error:
            error.hint = "Run the same command again; if memory was short, with fewer --sample-characters."
            raise
        finally:
            progress.end()
    merges, trainer, why = learnt
    return bpe.build(merges, vocab_size), trainer, why


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """How a tokenizer does on texts: bytes and characters per token, and the share of Han characters with a token of
    their own.

    Raises:
        BooksError: the texts do not come back.

    """
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    tokens = sum(len(encoding.ids) for encoding in encodings)
    for text, back in zip(texts, tokenizer.decode_batch([encoding.ids for encoding in encodings]), strict=True):
        if text != back:
            raise BooksError(f"the tokenizer does not give this text back: {text[:80]!r}")
    han = _HAN.findall("".join(texts))
    spelled = {
        character: "".join(special_tokens.BYTE_NAMES[byte] for byte in character.encode()) for character in set(han)
    }
    own = {character for character, name in spelled.items() if tokenizer.token_to_id(name) is not None}
    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    return {
        "documents": len(texts),
        "characters": characters,
        "tokens": tokens,
        "bytes_per_token": round(size / tokens, 4) if tokens else 0,
        "characters_per_token": round(characters / tokens, 4) if tokens else 0,
        "han_with_own_token": round(sum(character in own for character in han) / len(han), 6) if han else 0,
    }


def _inputs(workspace: Workspace, names: Sequence[str], chosen: Mapping[str, selection.Selection]) -> list[FileDigest]:
    if not names:
        raise WorkspaceError("there are no documents to train a tokenizer on", hint="Run `corpus ingest` first.")
    inputs = []
    for name in names:
        path = workspace.documents(name) / LEDGER
        if not path.is_file():
            raise WorkspaceError(f"{name} has no documents", hint=f"Run `corpus ingest --dataset {name}` first.")
        inputs += [workspace.file_digest(path), *chosen[name].inputs]
    return inputs
