"""Writing one piece of an export: the work of a worker.

In: the documents of one split in a few documents shards, less what is left out. Out: in `pieces/` a file with their
tokens or texts and one that names the documents, and the receipt of both.
Invariants: documents stay in the order of their shards; a document's tokens are those of its text and the separator,
which stands nowhere else; a piece depends on its documents shards, the lists and the tokenizer alone.
Cost: one batch of documents in memory; one piece for MDS, whose offsets stand before the samples.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.pipeline import templates
from corpus.pipeline.export.formats import FORMATS, Piece, mds_shard
from corpus.pipeline.export.lineage import Documents, write_documents, write_lineage
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import has_turns
from corpus.pipeline.storage.selection import Selection
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt

_COLUMNS = ["id", "text", "prompt_length", "source_file", "source_offset", "meta"]
_MESSAGE = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a worker needs to encode."""

    folder: Path
    """The tokenizer's."""
    proof: encoders.Proof
    kind: np.dtype[Any]
    separator: int


@dataclass(frozen=True, slots=True)
class Job:
    """What the pieces of one export have in common."""

    place: Path
    format: str
    chat: bool
    tokens: Tokens | None
    identity: str
    """Fingerprint of the work."""


@dataclass(frozen=True, slots=True)
class Written:
    """A piece that is written."""

    receipt: Receipt
    """With the number of documents, characters and tokens, and bytes and SHA-256 of the data."""
    engine: str = ""
    """The encoder used."""
    warning: str = ""
    """Why it was not the kernel, for the user."""


class _Batch(NamedTuple):
    """Documents that are written together."""

    references: np.ndarray
    """[documents] shard and line of each."""
    rows: pa.RecordBatch
    """Their columns; in the chat form with `messages`."""


class _Sink(Protocol):
    """What writes a piece in some format."""

    def add(self, batch: _Batch) -> np.ndarray:
        """Write documents; returns [documents] the length of each, in tokens or characters."""

    def close(self) -> None:
        """Write what follows the last document."""


def write_piece(task: tuple[Piece, Selection], *, job: Job) -> Written:
    """Write one piece and its receipt into the folder of the export.

    Raises:
        DamageError: a documents shard cannot be read.

    """
    piece, chosen = task
    counts: Counter[str] = Counter({"characters": 0})
    engine = _engine(job.tokens.folder, job.tokens.proof) if job.tokens else None
    references, names, lengths = [np.zeros(0, np.int64)], list[pa.Array](), [np.zeros(0, np.int64)]
    files = PieceWriter(job.place, job.identity, piece.name)
    with files.output(piece.data) as file:
        sink = _sink(job, piece, engine, file)
        for batch in _documents(piece, chosen, counts, chat=job.chat):
            lengths.append(sink.add(batch).astype(np.int64))
            references.append(batch.references)
            names.append(batch.rows["id"])
            file.groups.append(len(batch.references))
        sink.close()
    length = np.concatenate(lengths)
    found = {**counts, "documents": len(length), "bytes": file.bytes, "sha256": file.sha256}
    found |= {"tokens": int(length.sum())} if engine else {}
    documents = Documents(np.concatenate(references), pa.chunked_array(names, pa.string()), length)
    with files.output(piece.documents) as beside:
        beside.groups.append(len(length))
        if FORMATS[job.format].is_flat:  # where they lie in the file is known when those before them are there
            write_documents(documents, beside)
        else:
            write_lineage(documents, piece.file, np.arange(len(length)), job.identity, found, beside)
    receipt = files.finish(found)
    return Written(receipt, engine.engine, engine.warning) if engine else Written(receipt)


@functools.lru_cache(maxsize=1)
def _engine(folder: Path, proof: encoders.Proof) -> encoders.Chosen:
    """The encoder of a run, chosen once a process."""
    return encoders.choose(folder, proof)


def _documents(piece: Piece, chosen: Selection, counts: Counter[str], *, chat: bool) -> Iterator[_Batch]:
    """The used documents of a piece; the chat form takes those with question and answer."""
    columns = [*_COLUMNS, *(["turns"] if has_turns(piece.parts[0]) else [])]
    for references, rows in selection.read_split(piece.parts, piece.split, columns, chosen):
        batch = _Batch(references, rows)
        if chat:
            batch = _turns(batch, counts)
        counts["characters"] += int(_characters(batch).sum())
        yield batch


