"""Some records of a source: a file, a folder, an archive, a URL, or `hf://datasets/OWNER/NAME`.

In: what a user typed. Out: the files found, by ending, with records of the first ones.
Invariants: nothing is written; what is unpacked in memory is bounded, see `Limits`.
Cost: a few mebibytes of the first files; a remote zip or Parquet file is read by ranges.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import orjson
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from corpus.pipeline.download.http_client import HttpClient, open_client
from corpus.pipeline.download.http_file import HttpFile
from corpus.pipeline.download.locations import source_errors
from corpus.pipeline.download.retry import DEFAULT_RETRY
from corpus.pipeline.errors import SourceError
from corpus.pipeline.manifest import DATA_SUFFIXES
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.read.archives import SUFFIXES, decompressor, open_tar_stream
from corpus.pipeline.read.convert import converted
from corpus.pipeline.read.discover import layout_of
from corpus.pipeline.read.pieces import read_chunks
from corpus.pipeline.read.spans import SIZES, RecordFile

Opener = Callable[[str], IO[bytes]]
_ARCHIVES = re.compile(r"\.(zip|tar|tgz|txz|tzst)(\.(gz|xz|zst))?$")
_HINT = "Name a file, a folder, an archive, a URL, or hf://datasets/OWNER/NAME."


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much of a source is read."""

    files: int = 12
    """Files of each ending."""
    records: int = 400
    """Records of each file."""
    bytes: int = 8 << 20
    """Unpacked bytes of each file."""
    names: int = 100_000
    """Names of a folder."""


LIMITS = Limits()


@dataclass(slots=True)
class Kind:
    """Files with one ending."""

    suffix: str
    names: list[str] = field(default_factory=list)
    layout: str = ""
    """As in `RecordFile`; of the first file."""
    records: list[bytes] = field(default_factory=list)
    """JSON objects; texts for the layout `text`."""
    read: int = 0
    """Files of which records were read."""


@dataclass(slots=True)
class Sample:
    """What a source holds."""

    place: str
    """The source, as a manifest names it."""
    kinds: list[Kind]
    """By their number of files, the most first."""
    others: list[str]
    """Names of files that hold no records."""


def take(source: str, *, progress: Progress = SILENT, limits: Limits = LIMITS) -> Sample:
    """Look at a source.

    Raises:
        SourceError: it does not exist, cannot be read, or holds no file of records.

    """
    place = source if "://" in source else str(Path(source).expanduser())
    if place.startswith("hf://") and place.count("/") == 3:
        place = place.replace("hf://", "hf://datasets/", 1)
    progress.say(f"looking at {place}")
    with source_errors(place, _HINT):
        if re.match(r"(?i)https?://", place):
            with open_client(DEFAULT_RETRY) as client:
                return _sample(place, partial(_at_url, client), place, [""], limits)
        files, root = fsspec.core.url_to_fs(place)
        return _sample(place, partial(files.open, mode="rb"), root, _names(files, root, limits), limits)


def _at_url(client: HttpClient, url: str) -> IO[bytes]:
    return io.BufferedReader(HttpFile(client, url))


def _names(files: Any, root: str, limits: Limits) -> list[str]:
    """Paths of the files, relative to the root; one empty name for a single file."""
    if files.isfile(root):
        return [""]
    if not files.exists(root):
        raise SourceError(f"there is no {root}", hint=_HINT)
    every: Iterable[str] = islice(files.find(root), limits.names)
    if isinstance(files, LocalFileSystem):  # links that lead out of the folder are not followed, as in `corpus ingest`
        inside = Path(root).resolve()
        every = (path for path in every if Path(path).is_file() and Path(path).resolve().is_relative_to(inside))
    found = sorted(os.path.relpath(path, root) for path in every)
    return [name for name in found if not any(part.startswith(".") for part in PurePosixPath(name).parts)]


def _sample(place: str, opener: Opener, root: str, names: Sequence[str], limits: Limits) -> Sample:
    kinds: dict[str, Kind] = {}
    others: list[str] = []
    read = _spread(names, limits.files)
    for name in names:
        path = f"{root}/{name}" if name else root
        shown = name or PurePosixPath(root.partition("?")[0]).name
        if _ARCHIVES.search(shown):
            for member, stream in _members(opener, path, shown, limits):
                _add(kinds, others, member, partial(_given, stream), limits)
        else:
            _add(kinds, others, shown, partial(opener, path) if name in read else partial(_given, None), limits)
    if not kinds:
        there = ", ".join(others[:5]) or "nothing"
        raise SourceError(
            f"{place} holds no file of records: found {there}", hint=f"Their names end in {', '.join(DATA_SUFFIXES)}."
        )
    return Sample(place, sorted(kinds.values(), key=lambda kind: -len(kind.names)), others)


