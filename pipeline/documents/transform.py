"""From the records of a piece to one shard of documents and one of dropped records, with the books of both.

In: a piece (`corpus.pipeline.read`). Out: `part-NNNNN.parquet`, `rejected/part-NNNNN.parquet` where something was
dropped, and the counts.
Invariants: a record is kept or dropped with a reason, never both, never neither; the rejected shard is written before
the documents shard, so
a documents shard means both are whole; both carry the fingerprint of their work and the counts.
Cost: one mebibyte of records and one row group of documents at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline import manifest as manifests
from corpus.pipeline.clean.boilerplate import trim
from corpus.pipeline.clean.pii import mask_all
from corpus.pipeline.clean.quality import Document, Limits, as_document, judge_all, swapped
from corpus.pipeline.clean.rules import clean_all, rules
from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.errors import ShapeError
from corpus.pipeline.manifest import Manifest, Quality
from corpus.pipeline.read.parse import SHAPE_REASONS, Parsed, parser
from corpus.pipeline.read.records import read
from corpus.pipeline.read.spans import Block, File, Piece, Reject
from corpus.pipeline.storage.document_shards import (
    COUNTS_KEY,
    DOCUMENT_SCHEMA,
    FINGERPRINT_KEY,
    REJECTED_SCHEMA,
    part_name,
)
from corpus.pipeline.templates import composer, parts_of
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger

_GROUP_CHARACTERS = 4 << 20
_SHAPE_RECORDS = 20
_FEW_RECORDS = 3  # that many without a single good one are enough
_SHAPE_SHARE = 0.95


def make_part(
    piece: Piece, *, raw: Path, folder: Path, manifest: Manifest, min_length: int, identity: str
) -> tuple[int, Counts]:
    """Make one shard and the books of it; runs in a worker.

    Raises:
        ShapeError: nearly all records of a file are not what the manifest describes.

    """
    counts = Counts()
    kept = _Columns(DOCUMENT_SCHEMA)
    dropped = _Columns(REJECTED_SCHEMA)
    name = part_name(piece.number)
    with atomic(folder / name) as out, _writer(out, DOCUMENT_SCHEMA) as writer:
        for span in piece.spans:
            before = counts.dropped.copy(), counts.records, dropped.rows
            maker = _Maker(span.file, manifest, limits_of(manifest, min_length), counts)
            for block in read(raw, span):
                maker.make(block, kept, dropped)
                if kept.characters >= _GROUP_CHARACTERS:
                    kept.flush(writer)
            _check_shape(span.file, manifest, counts, *before, dropped)
        kept.flush(writer)
        if dropped.rows:
            _write_rejected(folder / "rejected" / name, dropped, identity)
        _sign(writer, identity, counts.to_dict())
    return piece.number, counts


def ingested(workspace: Workspace, dataset: str) -> Manifest:
    """The manifest with the switches that a dataset's documents were made with."""
    manifest = manifests.load(dataset)
    ledger = read_ledger(workspace.documents(dataset))
    if ledger is None:
        return manifest
    quality: dict[str, Any] = ledger.config["quality"]
    return replace(
        manifest, quality=Quality(**{**quality, "off": tuple(quality["off"]), "mask": tuple(quality["mask"])})
    )


def limits_of(manifest: Manifest, min_length: int) -> Limits:
    """What a dataset's documents must fulfil."""
    quality = manifest.quality
    return Limits(min_length=min_length, min_han=quality.min_han, adverts=quality.adverts, off=frozenset(quality.off))


