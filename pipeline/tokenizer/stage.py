"""The tokenizer stage: byte-level BPE, trained on a bounded sample of the documents, balanced over the datasets.

In: `documents/*`, the train split only. Out: `tokenizer/tokenizer.json` and `tokenizer_config.json`, which
AutoTokenizer opens.
Invariants: there is no unknown token; decode(encode(x)) = x; the sample depends on the documents alone, and the
tokenizer on the sample alone, whichever trainer is installed; special strings in text never become special tokens.
Cost: time and memory depend on the sample alone: 100 MB take 14 s and 0.54 GB with gigabpe (`tokenizer.trainer`),
several times that without. A large sample is read from a file of the workspace, never held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from corpus.pipeline.errors import BooksError, WorkerError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.tokenizer import trainer as bpe
from corpus.pipeline.tokenizer.files import PATTERN, hub_config
from corpus.pipeline.tokenizer.sample import Sample, share_quota
from corpus.pipeline.tokenizer.special_tokens import BYTE_NAMES, SPECIAL_TOKENS
from corpus.pipeline.workers import run_pieces
from corpus.pipeline.workspace.files import disk_errors, scratch, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Report, Stopwatch
from corpus.pipeline.workspace.stage import StageRun

STAGE = "tokenizer"
VERSION = 3
VOCAB_SIZE = 32_000
SAMPLE_CHARACTERS = 40_000_000
LARGEST_VOCAB = 1_000_000
SMALLEST_VOCAB = 256 + len(SPECIAL_TOKENS)
IN_MEMORY_CHARACTERS = 1_000_000
"""Largest sample that is trained on in this process."""
_ENOUGH = 50
"""Characters of the sample for each entry. On baike2018qa texts that were not learnt from have 4 % fewer bytes a token
at 50, 13 % at 19, 30 % at 6."""
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


def run(
    config: TokenizerConfig,
    workspace: Workspace,
    *,
    progress: Progress = SILENT,
    in_memory_characters: int = IN_MEMORY_CHARACTERS,
) -> Report:
    """Train the tokenizer; the caller holds `workspace.writing()`.

    A sample of more than `in_memory_characters` goes through a file, to a trainer in a process of its own.

    Raises:
        WorkspaceError: there are no documents to train on.
        BooksError: the tokenizer does not decode its sample to the same text.
        DamageError: a documents shard is not what its ledger says.

    """
    watch = Stopwatch()
    folder = workspace.tokenizer
    names = sorted(selection.datasets_of(workspace, config.datasets))
    chosen = {name: selection.load(workspace, name) for name in names}
    inputs = list[FileDigest]()
    for name in names:
        selection.documents_of(workspace, name, progress, read=False)  # compares the documents with their ledger
        inputs += [workspace.file_digest(workspace.documents(name) / LEDGER), *chosen[name].inputs]
    settings: dict[str, Any] = {
        "datasets": names,
        "vocab_size": config.vocab_size,
        "sample_characters": config.sample_characters,
        "pattern": PATTERN,
        "tokenizers": tokenizers.__version__,
    }
    stage = StageRun(
        workspace, folder, stage=STAGE, version=VERSION, config=settings, inputs=inputs, watch=watch, progress=progress
    )
    if report := stage.skipped():
        return report
    sample = Sample(workspace, share_quota(workspace, chosen, config.sample_characters), chosen)
    progress.say(f"training {config.vocab_size:,} entries on {sample.quota:,} characters of {', '.join(names)}")
    if sample.quota <= in_memory_characters:
        tokenizer, trainer, why = bpe.train(list(sample.batches(SILENT)), config.vocab_size), bpe.REFERENCE, ""
    else:
        tokenizer, trainer, why = _train_from_file(sample, config.vocab_size, folder, progress)
    table = {
        name: {"sampled": sample.characters[name]} | measure(tokenizer, texts)
        for name, texts in sample.measured.items()
    }
    stage.begin()
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_atomic(folder / "tokenizer_config.json", hub_config())
    entries, characters = tokenizer.get_vocab_size(), sum(sample.characters.values())
    return stage.finish(
        outputs=[folder / name for name in ("tokenizer.json", "tokenizer_config.json")],
        counts={"entries": entries, "characters": characters, "datasets": table},
        check_books=None,  # `measure` has decoded what it encoded
        timings={"trainer": trainer},
        notes=([why] if why else []) + _notes(entries, characters, config.vocab_size),
    )


def _notes(entries: int, characters: int, wanted: int) -> list[str]:
    """That the sample was small for the vocabulary."""
    notes = list[str]()
    if entries < wanted:
        notes.append(f"the sample gives only {entries:,} of {wanted:,} entries: it is small")
    if characters < entries * _ENOUGH:
        fits = max(300, characters // _ENOUGH)
        notes.append(
            f"{characters:,} characters are few for {entries:,} entries: bytes/token is measured on the texts that it "
            f"learnt from, and will be lower on others; `corpus tokenizer --vocab-size {fits}` fits them"
        )
    return notes


def _train_from_file(sample: Sample, vocab_size: int, folder: Path, progress: Progress) -> tuple[Tokenizer, str, str]:
    """The tokenizer, its trainer, and why the fast trainer was not used."""
    neighbours = bpe.Neighbours()
    with scratch(folder / "sample.txt") as path:
        with progress.bar("tokenizer: reading", 2 * sample.quota, "characters"):
            for text in sample.batches(progress):
                neighbours.add(text)
            with disk_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
                for text in sample.batches(progress):
                    file.write(neighbours.cut(text, vocab_size) + "\n")
        with progress.bar(f"tokenizer: learning {vocab_size:,} entries", None, "entries"):
            work = partial(bpe.merges_of, vocab_size=vocab_size, fast=bpe.fast_available())
            try:  # in its own process: the trainers ignore Ctrl-C and do not free their memory
                (learnt,) = run_pieces(work, [path], workers=2, here=True)
            except WorkerError as error:
                error.hint = "Run the same command again; if memory was short, with fewer --sample-characters."
                raise
    merges, trainer, why = learnt
    return bpe.build(merges, vocab_size), trainer, why


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """Bytes and characters per token on some texts, and the share of Han characters that are one token.

    Raises:
        BooksError: a text is not decoded to itself.

    """
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    tokens = sum(len(encoding.ids) for encoding in encodings)
    for text, back in zip(texts, tokenizer.decode_batch([encoding.ids for encoding in encodings]), strict=True):
        if text != back:
            raise BooksError(f"the tokenizer does not decode this text to itself: {text[:80]!r}")
    han = _HAN.findall("".join(texts))
    spelled = {character: "".join(BYTE_NAMES[byte] for byte in character.encode()) for character in set(han)}
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
