"""Read evaluation files: the texts of numbered items.

In: JSON Lines, JSON, CSV, TSV, Parquet or plain text, each also compressed as `.gz`, `.xz` or `.zst`.
Out: every string of every item, at any depth, with the name of its field.
Invariants: a file is read whole, or refused with its name, the line and what was expected. A file without any text to
search for is refused. An item is named by its line where lines are items, else by its number, both from 1. A compressed
file is decompressed in memory, up to a limit.
Cost: the decompressed file and its items in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.decontaminate.ngram_index import Owner, can_be_found
from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.archives import SUFFIXES, decompressor
from corpus.pipeline.text.encodings import encoding_of

MAX_BYTES = 256 << 20
"""Largest evaluation file, decompressed."""
PLAIN = "text"
"""Name of the field where items are plain strings."""

Items = Iterator[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The items of an evaluation file."""

    file: str
    items: int
    fields: tuple[str, ...]
    """Names of all fields with text, in order of appearance."""
    texts: Sequence[tuple[Owner, str]]
    """The texts of the requested fields."""


def read(path: Path, fields: Sequence[str] = (), *, or_all: bool = False) -> Evaluation:
    """The items of an evaluation file.

    Args:
        path: the file; its ending says its format.
        fields: dotted names of the requested fields, such as `question` or `paragraphs.context`; each includes the
            fields below it. All when empty.
        or_all: whether a file without any requested field gives all its fields instead of a SourceError.

    Raises:
        SourceError: the file is missing, damaged, not what its ending says, or has no text to search for.

    """
    packed = next((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), "")
    name = path.name.lower().removesuffix(packed)
    reader = next((reader for ending, reader in _READERS.items() if name.endswith(ending)), None)
    if reader is None:
        raise SourceError(
            f"{path}: the format cannot be recognized by the name",
            hint=f"It must end with {', '.join(_READERS)}, and may be compressed as {', '.join(SUFFIXES)}.",
        )
    items = 0
    found: dict[str, None] = {}
    texts: list[tuple[Owner, str]] = []
    for number, item in reader(path, _bytes(path, packed)):
        items += 1
        for field, text in strings(item):
            found[field] = None
            if not fields or is_among(field, fields):
                texts.append((Owner(path.name, number, field), text))
    if or_all and found and not texts:
        return read(path)
    why = ""
    if not items:
        why = "it has no items"
    elif not found:
        why = "its items have no text"
    elif not texts:
        why = f"no item has a requested field; they have {', '.join(found)}"
    elif not any(can_be_found(text) for _, text in texts):
        why = "all texts of its items are shorter than 8 Chinese characters or 32 letters"
    if why:
        raise SourceError(f"{path} has no text to search for: {why}")
    return Evaluation(path.name, items, tuple(found), texts)


def read_all(folder: Path, fields: Sequence[str] = ()) -> list[Evaluation]:
    """The evaluation files of a folder, by name; one without any of the fields gives all of its own.

    Raises:
        SourceError: as `read`, or a field is in no file.

    """
    found = [read(path, fields, or_all=True) for path in list_files(folder)]
    names = sorted({name for evaluation in found for name in evaluation.fields})
    for wanted in fields if found else ():
        if not any(is_among(name, [wanted]) for name in names):
            raise SourceError(f"no evaluation file has the field {wanted}; they have {', '.join(names)}")
    return found


def is_among(field: str, wanted: Iterable[str]) -> bool:
    """Whether a field is one of those wanted, or lies below one."""
    return any(field == name or field.startswith(f"{name}.") for name in wanted)


def list_files(folder: Path) -> list[Path]:
    """The evaluation files of a folder, by name."""
    return sorted(path for path in folder.glob("[!.]*") if path.is_file())


def strings(item: Any) -> Iterator[tuple[str, str]]:
    """All strings in a value with their dotted names; a list adds no name.

    >>> list(strings({"问": "甲", "答": [{"文": "乙"}, {"文": "丙"}]}))
    [('问', '甲'), ('答.文', '乙'), ('答.文', '丙')]
    """
    rest: list[tuple[str, Any]] = [("", item)]
    while rest:
        name, value = rest.pop()
        if isinstance(value, str):
            yield name or PLAIN, value
        elif isinstance(value, dict):
            rest += [(f"{name}.{key}" if name else str(key), inner) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            rest += [(name, inner) for inner in reversed(value)]


def _bytes(path: Path, packed: str) -> bytes:
    try:
        with path.open("rb") as file, decompressor(file, packed) if packed else file as stream:
            data = bytes(stream.read(MAX_BYTES + 1))
    except (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError) as error:
        raise SourceError(f"{path} cannot be decompressed: {error or 'it ends too early'}") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_size(path, len(data))
    return data


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MiB decompressed, too large for an evaluation set")


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, known = data.count(b"\n", 0, error.start) + 1, encoding_of(data)
        hint = (
            f"Convert it with `iconv -f {known} -t UTF-8`." if known else "Convert it to UTF-8, for example with iconv."
        )
        raise SourceError(f"{path}, line {line}: expected UTF-8, found {error.reason}", hint=hint) from error


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(path, data).split("\n"), 1):
        if line.strip():
            yield number, line


def _json(path: Path, data: bytes) -> Items:
    """A list, an object with one list of objects, or one value a line."""
    text = _text(path, data)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.lstrip().startswith("["):
            raise SourceError(f"{path}, line {error.lineno}: expected a JSON list, but {error.msg}") from error
        for number, line in _lines(path, data):
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as wrong:
                raise SourceError(f"{path}, line {number}: expected a JSON value, but {wrong.msg}") from wrong
        return
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise SourceError(f"{path}: expected a list of items or an object, found {type(value).__name__}")
    yield from enumerate(value, 1)


def _table(path: Path, data: bytes, **dialect: Any) -> Items:
    """Rows below a header."""
    rows = csv.reader(io.StringIO(_text(path, data), newline=""), strict=True, **dialect)
    before = csv.field_size_limit(MAX_BYTES)
    try:
        header = next(rows, [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                expected = f"expected at most {len(header)} cells as in the header, found {len(row)}"
                raise SourceError(f"{path}, line {rows.line_num}: {expected}")
            yield number, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise SourceError(f"{path}, line {rows.line_num}: expected a row of cells, but {error}") from error
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, data: bytes) -> Items:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            _check_size(path, sum(group.total_byte_size for group in groups))
            yield from enumerate(file.read().to_pylist(), 1)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: expected Parquet, but {error}") from error


_READERS: dict[str, Callable[[Path, bytes], Items]] = {
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": _table,
    ".tsv": partial(_table, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".parquet": _parquet,
    ".txt": _lines,
}
