"""Read labelled and evaluation files whole: numbered items of JSON Lines, JSON, CSV, TSV, Parquet or plain text.

In: a file, a folder of files, or a zip; each file plain or compressed as `.gz`, `.xz` or `.zst`.
Out: the items of a file, each with its line where lines are items, else its number, both from 1.
Invariants: a file is read whole, or refused with its name, the line and what was expected. A compressed file is
decompressed in memory, up to a limit; nothing is unpacked to disk.
Cost: the decompressed file and its items in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.archives import SUFFIXES, UNREADABLE, decompressor
from corpus.pipeline.text.encodings import encoding_of

MAX_BYTES = 256 << 20
"""Largest file, decompressed."""

PLAIN = "text"
"""Name of the field where items are plain strings."""

Items = Iterator[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class ItemFile:
    """A file of items, on disk or in a zip."""

    path: Path
    """The file, or the zip."""
    member: str = ""
    """Path inside the zip."""
    name: str = ""
    """Path below the folder or inside the zip; of a single file its name."""

    def __str__(self) -> str:
        """The name in messages."""
        return f"{self.path}: {self.member}" if self.member else str(self.path)


def list_files(path: Path) -> list[ItemFile]:
    """The files at a path: those below a folder or in a zip, by name, or the file itself.

    Raises:
        SourceError: there is no such file, or the zip is damaged.

    """
    if path.is_dir():
        inside = sorted(file for file in path.rglob("[!.]*") if file.is_file())
        return [ItemFile(file, name=file.relative_to(path).as_posix()) for file in inside]
    if path.name.lower().endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
        except FileNotFoundError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        except UNREADABLE as error:
            raise SourceError(f"{path} cannot be unpacked: {error or 'it ends too early'}") from error
        return [ItemFile(path, member=name, name=name) for name in names if not name.startswith("__MACOSX/")]
    return [ItemFile(path, name=path.name)]


def is_readable(name: str) -> bool:
    """Whether a file's name says a format that `items_of` reads."""
    return _format(name)[1] is not None


def items_of(file: ItemFile) -> Items:
    """The items of a file, numbered.

    Raises:
        SourceError: the file is missing, damaged, too large or not what its ending says.

    """
    packed, reader = _format(file.name)
    if reader is None:
        raise SourceError(
            f"{file}: the format cannot be recognized by the name",
            hint=f"It must end with {', '.join(_READERS)}, and may be compressed as {', '.join(SUFFIXES)}.",
        )
    yield from reader(str(file), _bytes(file, packed))


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


def is_among(field: str, wanted: Iterable[str]) -> bool:
    """Whether a field is one of those wanted, or lies below one."""
    return any(field == name or field.startswith(f"{name}.") for name in wanted)


def _format(name: str) -> tuple[str, Callable[[str, bytes], Items] | None]:
    """The compression and the reader that a name says."""
    packed = next((ending for ending in SUFFIXES if name.lower().endswith(ending)), "")
    plain = name.lower().removesuffix(packed)
    return packed, next((reader for ending, reader in _READERS.items() if plain.endswith(ending)), None)


def _bytes(file: ItemFile, packed: str) -> bytes:
    try:
        with file.path.open("rb") as outer:
            if file.member:
                with zipfile.ZipFile(outer) as archive, archive.open(file.member) as inner:
                    data = inner.read(MAX_BYTES + 1)
                if packed:
                    with decompressor(io.BytesIO(data), packed) as stream:
                        data = bytes(stream.read(MAX_BYTES + 1))
            else:
                with decompressor(outer, packed) if packed else outer as stream:
                    data = bytes(stream.read(MAX_BYTES + 1))
    except (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise SourceError(f"{file} cannot be decompressed: {error or 'it ends too early'}") from error
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror or error}") from error
    _check_size(str(file), len(data))
    return data


def _check_size(where: str, size: int) -> None:
    if size > MAX_BYTES:
        raise SourceError(f"{where} is larger than {MAX_BYTES >> 20} MiB decompressed, too large to be read whole")


def _text(where: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, known = data.count(b"\n", 0, error.start) + 1, encoding_of(data)
        hint = (
            f"Convert it with `iconv -f {known} -t UTF-8`." if known else "Convert it to UTF-8, for example with iconv."
        )
        raise SourceError(f"{where}:{line}: expected UTF-8, found {error.reason}", hint=hint) from error


def _lines(where: str, data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(where, data).split("\n"), 1):
        if line.strip():
            yield number, line


def _json(where: str, data: bytes, *, lines: bool = False) -> Items:
    """A list, or one value a line; without `lines` also an object with one list of objects."""
    text = _text(where, data)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.lstrip().startswith("["):
            raise SourceError(f"{where}:{error.lineno}: expected a JSON list, but {error.msg}") from error
        for number, line in _lines(where, data):
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as wrong:
                raise SourceError(f"{where}:{number}: expected a JSON value, but {wrong.msg}") from wrong
        return
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        value = lists[0] if len(lists) == 1 and not lines else [value]
    if not isinstance(value, list):
        raise SourceError(f"{where}: expected a list of items or an object, found {type(value).__name__}")
    yield from enumerate(value, 1)


def _table(where: str, data: bytes, **dialect: Any) -> Items:
    """Rows below a header, by number; blank lines are counted and skipped."""
    rows = csv.reader(io.StringIO(_text(where, data), newline=""), strict=True, **dialect)
    before = csv.field_size_limit(MAX_BYTES)
    try:
        header = next(rows, [])
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                expected = f"expected at most {len(header)} cells as in the header, found {len(row)}"
                raise SourceError(f"{where}:{rows.line_num}: {expected}")
            if row:  # a blank line has no cells
                yield number, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise SourceError(f"{where}:{rows.line_num}: expected a row of cells, but {error}") from error
    finally:
        csv.field_size_limit(before)


def _parquet(where: str, data: bytes) -> Items:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            _check_size(where, sum(group.total_byte_size for group in groups))
            yield from enumerate(file.read().to_pylist(), 1)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{where}: expected Parquet, but {error}") from error


_READERS: dict[str, Callable[[str, bytes], Items]] = {
    ".jsonl": partial(_json, lines=True),
    ".ndjson": partial(_json, lines=True),
    ".json": _json,
    ".csv": _table,
    ".tsv": partial(_table, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".parquet": _parquet,
    ".txt": _lines,
}