def _spread(names: Sequence[str], count: int) -> set[str]:
    """Some names of each ending, evenly spaced."""
    by_ending: dict[str, list[str]] = {}
    for name in names:
        by_ending.setdefault(_endings(name)[2] or "", []).append(name)
    return {
        each[at * len(each) // count] if len(each) > count else each[at]
        for each in by_ending.values()
        for at in range(min(count, len(each)))
    }


def _endings(name: str) -> tuple[str, str, str | None]:
    """The name without the ending of its compression, that ending, and which of DATA_SUFFIXES is before it."""
    packed = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    plain = name.removesuffix(packed)
    return plain, packed, next((suffix for suffix in DATA_SUFFIXES if plain.endswith(suffix)), None)


def _given(stream: IO[bytes] | None) -> IO[bytes] | None:
    return stream


def _members(opener: Opener, path: str, shown: str, limits: Limits) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Names in an archive, with streams of the first ones."""
    with opener(path) as file:
        if shown.endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                for number, info in enumerate(info for info in archive.infolist() if not info.is_dir()):
                    if number < limits.files * len(DATA_SUFFIXES):
                        with archive.open(info) as member:
                            yield info.filename, member
                    else:
                        yield info.filename, None
            return
        with closing(open_tar_stream(file)) as archive:
            for number, entry in enumerate(archive):
                if entry.isfile():
                    yield entry.name, archive.extractfile(entry)
                if number >= limits.files * len(DATA_SUFFIXES):
                    return


def _add(
    kinds: dict[str, Kind], others: list[str], name: str, opener: Callable[[], IO[bytes] | None], limits: Limits
) -> None:
    """Count a file, and read records of it while its kind has few."""
    plain, packed, suffix = _endings(name)
    if suffix is None:
        others.append(name)
        return
    kind = kinds.setdefault(suffix, Kind(suffix))
    kind.names.append(plain)
    file = opener() if kind.read < limits.files else None
    if file is not None:
        kind.read += 1
        with file:
            _read(kind, plain, decompressor(file, packed) if packed else file, limits)


def _read(kind: Kind, name: str, stream: IO[bytes], limits: Limits) -> None:
    """Records of one file."""
    if kind.suffix == ".parquet":
        kind.layout = "rows"
        for batch in pq.ParquetFile(stream).iter_batches(limits.records):
            kind.records += [orjson.dumps(row, default=str) for row in batch.to_pylist()]
            return
        return
    head = _Bounded(stream, limits.bytes)
    file = RecordFile(
        container=name, codec="plain", path=name, tail=name, split="hash", shape="", layout="", bytes=None
    )  # fmt: skip
    first = head.peek(SIZES.sniff)
    kind.layout = kind.layout or layout_of(file.path, first)
    file = RecordFile(
        container=name, codec="plain", path=name, tail=name, split="hash", shape="", layout=kind.layout, bytes=None
    )  # fmt: skip
    found: list[bytes] = []
    try:
        delimiter, chunks = read_chunks(converted(head, file, SIZES), file, 0, SIZES)
        for chunk in chunks:
            found += [record for record in chunk.data.split(delimiter) if record.strip()]
            if len(found) > limits.records:
                break
    except SourceError:
        if not head.is_cut:  # the end of an array is beyond the limit
            raise
    if head.is_cut and found and kind.layout in {"lines", "text"}:
        found.pop()  # it may not be whole
    kind.records += found[: limits.records]


class _Bounded:
    """The first bytes of a stream."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left, self._head = stream, limit, b""
        self.is_cut = False

    def peek(self, size: int) -> bytes:
        """The next bytes, which `read` gives again."""
        self._head = self.read(size)
        return self._head

    def read(self, size: int = -1) -> bytes:
        """Read; nothing beyond the limit."""
        if self._head:
            head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
            return head
        wanted = self._left if size < 0 else min(size, self._left)
        self.is_cut = self.is_cut or wanted == 0
        data = self._stream.read(wanted) if wanted else b""
        self._left -= len(data)
        return data
