"""The tokenizer stage: byte-level BPE, trained on a bounded sample of the documents, balanced over the datasets.

In: `documents/*`, the train split only. Out: `tokenizer/tokenizer.json` and `tokenizer_config.json`, which
AutoTokenizer opens.
Invariants: no unknown token, decode(encode(x)) = x; the sample depends on the documents alone, and the tokenizer on the
sample alone, whichever trainer is installed; special strings in ordinary text never become special tokens.
Cost: the sample's size bounds it, however much there is: 100 MB take 14 s and 0.54 GB with gigabpe
(`tokenizer.trainer`), several times that without. The sample is never in memory; it waits in a file of the workspace.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tokenizers
from tokenizers import Tokenizer

from corpus.pipeline.errors import BooksError, TokenizerError, WorkerError, WorkspaceError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import part_number, parts, reading_part
from corpus.pipeline.tokenizer import trainer as bpe
from corpus.pipeline.tokenizer.trainer import ASSISTANT, PAD, SEPARATOR, SPECIAL_TOKENS, USER
from corpus.pipeline.workers import run_pieces
from corpus.pipeline.workspace.layout import (
    LEDGER,
    FileDigest,
    Ledger,
    Report,
    Stopwatch,
    Workspace,
    changes,
    disk_errors,
    fingerprint,
    read_ledger,
    remove_leftovers,
    scratch,
    write_atomic,
    write_ledger,
)

__all__ = ["ASSISTANT", "PAD", "SEPARATOR", "SPECIAL_TOKENS", "USER", "TokenizerConfig", "load", "measure", "run"]

STAGE = "tokenizer"
VERSION = 3
VOCAB_SIZE = 32_000
SAMPLE_CHARACTERS = 40_000_000
LARGEST_VOCAB = 1_000_000
SMALLEST_VOCAB = 256 + len(SPECIAL_TOKENS)
_STRATA = 64
_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 21
_MEASURED_CHARACTERS = 200_000
_ASIDE_CHARACTERS = 1_000_000
_HAN = re.compile("[" + "".join(f"{chr(first)}-{chr(end - 1)}" for first, end in bpe.HAN_RANGES) + "]")

PATTERN = "gpt2"
"""The split pattern, by the name under which encoders and runtimes know it.

