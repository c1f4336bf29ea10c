"""Packing one shard of rows from a few shards of documents: the work of a worker.

In: a unit, that is the documents of one split in a group of documents shards, and the layout of the rows. Out: one
Arrow shard with the fingerprint of its work and its counts, and its receipt.
Invariants: tokens encoded = tokens in segments; every document is used, left out by a list, or lacks the question that
chat rows need; a shard depends on its documents shards and the tokenizer alone.
Cost: one unit in memory; 0.36 GB a process on news2016zh.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from corpus.pipeline import templates
from corpus.pipeline.errors import BooksError, WorkspaceError
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.pack import bin_packing, chat_turns
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import has_turns, part_groups, parts, read_part
from corpus.pipeline.storage.row_shards import rows_table, with_metadata, write_rows
from corpus.pipeline.tokenizer import encoders, special_tokens
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt


@dataclass(frozen=True, slots=True)
class Unit:
    """The documents that one worker packs into one shard."""

    split: str
    number: int
    parts: tuple[Path, ...]
    characters: int
    identity: str = ""
    """Fingerprint of its work where that does not depend on other documents; else the stage's counts."""

    @property
    def file(self) -> str:
        """Path of the shard in the stage's folder."""
        return f"{self.split}/data-{self.number:05d}.arrow"

    @property
    def piece(self) -> str:
        """The name of its receipt."""
        return f"{self.split}-{self.number:05d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of rows, from the configuration and the tokenizer."""

    form: str
    """`text` or `chat`."""
    strategy: str
    seq_length: int
    vocab_size: int
    separator: int
    pad: int
    user: int
    assistant: int

    @property
    def token_type(self) -> type[np.unsignedinteger[Any]]:
        """The narrowest type for every id."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32


class _Encoded(NamedTuple):
    """Encoded documents, concatenated."""

    ids: np.ndarray
    """[tokens], with special tokens."""
    lengths: np.ndarray
    """[documents] tokens of each."""
    references: np.ndarray
    """[documents] shard and line of each."""


def has_questions(folder: Path) -> bool:
    """Whether any document of a documents folder begins with a question, as chat rows need.

    Raises:
        DamageError: a documents shard cannot be read.

    """
    return any(
        pc.any(pc.greater(batch["prompt_length"], 0)).as_py()
        for path in parts(folder)
        for _, _, batch in read_part(path, ["prompt_length"])
    )


def layout_of(model: Tokenizer, *, form: str, strategy: str, seq_length: int) -> Layout:
    """The layout of rows for a tokenizer.

    Raises:
        WorkspaceError: the tokenizer lacks a special token.

    """
    names = (special_tokens.SEPARATOR, special_tokens.PAD, special_tokens.USER, special_tokens.ASSISTANT)
    ids = [token for token in map(model.token_to_id, names) if token is not None]
    if len(ids) < len(names):
        raise WorkspaceError(f"the tokenizer lacks one of {', '.join(names)}", hint="Run `corpus tokenizer` again.")
    return Layout(form, strategy, seq_length, model.get_vocab_size(), *ids)


def divide(folder: Path, unit_characters: int) -> list[Unit]:
    """Groups of consecutive documents shards of up to `unit_characters`, split by split."""
    return [
        Unit(split, number, tuple(paths), characters)
        for split in SPLITS
        for number, (paths, characters) in enumerate(part_groups(folder, split, unit_characters))
    ]


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed unit."""

    receipt: Receipt
    """Of its shard."""
    engine: str
    """The encoder used."""
    warning: str
    """Why it was not the kernel, for the user."""


