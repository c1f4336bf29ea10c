"""Other formats as JSON Lines: a JSON array, CSV, TSV, and files that are one document each.

In: a stream of the file's bytes. Out: a stream of JSON Lines, so that cutting into pieces, records and offsets are as
in a JSON Lines file: the offset of a record counts the bytes of the lines, not those of the file.
Invariants: each element, row or file is one line, in order; one that cannot be read, an element with a repeated key or
NaN among them, is a line that the parser rejects with its reason. Records do not depend on the size of a read.
Cost: a file is read from its beginning, so a large one is converted by one process, at 50 to 150 MB/s.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import orjson

from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.spans import ByteStream, ReadSizes, RecordFile

_BLANKS = re.compile(r"[ \t\r\n]*")
_HEADING = re.compile(r"\s*#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*(?:\n|$)")
_FRONT = re.compile(r"---[ \t]*\n(.{0,4000}?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_FRONT_TITLE = re.compile(r"""^title:[ \t]*["']?(.+?)["']?[ \t]*$""", re.MULTILINE)
_BOM = b"\xef\xbb\xbf"
_HINT = "Give `format` in the manifest: lines, array, csv, tsv, text, file or parquet."
_SEMICOLONS = "Save it with commas, or turn the semicolons into tabs and name it .tsv."
CONVERTED = ("array", "csv", "tsv", "file")
"""Layouts that are read as JSON Lines."""


class Converted:
    """A stream of the JSON lines that an iterator yields."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._held: list[bytes] = []
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        while size < 0 or self._size < size:
            line = next(self._lines, None)
            if line is None:
                break
            self._held += (line, b"\n")
            self._size += len(line) + 1
        data = b"".join(self._held)
        end = len(data) if size < 0 else size
        self._held, self._size = [data[end:]], max(0, len(data) - end)
        return data[:end]


def converted(stream: ByteStream, file: RecordFile, sizes: ReadSizes) -> ByteStream:
    """The stream, as JSON Lines where its layout is another.

    Raises:
        SourceError: a table has no header, or an array ends too early.

    """
    if file.layout == "array":
        lines = _array(stream, file, sizes)
    elif file.layout in {"csv", "tsv"}:
        lines = _rows(stream, file, sizes)
    elif file.layout == "file":
        lines = _whole(stream, file, sizes)
    else:
        return stream
    return Converted(lines)


def _array(stream: ByteStream, file: RecordFile, sizes: ReadSizes) -> Iterator[bytes]:
    """The elements of a JSON array."""
    text = io.TextIOWrapper(
        io.BufferedReader(_Readable(stream), sizes.read), encoding="utf-8-sig", errors="surrogateescape"
    )
    decoder, buffer, at, size = _Decoder(), text.read(sizes.read), 0, sizes.read
    at = _skip(buffer, 0)
    if buffer[at : at + 1] != "[":
        raise SourceError(f"{file.path} is not a JSON array", hint=_HINT)
    at += 1
    while True:
        at = _skip(buffer, at)
        if buffer[at : at + 1] == "]":
            if buffer[at + 1 :].strip() or text.read(sizes.read).strip():
                raise SourceError(f"{file.path}: something follows the end of the JSON array", hint=_HINT)
            return
        try:
            value, end = decoder.raw_decode(buffer, at)
            line = buffer[at:end].replace("\n", " ").encode("utf-8", "surrogateescape") if decoder.odd else _line(value)
            end = _skip(buffer, end)
            if end == len(buffer):
                raise ValueError("the element may not be whole")
        except (ValueError, RecursionError) as error:
            more = text.read(size)
            if not more or len(buffer) - at > sizes.record:
                raise SourceError(f"{file.path}: the JSON array cannot be read: {error}", hint=_HINT) from error
            buffer, at, size = buffer[at:] + more, 0, min(2 * size, sizes.record)
            continue
        yield line
        size = sizes.read
        if buffer[end] not in ",]":
            raise SourceError(f"{file.path}: the JSON array has {buffer[end]!r} between two elements", hint=_HINT)
        at = end + (buffer[end] == ",")


class _Decoder(json.JSONDecoder):
    """A decoder that tells of what the parser rejects and a value no longer shows: repeated keys, NaN, Infinity."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object, parse_constant=self._constant)
        self.odd = False
        """Whether the last value held such."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """The value at a place of a text, and where it ends."""
        self.odd = False
        return super().raw_decode(s, idx)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.odd = self.odd or len(found) < len(pairs)
        return found

    def _constant(self, _: str) -> None:
        self.odd = True


def _skip(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _line(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a whole number of more than 64 bits, or a surrogate
        pass
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # not a byte that is no UTF-8, but an escape: the parser rejects it
        return json.dumps(value).encode()


def _rows(stream: ByteStream, file: RecordFile, sizes: ReadSizes) -> Iterator[bytes]:
    """The rows of a table, as objects with the names of its header."""
    text = io.TextIOWrapper(
        io.BufferedReader(_Readable(stream), sizes.read), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    csv.field_size_limit(sizes.record)
    is_tsv = file.layout == "tsv"  # which knows no quotes
    rows = csv.reader(
        text, delimiter="\t" if is_tsv else ",", quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL, strict=True
    )
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise SourceError(f"{file.path}: its header cannot be read: {error}", hint=_HINT) from error
    if header and len(header) == 1 and ";" in header[0]:
        raise SourceError(f"{file.path}: its columns are separated by semicolons, not commas", hint=_SEMICOLONS)
    if not header or len(set(header)) < len(header):
        raise SourceError(f"{file.path}: its first line is not a header of different names", hint=_HINT)
    while True:
        first = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            lines = f"line {first}" if rows.line_num <= first else f"lines {first} to {rows.line_num}"
            if "end of data" in str(error) or "field limit" in str(error):
                raise SourceError(
                    f"{file.path}, {lines}: a quote is opened and not closed ({error})",
                    hint="Close it, or double a quote that stands for itself.",
                ) from error
            yield _line(f"{lines}: {error}")
            continue
        if row is None:
            return
        if row:
            yield _line(dict(zip(header, row, strict=False)) if len(row) == len(header) else row)


def _whole(stream: ByteStream, file: RecordFile, sizes: ReadSizes) -> Iterator[bytes]:
    """A file as one record: its text, a heading at its beginning or the `title` of its front matter, and its path."""
    data = stream.read(sizes.record + 1).removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield data.replace(b"\n", b" ")
        return
    front = _FRONT.match(text)
    text = text[front.end() :] if front else text
    heading = _HEADING.match(text)
    title, body = (heading[1], text[heading.end() :]) if heading else ("", text)
    if front and not title:
        named = _FRONT_TITLE.search(front[1])
        title = named[1] if named else ""
    record = {"path": file.path, "name": PurePosixPath(file.path).stem, "title": title, "text": body.strip("\n")}
    yield orjson.dumps(record | ({"front_matter": front[1]} if front else {}))


class _Readable(io.RawIOBase):
    """A stream with `read` alone, as `io` reads one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
