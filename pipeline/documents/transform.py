"""From the records of a piece to one shard of documents and one of rejected records, with their counts.

In: a piece (`corpus.pipeline.read`). Out: `part-NNNNN.parquet`, `rejected/part-NNNNN.parquet` if a record was dropped,
and the receipt of the piece, which has the counts.
Invariants: a record is kept or dropped with a reason, never both; the rejected shard is written before the documents
shard, so a documents shard means both are complete; both carry the fingerprint of their work and the counts.
Cost: one mebibyte of records and one row group of documents at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.clean.parts import PartSteps, clean_parts
from corpus.pipeline.clean.quality import Document, Limits, as_document, judge_all
from corpus.pipeline.clean.rules import rules
from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.errors import ShapeError
from corpus.pipeline.manifest import Manifest, Quality
from corpus.pipeline.manifest.schema import NESTED
from corpus.pipeline.read.parse import SHAPE_REASONS, parser
from corpus.pipeline.read.records import read
from corpus.pipeline.read.spans import Block, Parsed, Piece, RecordFile, Reject
from corpus.pipeline.signatures.files import SignatureWriter, Signing
from corpus.pipeline.storage import document_shards
from corpus.pipeline.storage.document_shards import CHAT_SCHEMA, DOCUMENT_SCHEMA, REJECTED_SCHEMA, part_name
from corpus.pipeline.templates import composer, parts_of, ranking, turn_starts, whole_turns
from corpus.pipeline.text.encodings import encoding_of
from corpus.pipeline.workspace.files import HashedFile
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt

_GROUP_CHARACTERS = 4 << 20
_SHAPE_RECORDS = 20
_FEW_RECORDS = 3  # enough if all of them are wrong
_SHAPE_SHARE = 0.95
_ARRAY = " It looks like one JSON array: `jq -c '.[]'` makes lines of it."


def make_part(
    piece: Piece, *, raw: Path, folder: Path, manifest: Manifest, min_length: int, identity: str,
    signing: Signing | None = None,
) -> Receipt:  # fmt: skip
    """Make one shard, its signatures if they are wanted, and its receipt; runs in a worker.

    Raises:
        ShapeError: nearly all records of a file are not what the manifest describes.

    """
    counts, limits = Counts(), limits_of(manifest, min_length)
    kept, dropped = _Columns(_schema(manifest)), _Columns(REJECTED_SCHEMA)
    signatures = SignatureWriter(signing.threshold) if signing else None
    name, files = part_name(piece.number), PieceWriter(folder, identity, piece_name(piece.number))
    with files.output(name) as out, _writer(out, kept.schema) as writer:
        for span in piece.spans:
            maker, first = _DocumentMaker(span.file, manifest, limits), dropped.rows
            for block in read(raw, span):
                maker.make(block, kept, dropped)
                if kept.characters >= _GROUP_CHARACTERS:
                    kept.flush(writer, out, signatures)
            _check_shape(span.file, manifest, maker.counts, dropped, first)
            counts.add(maker.counts)
        kept.flush(writer, out, signatures)
        if dropped.rows:
            with files.output(f"rejected/{name}") as beside, _writer(beside, REJECTED_SCHEMA) as rejected:
                dropped.flush(rejected, beside)
                sign(rejected, identity, {"rejected": True})
        else:
            (folder / "rejected" / name).unlink(missing_ok=True)
        sign(writer, identity, counts.to_dict())
    if signing and signatures:
        signing.write(signatures, name, out)
        files.beside += signing.places(name)
    return files.finish(counts.to_dict())


def piece_name(number: int) -> str:
    """The name of a piece in its receipt."""
    return f"{number:05d}"


def ingested(workspace: Workspace, dataset: str) -> Manifest:
    """The manifest with the quality settings that a dataset's documents were made with."""
    manifest = workspace.manifest(dataset)
    ledger = read_ledger(workspace.documents(dataset))
    if ledger is None:
        return manifest
    quality: dict[str, Any] = ledger.config["quality"]
    lists = {name: tuple(quality[name]) for name in ("off", "mask")}
    return replace(manifest, quality=Quality(**{**quality, **lists}))