It keeps a newline apart from the punctuation before it, so that a prompt ending in a question mark is encoded as the
same question is in training; Qwen 2's makes one token of both.
"""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{ASSISTANT}{{{{ message['content'] }}}}{SEPARATOR}"
    f"{{% else %}}{USER}{{{{ message['content'] }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


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
    sample = _Sample(workspace, _quotas(workspace, chosen, config), chosen)
    progress.say(f"training {config.vocab_size:,} entries on {sample.quota:,} characters of {', '.join(names)}")
    tokenizer, trainer, why = _train(sample, config.vocab_size, folder, progress)
    table = {
        name: {"sampled": sample.characters[name]} | measure(tokenizer, texts)
        for name, texts in sample.measured.items()
    }
    (folder / LEDGER).unlink(missing_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_atomic(folder / "tokenizer_config.json", _hub_config())
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


class _Sample:
    """The training documents to learn from: read anew for every pass, never all in memory."""

    def __init__(
        self, workspace: Workspace, quotas: Mapping[str, int], chosen: Mapping[str, selection.Selection]
    ) -> None:
        self.workspace = workspace
        self.chosen = chosen
        self.quotas = quotas
        self.quota = sum(quotas.values())
        self.characters: dict[str, int] = {}
        """What was really read of each dataset."""
        self.measured: dict[str, list[str]] = {}
        """A part of it, evenly spread, to measure the tokenizer on."""

    def batches(self, progress: Progress) -> Iterator[str]:
        """The documents, joined to texts of about two million characters."""
        for name, quota in self.quotas.items():
            batch: list[str] = []
            size = seen = kept = 0
            measured: list[str] = []
            for text in _sample(self.workspace, name, quota, self.chosen[name]):
                if kept * quota <= seen * min(quota, _MEASURED_CHARACTERS):
                    measured.append(text)
                    kept += len(text)
                batch.append(text)
                size += len(text)
                seen += len(text)
                if size > _BATCH_CHARACTERS:
                    yield "\n".join(batch)
                    progress.advance(size)
                    batch, size = [], 0
            if batch:
                yield "\n".join(batch)
                progress.advance(size)
            self.characters[name], self.measured[name] = seen, measured


def _train(sample: _Sample, vocab_size: int, folder: Path, progress: Progress) -> tuple[Tokenizer, str, str]:
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
    spelled = {character: "".join(bpe.BYTE_NAMES[byte] for byte in character.encode()) for character in set(han)}
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


def load(folder: Path) -> Tokenizer:
    """The workspace's tokenizer, with special strings in text taken as ordinary text.

    Raises:
        WorkspaceError: there is none.
        TokenizerError: it cannot be read.

    """
    path = folder / "tokenizer.json"
    if read_ledger(folder) is None or not path.is_file():
        raise WorkspaceError(f"{folder} holds no tokenizer", hint="Run `corpus tokenizer` first.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise TokenizerError(f"{path} cannot be read: {error}", hint="Run `corpus tokenizer` again.") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


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


def _quotas(workspace: Workspace, chosen: Mapping[str, selection.Selection], config: TokenizerConfig) -> dict[str, int]:
    """Characters from each dataset: equal shares, and what a small one lacks goes to the others."""
    sizes: dict[str, int] = {}
    for name, selected in chosen.items():
        ledger = read_ledger(workspace.documents(name))
        sizes[name] = ledger.counts["characters"].get("train", 0) - selected.characters["train"] if ledger else 0
    quotas: dict[str, int] = {}
    left = config.sample_characters
    for rank, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        quotas[name] = min(sizes[name], left // (len(sizes) - rank))
        left -= quotas[name]
    if not any(quotas.values()):
        raise WorkspaceError(
            f"{', '.join(chosen)} hold no training documents", hint="`corpus trace --rejected too_short` shows why."
        )
    return dict(sorted(quotas.items()))


def _sample(workspace: Workspace, name: str, quota: int, chosen: selection.Selection) -> Iterator[str]:
    """About `quota` characters of training documents, from row groups spread evenly over the dataset."""
    groups = [(path, group) for path in parts(workspace.documents(name)) for group in range(_row_groups(path))]
    strata = groups if len(groups) <= _STRATA else [groups[index * len(groups) // _STRATA] for index in range(_STRATA)]
    taken = [0] * len(strata)
    for _ in range(2):  # what small groups lack in the first round, the others give in the second
        for rank, (path, group) in enumerate(strata):
            share = -(-quota // (len(strata) - rank))
            if share <= 0:
                continue
            for text in itertools.islice(_training_texts(path, group, chosen), taken[rank], None):
                yield text
                taken[rank] += 1
                share -= len(text)
                quota -= len(text)
                if share <= 0:
                    break


def _row_groups(path: Path) -> int:
    with reading_part(path):
        return int(pq.read_metadata(path).num_row_groups)


def _training_texts(path: Path, group: int, chosen: selection.Selection) -> Iterator[str]:
    """The training documents of a row group that are used, read no further than they are asked for."""
    shard = part_number(path)
    with reading_part(path), pq.ParquetFile(path) as file:
        line = sum(file.metadata.row_group(before).num_rows for before in range(group))
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=["text", "split"]):
            _, used = selection.select(batch, shard, line, chosen)
            for text, split in zip(used["text"].to_pylist(), used["split"].to_pylist(), strict=True):
                if split == "train":
                    yield text
            line += batch.num_rows


def _hub_config() -> bytes:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": _CHAT_TEMPLATE,
    }
    return (json.dumps(config, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()