def _characters(batch: _Batch) -> np.ndarray:
    return np.asarray(pc.utf8_length(batch.rows["text"]).to_numpy(), dtype=np.int64)


def _turns(batch: _Batch, counts: Counter[str]) -> _Batch:
    """The documents that have a question, as messages; the others are counted."""
    is_conversation = "turns" in batch.rows.schema.names
    split, starts = (templates.turns, "turns") if is_conversation else (templates.turn, "prompt_length")
    found = list(map(split, batch.rows["text"].to_pylist(), batch.rows[starts].to_pylist()))
    has = np.array([each is not None for each in found], dtype=bool)
    counts["without_prompt"] += int((~has).sum())
    counts["characters_without_prompt"] += int(_characters(batch)[~has].sum())
    messages = [
        [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(each)]
        for each in found
        if each
    ]
    rows = batch.rows.filter(pa.array(has)).append_column("messages", pa.array(messages, pa.list_(_MESSAGE)))
    return _Batch(batch.references[has], rows)


def _sink(job: Job, piece: Piece, engine: encoders.Chosen | None, file: IO[bytes]) -> _Sink:
    if job.tokens and engine:
        return (_Mds if job.format == "mds" else _Flat)(file, job.tokens, engine.encode)
    return (_Json if job.format == "jsonl" else _Parquet)(file, piece, chat=job.chat)


class _Flat:
    """Ids and separator of one document after another."""

    def __init__(self, file: IO[bytes], tokens: Tokens, encode: encoders.Encode) -> None:
        self._file, self._tokens, self._encode = file, tokens, encode

    def add(self, batch: _Batch) -> np.ndarray:
        ids, counts = self.encode(batch)
        self._file.write(ids.tobytes())
        return counts

    def encode(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """[tokens] ids with a separator after each document, and [documents] how many each has."""
        flat, counts = self._encode(batch.rows["text"])
        return np.insert(flat.astype(self._tokens.kind), np.cumsum(counts), self._tokens.separator), counts + 1

    def close(self) -> None:
        """Nothing follows."""


class _Mds(_Flat):
    """Each document is a sample, with its id; offsets come first, so samples wait in memory."""

    def __init__(self, file: IO[bytes], tokens: Tokens, encode: encoders.Encode) -> None:
        super().__init__(file, tokens, encode)
        self._names, self._samples = list[str](), list[np.ndarray]()

    def add(self, batch: _Batch) -> np.ndarray:
        ids, counts = self.encode(batch)
        self._names += batch.rows["id"].to_pylist()
        self._samples += np.split(ids, np.cumsum(counts)[:-1])
        return counts

    def close(self) -> None:
        self._file.write(mds_shard(self._tokens.kind, self._names, self._samples))


class _Json:
    """A document a line."""

    def __init__(self, file: IO[bytes], piece: Piece, *, chat: bool) -> None:
        self._file, self._schema = file, text_schema(chat=chat)
        self._same = {"dataset": piece.dataset, "split": piece.split, "licence": piece.licence}

    def rows(self, batch: _Batch) -> pa.RecordBatch:
        """The documents in the columns of the export."""
        count = batch.rows.num_rows
        same = {name: pa.repeat(value, count) for name, value in self._same.items()}
        columns = [same[name] if name in same else batch.rows[name] for name in self._schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def add(self, batch: _Batch) -> np.ndarray:
        for row in self.rows(batch).to_pylist():
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        return _characters(batch)

    def close(self) -> None:
        """Nothing follows."""


class _Parquet(_Json):
    """A row group for each batch."""

    def __init__(self, file: IO[bytes], piece: Piece, *, chat: bool) -> None:
        super().__init__(file, piece, chat=chat)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, batch: _Batch) -> np.ndarray:
        self._writer.write_batch(self.rows(batch))
        return _characters(batch)

    def close(self) -> None:
        self._writer.close()


def text_schema(*, chat: bool) -> pa.Schema:
    """The columns of exported text."""
    content = pa.field("messages", pa.list_(_MESSAGE)) if chat else pa.field("text", pa.string())
    strings = [pa.field(name, pa.string()) for name in ("id", "dataset", "split", "source_file", "licence", "meta")]
    return pa.schema([*strings[:3], content, strings[3], pa.field("source_offset", pa.int64()), *strings[4:]])