def limits_of(manifest: Manifest, min_length: int) -> Limits:
    """The limits of a dataset's filter rules."""
    quality = manifest.quality
    return Limits(
        min_length=min_length,
        min_han=quality.min_han,
        adverts=quality.adverts,
        latin_span=quality.latin_span,
        off=frozenset(quality.off),
    )


def _schema(manifest: Manifest) -> pa.Schema:
    """The columns of a dataset's documents."""
    return CHAT_SCHEMA if any(shape.form in NESTED for shape in manifest.shapes.values()) else DOCUMENT_SCHEMA


class _Columns:
    """Rows of a table that are not yet written, column by column."""

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

    def flush(self, writer: pq.ParquetWriter, out: HashedFile, signatures: SignatureWriter | None = None) -> None:
        """Write the rows as a row group, and sign the documents that they are."""
        if self.rows:
            if signatures:
                signatures.add(*(self.columns[self.schema.get_field_index(name)] for name in ("text", "split")))
            writer.write_table(pa.Table.from_arrays(self.columns, schema=self.schema))
            out.groups.append(self.rows)
            self.columns = [[] for _ in self.schema]
            self.characters = 0


class _DocumentMaker:
    """Turns blocks of one file's records into documents."""

    def __init__(self, file: RecordFile, manifest: Manifest, limits: Limits) -> None:
        shape = manifest.shapes[file.shape]
        self.file = file
        self.text_only = file.layout == "text"
        self.parse = parser(shape)
        self.compose = composer(shape)
        self.width = len(parts_of(shape)) or 1
        self.form = shape.form
        is_translation = shape.form == "translation"
        self.steps = PartSteps(
            table=rules(simplify=manifest.simplify, brackets=manifest.drop_empty_brackets),
            trim=manifest.quality.trim and shape.form in {"article", "question"},
            swap=is_translation,
            mask=manifest.quality.mask,
        )
        self.limits = limits
        self.share = manifest.validation_share
        self.counts = Counts()

    def make(self, block: Block, kept: _Columns, dropped: _Columns) -> None:
        records, too_large = block
        self.counts.records += len(records) + len(too_large)
        parsed = self.parsed(records)
        rejects = [*too_large, *parsed.rejects]
        documents = self.documents(parsed)
        names = [f"{name}@{self.file.tail}:{at}" for name, at in zip(parsed.names, parsed.offsets, strict=True)]
        good: list[int] = []
        for index, verdict in enumerate(judge_all(documents, self.limits)):
            if verdict is None:
                good.append(index)
            else:
                rejects.append(Reject(parsed.offsets[index], *verdict, parsed.raws[index], names[index]))
        self._keep(good, names, documents, parsed, kept)
        for reject in sorted(rejects, key=lambda reject: reject.offset):
            self.counts.dropped[reject.reason] += 1
            dropped.append(self.file.path, reject.offset, reject.id, reject.reason, reject.detail, reject.raw)

    def _keep(
        self, good: Sequence[int], names: Sequence[str], documents: Sequence[Document], parsed: Parsed, kept: _Columns
    ) -> None:
        """Add the good documents of a block."""
        names = [names[index] for index in good]
        texts = [documents[index].text for index in good]
        lengths = list(map(len, texts))
        splits = [self.file.split] * len(good) if self.file.split != "hash" else list(map(self._split, names))
        if parsed.splits:
            splits = [parsed.splits[index] or split for index, split in zip(good, splits, strict=True)]
        turns = [[turn_starts(documents[index].parts) for index in good]] if self.form in NESTED else []
        kept.extend(
            names,
            texts,
            [documents[index].prompt_length for index in good],
            splits,
            [self.file.path] * len(good),
            [parsed.offsets[index] for index in good],
            [parsed.metas[index] for index in good],
            *turns,
        )
        kept.characters += sum(lengths)
        for split, length in zip(splits, lengths, strict=True):
            self.counts.characters[split] += length
        self.counts.documents.update(splits)

    def parsed(self, records: list[tuple[int, bytes]]) -> Parsed:
        return self._plain(records) if self.text_only else self.parse(records)

    def documents(self, parsed: Parsed) -> list[Document]:
        """Clean the parts of the records, and compose them."""
        owners = [number for number, size in enumerate(parsed.sizes) for _ in range(size)]
        cleaned = clean_parts(parsed.texts, self.width, self.steps, owners)
        self.counts.cleaned.update(cleaned.cleaned)
        self.counts.masked.update(cleaned.masked)
        records: list[Sequence[str]]
        if self.form in NESTED:
            texts = iter(cleaned.texts)
            records = [list(islice(texts, size)) for size in parsed.sizes]
            records = list(map(whole_turns, records)) if self.form == "chat" else records
        else:
            records = list(zip(*[iter(cleaned.texts)] * self.width, strict=True))
        composed = map(ranking, records, parsed.prompts) if self.form == "ranking" else map(self.compose, records)
        return [
            as_document((text, prompt_length, self.form, parts))
            for (text, prompt_length), parts in zip(composed, records, strict=True)
        ]

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
            parsed.texts += [
                *[""] * (self.width - 1),
                text,
            ]  # a text in the form `chat` has no answer, so it is dropped
            parsed.sizes += [1] if self.form in NESTED else []
            parsed.prompts += [0] if self.form == "ranking" else []
            parsed.metas.append("{}")
            parsed.raws.append(raw)
        return parsed

    def _split(self, name: str) -> str:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return "validation" if int.from_bytes(digest, "big") < self.share * 2**64 else "train"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A record before and after cleaning."""

    before: str
    """Its fields composed without cleaning."""
    text: str
    """The document; empty when the record is not of the manifest's shape."""
    prompt_length: int
    rules: tuple[str, ...]
    """The cleaning rules and kinds of personal data that changed it."""