def pack_unit(
    piece: tuple[Unit, selection.Selection], *, folder: Path, tokenizer_folder: Path, proof: encoders.Proof,
    layout: Layout, identity: str,
) -> Packed:  # fmt: skip
    """Encode and pack one unit, given with what is left out of it, and write its shard and receipt; runs in a worker.

    Raises:
        BooksError: the tokens in the segments are not the tokens encoded.
        DamageError: a documents shard cannot be read.

    """
    unit, chosen = piece
    engine = _engine(tokenizer_folder, proof)
    encoded, books = _encode(unit, engine.encode, layout, chosen)
    lengths = encoded.lengths
    plan = (bin_packing.best_fit if layout.strategy == "best-fit" else bin_packing.concat)(lengths, layout.seq_length)
    firsts = np.cumsum(lengths) - lengths
    rows = bin_packing.fill(plan, encoded.ids, firsts, layout.seq_length, layout.pad)
    counts = {
        **books,
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
        "rows": plan.rows,
        "padding": plan.rows * layout.seq_length - int(plan.lengths.sum()),
        "cut_documents": int((np.bincount(plan.documents, minlength=len(lengths)) > 1).sum()),
    }
    if layout.form == "chat":
        starts = firsts[plan.documents] + plan.starts
        counts["answer_tokens"] = chat_turns.answer_tokens(
            encoded.ids, starts, starts + plan.lengths, user=layout.user, assistant=layout.assistant
        )
    if int(plan.lengths.sum()) != counts["tokens"]:
        raise BooksError(f"{unit.file}: {counts['tokens']:,} tokens encoded, {int(plan.lengths.sum()):,} in segments")
    table = rows_table(
        rows, plan.row_starts, encoded.references[plan.documents], plan.starts, plan.lengths,
        vocab_size=layout.vocab_size,
    )  # fmt: skip
    work = unit.identity or identity
    files = PieceWriter(folder, work, unit.piece)
    with files.output(unit.file) as out:
        out.groups += write_rows(out, with_metadata(table, work, counts))
    return Packed(files.finish(counts), engine.engine, engine.warning)


@functools.lru_cache(maxsize=1)
def _engine(folder: Path, proof: encoders.Proof) -> encoders.Chosen:
    """The encoder of a run, chosen once a process."""
    return encoders.choose(folder, proof)


def _encode(
    unit: Unit, encode: encoders.Encode, layout: Layout, chosen: selection.Selection
) -> tuple[_Encoded, Counter[str]]:
    """The encoded documents of a unit, and the characters of these and of those without a question."""
    empty = np.zeros(0, np.int64)
    found = [_Encoded(empty.astype(layout.token_type), empty, empty)]
    books = Counter({"characters": 0})
    if layout.form == "chat":
        books.update({"without_prompt": 0, "characters_without_prompt": 0})
    for references, texts, turns in documents_of(unit, chosen):
        used, ids, lengths = _encode_batch(texts, turns, encode, layout)
        found.append(_Encoded(ids, lengths, references[used]))
        sizes = pc.utf8_length(texts).to_numpy()
        books["characters"] += int(sizes[used].sum())
        if not used.all():
            books["without_prompt"] += int((~used).sum())
            books["characters_without_prompt"] += int(sizes[~used].sum())
    return _Encoded(*map(np.concatenate, zip(*found, strict=True))), books


def _encode_batch(
    texts: pa.Array, turns: pa.Array, encode: encoders.Encode, layout: Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which documents are used (for chat those with question and answer), their ids and lengths."""
    if layout.form == "text":
        flat, counts = encode(texts)
        ids = np.insert(flat.astype(layout.token_type), np.cumsum(counts), layout.separator)
        return np.ones(len(texts), dtype=bool), ids, counts + 1
    split = templates.turns if pa.types.is_list(turns.type) else templates.turn
    found: list[Sequence[str] | None] = list(map(split, texts.to_pylist(), turns.to_pylist()))
    flat, counts = encode(pa.array([side for turn in found if turn for side in turn], pa.string()))
    ids, lengths = chat_turns.join(
        flat.astype(layout.token_type), counts, np.array([len(turn) // 2 for turn in found if turn], np.int64),
        user=layout.user, assistant=layout.assistant, separator=layout.separator,
    )  # fmt: skip
    return np.array([turn is not None for turn in found]), ids, lengths


def documents_of(unit: Unit, chosen: selection.Selection) -> Iterator[tuple[np.ndarray, pa.Array, pa.Array]]:
    """A unit's documents that no list leaves out, in batches: references, texts, where the turns after the first begin.

    Without a column `turns` that is the length of the question.
    """
    turns = "turns" if has_turns(unit.parts[0]) else "prompt_length"
    for references, batch in selection.read_split(unit.parts, unit.split, ["text", turns], chosen):
        yield references, batch["text"], batch[turns]