class _Columns:
    """Rows of a table, column by column, until they are written."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.columns: list[list[Any]] = [[] for _ in schema]
        self.characters = 0

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    def append(self, *values: Any) -> None:
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)

    def extend(self, *many: Sequence[Any]) -> None:
        for column, values in zip(self.columns, many, strict=True):
            column.extend(values)

    def table(self) -> pa.Table:
        arrays = [pa.array(column, field.type) for column, field in zip(self.columns, self.schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def flush(self, writer: pq.ParquetWriter) -> None:
        if self.rows:
            writer.write_table(self.table())
            self.columns = [[] for _ in self.schema]
            self.characters = 0


class _Maker:
    """Turns blocks of one file's records into documents."""

    def __init__(self, file: File, manifest: Manifest, limits: Limits, counts: Counts) -> None:
        shape = manifest.shapes[file.shape]
        self.file = file
        self.text_only = file.layout == "text"
        self.parse = parser(shape)
        self.compose = composer(shape)
        self.width = len(parts_of(shape))
        self.rules = rules(simplify=manifest.simplify, brackets=manifest.drop_empty_brackets)
        self.limits = limits
        self.counts = counts
        self.share = manifest.validation_share
        self.form = shape.form
        self.trim = manifest.quality.trim and shape.form != "translation"
        self.kinds = manifest.quality.mask

    def make(self, block: Block, kept: _Columns, dropped: _Columns) -> None:
        records, too_large = block
        parsed = self._parsed(records)
        self.counts.records += len(records) + len(too_large)
        self._clean(parsed)
        rejects = [*too_large, *parsed.rejects]
        documents = self._composed(parsed)
        names = [f"{name}@{self.file.tail}:{at}" for name, at in zip(parsed.names, parsed.offsets, strict=True)]
        good: list[int] = []
        for index, verdict in enumerate(judge_all(documents, self.limits)):
            if verdict is None:
                good.append(index)
            else:
                rejects.append(Reject(parsed.offsets[index], *verdict, parsed.raws[index], names[index]))
        self._keep(good, names, documents, parsed, kept)
        for reject in sorted(rejects, key=lambda reject: reject.offset):
            self._drop(reject, dropped)

    def _keep(
        self, good: Sequence[int], names: Sequence[str], documents: Sequence[Document], parsed: Parsed, kept: _Columns
    ) -> None:
        """Add the good ones of a block's documents."""
        names = [names[index] for index in good]
        texts = [documents[index].text for index in good]
        lengths = list(map(len, texts))
        splits = [self.file.split] * len(good) if self.file.split != "hash" else list(map(self._split, names))
        kept.extend(
            names,
            texts,
            [documents[index].prompt_length for index in good],
            splits,
            [self.file.path] * len(good),
            [parsed.offsets[index] for index in good],
            [parsed.metas[index] for index in good],
        )
        kept.characters += sum(lengths)
        for split, length in zip(splits, lengths, strict=True):
            self.counts.characters[split] += length
        self.counts.documents.update(splits)

    def one(self, raw: bytes) -> tuple[str, Document]:
        """A record's fields put together as they came, and its document."""
        parsed = self._parsed([(0, raw)])
        if not parsed.offsets:
            return "", Document("", 0, self.form, ())
        before = self.compose(parsed.texts)[0]
        self._clean(parsed)
        return before, self._composed(parsed)[0]

    def _composed(self, parsed: Parsed) -> list[Document]:
        """The records' documents, from their cleaned parts."""
        records = list(zip(*[iter(parsed.texts)] * self.width, strict=True))
        composed = map(self.compose, records)
        return [
            as_document((text, prompt_length, self.form, parts))
            for (text, prompt_length), parts in zip(composed, records, strict=True)
        ]

    def _clean(self, parsed: Parsed) -> None:
        cleaned = clean_all(parsed.texts, self.rules)
        parsed.texts = cleaned.texts
        changed = dict(cleaned.changed)
        if self.trim:
            changed["trim"] = self._trim(parsed.texts)
        if self.form == "translation":
            changed["swap_sides"] = _swap(parsed.texts)
        for rule, positions in changed.items():
            if positions:
                self.counts.cleaned[rule] += len({position // self.width for position in positions})
        if self.kinds:
            masked = mask_all(parsed.texts, self.kinds)
            parsed.texts = masked.texts
            self.counts.masked.update(masked.counts)

    def _trim(self, texts: list[str]) -> set[int]:
        """Cut the lines that frame the last part of each record; what is left is as clean as it was.

        Of all that the rules look at only code is marked across the end of a line, so only lines that take such a mark
        with them change what others are.
        """
        changed: list[int] = []
        with_code: list[int] = []
        for position in range(self.width - 1, len(texts), self.width):
            text = texts[position]
            trimmed = trim(text)
            if trimmed != text:
                texts[position] = trimmed.strip()
                changed.append(position)
                if text.count("`") != trimmed.count("`"):
                    with_code.append(position)
        for position, text in zip(with_code, clean_all([texts[at] for at in with_code], self.rules).texts, strict=True):
            texts[position] = text
        return set(changed)

    def _parsed(self, records: list[tuple[int, bytes]]) -> Parsed:
        return self._plain(records) if self.text_only else self.parse(records)

    def _plain(self, records: Sequence[tuple[int, bytes]]) -> Parsed:
        """Records of the plain-text layout: all text, no fields."""
        parsed = Parsed()
        for offset, raw in records:
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                parsed.rejects.append(Reject(offset, "not_utf8", f"byte {error.start}: {error.reason}", raw))
                continue
            parsed.offsets.append(offset)
            parsed.names.append("")
            parsed.texts += [*[""] * (self.width - 1), text]
            parsed.metas.append("{}")
            parsed.raws.append(raw)
        return parsed

    def _drop(self, reject: Reject, dropped: _Columns) -> None:
        self.counts.dropped[reject.reason] += 1
        dropped.append(self.file.path, reject.offset, reject.id, reject.reason, reject.detail, reject.raw)

    def _split(self, name: str) -> str:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return "validation" if int.from_bytes(digest, "big") < self.share * 2**64 else "train"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a record gives, step by step."""

    before: str
    """Its fields put together as they came."""
    text: str
    """The document; empty when the record does not have the shape."""
    prompt_length: int
    rules: tuple[str, ...]
    """The cleaning rules and kinds of personal data that changed it."""


def rebuild(manifest: Manifest, file: File, raw: bytes) -> Rebuilt:
    """One record made into a document again."""
    counts = Counts()
    maker = _Maker(file, manifest, limits_of(manifest, 0), counts)
    before, document = maker.one(raw)
    rules = tuple(counts.cleaned) + tuple(f"mask {kind}" for kind in counts.masked)
    return Rebuilt(before, document.text, document.prompt_length, rules)


def _swap(texts: list[str]) -> set[int]:
    """Put the sides of translations that stand in each other's place right."""
    changed = swapped(texts)
    for source in changed:
        texts[source], texts[source + 1] = texts[source + 1], texts[source]
    return set(changed)


def _check_shape(
    file: File,
    manifest: Manifest,
    counts: Counts,
    dropped_before: Counter[str],
    records_before: int,
    first: int,
    dropped: _Columns,
) -> None:
    """Stop when a file is plainly not what the manifest describes."""
    records = counts.records - records_before
    odd = {reason: counts.dropped[reason] - dropped_before[reason] for reason in SHAPE_REASONS}
    wrong = sum(odd.values())
    if wrong < records * _SHAPE_SHARE or (records < _SHAPE_RECORDS and (wrong < records or records < _FEW_RECORDS)):
        return
    reason = max(odd, key=lambda name: odd[name])
    position = dropped.columns[3].index(reason, first)
    fields = ", ".join(f"{name} ({kind.__name__})" for name, kind in manifest.shapes[file.shape].fields.items())
    begin = bytes(dropped.columns[5][position][:80])
    raise ShapeError(
        f"{file.path}: {wrong:,} of the first {records:,} records are not records of {manifest.name}, "
        f"most for {reason}: {dropped.columns[4][position]}; the first such begins with "
        f"{begin.decode('utf-8', 'backslashreplace')!r}",
        hint=f"Expected one JSON object a line with the fields {fields}.{_advice(begin)}",
    )


def _advice(begin: bytes) -> str:
    if begin.startswith(b"["):
        return " It looks like one JSON array: `jq -c '.[]'` makes lines of it."
    if begin[:2] in {b"\xff\xfe", b"\xfe\xff"} or begin[1:2] == b"\0":
        return " It looks like UTF-16: `iconv -f UTF-16 -t UTF-8` converts it."
    return ""


def _writer(out: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=["split", "source_file", "reason"],
        write_statistics=["source_offset"],
    )


def _sign(writer: pq.ParquetWriter, identity: str, counts: Mapping[str, Any]) -> None:
    writer.add_key_value_metadata(
        {FINGERPRINT_KEY: identity.encode(), COUNTS_KEY: json.dumps(counts, sort_keys=True).encode()}
    )


def _write_rejected(path: Path, dropped: _Columns, identity: str) -> None:
    with atomic(path) as out, _writer(out, REJECTED_SCHEMA) as writer:
        dropped.flush(writer)
        _sign(writer, identity, {"rejected": True})