def rebuild(manifest: Manifest, file: RecordFile, raw: bytes) -> Rebuilt:
    """Make one record into a document again."""
    maker = _DocumentMaker(file, manifest, limits_of(manifest, 0))
    parsed = maker.parsed([(0, raw)])
    if not parsed.offsets:
        return Rebuilt("", "", 0, ())
    before = maker.compose(parsed.texts)[0]
    document = maker.documents(parsed)[0]
    rules = tuple(maker.counts.cleaned) + tuple(f"mask {kind}" for kind in maker.counts.masked)
    return Rebuilt(before, document.text, document.prompt_length, rules)


def _check_shape(file: RecordFile, manifest: Manifest, counts: Counts, dropped: _Columns, first: int) -> None:
    """Raise ShapeError when nearly all records of a file, dropped from row `first` on, are not of its shape."""
    records, odd = counts.records, {reason: counts.dropped[reason] for reason in SHAPE_REASONS}
    wrong = sum(odd.values())
    if wrong < records * _SHAPE_SHARE or (records < _SHAPE_RECORDS and (wrong < records or records < _FEW_RECORDS)):
        return
    reason = max(odd, key=lambda name: odd[name])
    position = dropped.columns[3].index(reason, first)
    fields = ", ".join(f"{name} ({kind.__name__})" for name, kind in manifest.shapes[file.shape].fields.items())
    raw = bytes(dropped.columns[5][position])
    if encoding := encoding_of(raw):
        raise ShapeError(
            f"{file.path} is not in UTF-8: {wrong:,} of the first {records:,} records cannot be read, and look like "
            f"{encoding}; the first such begins with {raw[:80].decode(encoding, 'replace')!r}",
            hint=f"Unpack it, convert it with `iconv -f {encoding} -t UTF-8`, and give its folder with --source.",
        )
    raise ShapeError(
        f"{file.path}: {wrong:,} of the first {records:,} records are not records of {manifest.name}, "
        f"most for {reason}: {dropped.columns[4][position]}; the first such begins with "
        f"{raw[:80].decode('utf-8', 'backslashreplace')!r}",
        hint=f"Expected one JSON object a line with the fields {fields}.{_ARRAY if raw.startswith(b'[') else ''}",
    )


def _writer(out: Any, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=["split", "source_file", "reason"],
        write_statistics=["source_offset"],
    )


def sign(writer: pq.ParquetWriter, identity: str, counts: Mapping[str, Any]) -> None:
    """Add the fingerprint of the work and the counts to a shard's metadata."""
    values = json.dumps(counts, sort_keys=True).encode()
    writer.add_key_value_metadata(
        {document_shards.FINGERPRINT_KEY: identity.encode(), document_shards.COUNTS_KEY: values}
    )
