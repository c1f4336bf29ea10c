"""Readers: from what lies in `raw/` to numbered pieces of records, whatever it is packed in.

In: the files of `raw/<dataset>/`. Out: pieces of about `piece_bytes` of records, in a fixed order, each read by one
worker.
Invariants: a piece is the records that *begin* in its range, so cuts fall between records and do not depend on who
reads; nothing is ever
unpacked to disk, so no archive can write anywhere; what a stream gives is bounded by a ratio, a record by
`RECORD_BYTES`.
Cost: plain files and small zip members are read by the workers themselves; a large compressed member is read once, by
the parent, which only looks for the ends of records where it must cut, and holds one piece at a time.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import ArchiveError, SourceError
from corpus.pipeline.manifest import Manifest
from corpus.pipeline.read.parse import RAW_BYTES, RECORD_BYTES, Reject
from corpus.pipeline.workspace.layout import read_ledger

BLOCK_BYTES = 1 << 20
"""Records are handed on in blocks that begin in the same mebibyte."""
_READ_BYTES = 1 << 20
_SNIFF_BYTES = 1 << 16
_RATIO_LIMIT = 250
_RATIO_FREE_BYTES = 64 << 20
_SUFFIXES = (".gz", ".xz", ".zst")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    gzip.BadGzipFile,
    NotImplementedError,
)
_UNREADABLE = (*_DAMAGE, OSError, ValueError, TypeError, IndexError, OverflowError, struct.error)
"""What zipfile and tarfile raise besides when the directory of an archive is damaged."""

Block = tuple[list[tuple[int, bytes]], list[Reject]]
_Run = tuple[list[int], list[bytes], int]
"""Offsets and records; of a record that is too long alone its head, and its size, which is else 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of records, packed or plain."""

    container: str
    """The file in `raw/<dataset>/` that holds it, relative to that folder."""
    codec: str
    """`plain`, `zip`, `tar`, `gz`, `xz`, `zst` or `parquet`."""
    path: str
    """Its name inside the container, or of the container: the `source_file` of its documents."""
    tail: str
    """The part of the path that the manifest's pattern describes; it makes ids unique within the dataset."""
    split: str
    shape: str
    layout: str
    """`lines`: a JSON object a line; `text`: documents divided by blank lines; `rows`: Parquet."""
    bytes: int | None
    """Size unpacked, where the container knows it."""
    sha256: str | None = None
    """Digest that the manifest knows of the official file; None for files that were given."""


class Chunk(NamedTuple):
    """Records that stand one after another, as they came; or the head of one that is too long."""

    offset: int
    data: bytes
    size: int = 0
    """Bytes of the record that is too long; 0 for whole records."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one file. `chunks` are its records when the parent has read them already."""

    file: File
    start: int
    end: int | None
    chunks: tuple[Chunk, ...] | None = None
    delimiter: bytes = b"\n"
    """What ends a record in `chunks`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker turns into one documents shard."""

    number: int
    spans: tuple[Span, ...]


def list_files(raw: Path, manifest: Manifest) -> list[File]:
    """The files of records among those that the download's ledger names, in the order in which they are read.

    Raises:
        ArchiveError: an archive is damaged, encrypted, unsafe or far too large unpacked.
        SourceError: nothing in there is what the manifest names.

    """
    ledger = read_ledger(raw)
    names = sorted(output.path for output in ledger.outputs) if ledger else []
    found = [entry for name in names if (raw / name).is_file() for entry in _entries(raw / name, name)]
    files = _match(found, manifest, official=ledger is not None and ledger.config.get("source") == "official")
    if not files:
        wanted = ", ".join(member.pattern for member in manifest.members)
        there = ", ".join(path for _, _, path, _ in found[:5]) or "nothing"
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise SourceError(
            f"{raw} holds none of the files of {manifest.name}: looked for {wanted}; found {there}{more}",
            hint="Unpack or rename what was fetched and give its folder with --source.",
        )
    return list(_with_layouts(raw, files))


def cut(raw: Path, files: Sequence[File], piece_bytes: int, notes: list[str] | None = None) -> Iterator[Piece]:
    """Cut the files into pieces; those that must be streamed carry their records along.

    Whether a streamed file is the official one, where its digest is known, is said in `notes`.
    """
    number = 0
    tape = _Tape(raw)
    group: list[Span] = []
    group_bytes = 0
    for file in files:
        small = file.codec in {"plain", "zip", "tar"} and file.bytes is not None and file.bytes <= piece_bytes
        if group and (not small or group_bytes + (file.bytes or 0) > piece_bytes or group[-1].file.split != file.split):
            yield Piece(number, tuple(group))
            number, group, group_bytes = number + 1, [], 0
        if small:
            group.append(_read_already(raw, file, tape) if file.codec == "tar" else Span(file, 0, None))
            group_bytes += file.bytes or 0
            continue
        for span in _spans(raw, file, piece_bytes, tape, [] if notes is None else notes):
            yield Piece(number, (span,))
            number += 1
    if group:
        yield Piece(number, tuple(group))


def read(raw: Path, span: Span) -> Iterator[Block]:
    """The records of a span, block by block."""
    if span.chunks is not None:
        yield from _blocks(_records(span.chunks, span.delimiter, 0, None))
    elif span.file.codec == "parquet":
        yield from _parquet_blocks(raw / span.file.container, span)
    else:
        with open_file(raw, span.file) as stream:
            at = 0
            if span.start > 0 and span.file.codec == "plain" and span.file.layout == "lines":
                at = stream.seek(span.start - 1)  # what ends at the first newline from here began before
            delimiter, chunks = _chunks(stream, span.file, at)
            yield from _blocks(_records(chunks, delimiter, span.start, span.end))


def record_at(raw: Path, file: File, offset: int) -> bytes:
    """One record as it came, by its offset; `records_at` for one."""
    return records_at(raw, file, [offset])[offset]


def records_at(raw: Path, file: File, offsets: Sequence[int]) -> dict[int, bytes]:
    """Records as they came, by their offsets; the file is read once, from the first to the last of them.

    Raises:
        SourceError: at one of the offsets no record begins.

    """
    wanted = set(offsets)
    found: dict[int, bytes] = {}
    if wanted:
        for records, rejects in read(raw, Span(file, min(wanted), max(wanted) + 1)):
            found.update((at, record) for at, record in records if at in wanted)
            found.update((reject.offset, reject.raw) for reject in rejects if reject.offset in wanted)
    for missing in sorted(wanted - found.keys()):
        raise SourceError(f"{file.path}: no record begins at {missing}")
    return found


@contextmanager
def open_file(raw: Path, file: File) -> Iterator[IO[bytes]]:
    """A file of records as a stream of its bytes, unpacked on the way.

    Raises:
        ArchiveError: the container is damaged, or gives more than is believable.

    """
    path = raw / file.container
    with _named(path, file.path), path.open("rb") as packed:
        if file.codec == "zip":
            with _zip_member(path, file.path) as stream:
                yield stream
        elif file.codec == "tar":
            yield _Tape(raw).open(file)
        elif file.codec == "plain":
            yield packed
        else:
            with _decompressor(packed, file.codec) as stream:
                yield _Bounded(stream, path.stat().st_size, f"{path}")  # type: ignore[misc]  # read() is all that is used


@contextmanager
def _named(path: Path, member: str) -> Iterator[None]:
    """Turn what a damaged archive raises within into an ArchiveError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and not isinstance(error, _DAMAGE):
            raise
        raise _damaged(path, member, error) from error  # bz2 and zstd say no more than OSError
    except _DAMAGE as error:
        raise _damaged(path, member, error) from error


class _Tape:
    """Members of tar archives, each archive read once as long as they are asked for in its own order."""

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._container = ""
        self._archive: tarfile.TarFile | None = None

    def open(self, file: File) -> IO[bytes]:
        """The stream of a member; it ends when the next one is asked for."""
        path = self._raw / file.container
        with _named(path, file.path):
            for fresh in (False, True):
                if fresh or self._container != file.container or self._archive is None:
                    self._container, self._archive = file.container, _open_tar(path)
                while (entry := self._archive.next()) is not None:
                    stream = self._archive.extractfile(entry) if entry.name == file.path else None
                    if stream is not None:
                        return stream
                    self._archive.members = []  # type: ignore[attr-defined]  # it would remember every header
        raise ArchiveError(f"{path}: {file.path} is no longer in it")


def _open_tar(path: Path) -> tarfile.TarFile:
    """A tar archive as a stream, however it is compressed."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic == b"\x28\xb5\x2f\xfd":
        return tarfile.open(fileobj=_decompressor(file, "zst"), mode="r|")
    return tarfile.open(fileobj=file, mode="r|*")


@functools.lru_cache(maxsize=2)
def _zip(path: Path, _mtime_ns: int) -> zipfile.ZipFile:
    """An archive whose directory is read once in a process."""
    return zipfile.ZipFile(path)


def _zip_member(path: Path, member: str) -> IO[bytes]:
    try:
        return _zip(path, path.stat().st_mtime_ns).open(member)
    except (*_UNREADABLE, KeyError, RuntimeError) as error:
        raise _damaged(path, member, error) from error


def _damaged(path: Path, member: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path}: {member} cannot be unpacked: {error or 'it ends too early'}",
        hint="The archive is damaged: delete it and fetch it again.",
    )


class _Readable(Protocol):
    """What records are read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class _Digested:
    """A stream whose bytes are counted as they are read, and hashed if there is a digest to compare with."""

    def __init__(self, stream: IO[bytes], *, wanted: bool) -> None:
        self._stream = stream
        self.digest = hashlib.sha256() if wanted else None
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if self.digest:
            self.digest.update(data)
        self.bytes += len(data)
        return data


class _Bounded:
    """A stream that refuses to inflate without bound."""

    def __init__(self, stream: IO[bytes], packed_bytes: int, name: str) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._unpacked_bytes = 0
        self._name = name

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._unpacked_bytes += len(data)
        _check_ratio(self._name, self._unpacked_bytes, self._packed_bytes)
        return data


def _check_ratio(name: object, unpacked_bytes: int, packed_bytes: int) -> None:
    if unpacked_bytes > max(_RATIO_FREE_BYTES, packed_bytes * _RATIO_LIMIT):
        raise ArchiveError(f"{name} unpacks to more than {_RATIO_LIMIT} times its size: not text, refused")


def _decompressor(packed: IO[bytes], codec: str) -> Any:
    if codec == "gz":
        return gzip.GzipFile(fileobj=packed)
    if codec == "xz":
        return lzma.LZMAFile(packed)
    return pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")  # tells when a stream ends too early


def _entries(path: Path, name: str) -> list[tuple[str, str, str, int | None]]:
    """What a file in `raw` holds, as (container, codec, path inside, bytes unpacked)."""
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
            return _zip_entries(path, name)
        if magic[:4] == b"PAR1":
            return [(name, "parquet", name, path.stat().st_size)]
        codec = {b"\x1f\x8b": "gz", b"\xfd7": "xz", b"\x28\xb5": "zst"}.get(magic[:2], "plain")
        if re.search(r"\.(tar|tgz|txz|tzst)(\.|$)", path.name):
            return _tar_entries(path, name)
    except _UNREADABLE as error:
        raise ArchiveError(
            f"{path} cannot be opened: {error or 'it ends too early'}",
            hint="The archive is damaged or not whole: delete it and fetch it again.",
        ) from error
    if codec == "plain":
        return [(name, "plain", name, path.stat().st_size)]
    plain = name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else name
    return [(name, codec, plain, None)]


def _zip_entries(path: Path, name: str) -> list[tuple[str, str, str, int | None]]:
    entries: list[tuple[str, str, str, int | None]] = []
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        _check_name(path, info.filename)
        if info.flag_bits & 1:
            raise ArchiveError(
                f"{path}: {info.filename} is encrypted", hint="Unpack it and give the folder with --source."
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(f"{path}: {info.filename} is a symbolic link; links are not followed")
        entries.append((name, "zip", info.filename, info.file_size))
    _check_ratio(path, sum(info.file_size for info in infos), path.stat().st_size)
    return entries


def _tar_entries(path: Path, name: str) -> list[tuple[str, str, str, int | None]]:
    entries: list[tuple[str, str, str, int | None]] = []
    with _open_tar(path) as tape:
        unpacked = 0
        for entry in tape:
            _check_name(path, entry.name)
            if entry.issym() or entry.islnk():
                raise ArchiveError(f"{path}: {entry.name} is a link; links are not followed")
            unpacked += entry.size
            _check_ratio(path, unpacked, path.stat().st_size)
            if entry.isfile():
                entries.append((name, "tar", entry.name, entry.size))
    return entries


def _check_name(path: Path, member: str) -> None:
    if member.startswith(("/", "\\")) or ".." in PurePosixPath(member.replace("\\", "/")).parts or "\0" in member:
        raise ArchiveError(
            f"{path}: the member name {member!r} leads out of its folder", hint="Do not use this archive."
        )


def _match(found: Sequence[tuple[str, str, str, int | None]], manifest: Manifest, *, official: bool) -> list[File]:
    """Name by the manifest's members; when none matches, by what plain-text mirrors call theirs."""
    ranked: list[tuple[tuple[int, str], File]] = []
    for container, codec, path, size in found:
        hit = manifest.member_of(path)
        if hit is not None:
            member, tail = hit
            rank = (manifest.members.index(member), path)
            file = File(
                container=container, codec=codec, path=path, tail=tail, split=member.split, shape=member.shape,
                layout="rows" if codec == "parquet" else "lines", bytes=size,
                sha256=member.sha256 if official else None,
            )  # fmt: skip
            ranked.append((rank, file))
    if not ranked:
        for container, codec, path, size in found:
            if path.endswith((".txt", ".jsonl", ".json")):
                file = File(
                    container=container, codec=codec, path=path, tail=path, split=_split_by_name(path),
                    shape=manifest.members[0].shape, layout="lines", bytes=size,
                )  # fmt: skip
                ranked.append(((0, path), file))
    ordered = [file for _, file in sorted(ranked, key=lambda entry: entry[0])]
    seen: dict[str, File] = {}
    for file in ordered:
        if file.tail in seen:
            raise SourceError(
                f"{file.tail} is there twice: {seen[file.tail].container} and {file.container}",
                hint="Keep one form of each file in the source.",
            )
        seen[file.tail] = file
    return ordered


def _split_by_name(path: str) -> str:
    """The split that a file's name tells; `latest` is no test."""
    words = set(re.split(r"[^a-z]+", PurePosixPath(path).name.lower()))
    for split, names in (
        ("test", {"test", "testa"}),
        ("validation", {"valid", "validation", "dev"}),
        ("train", {"train"}),
    ):
        if words & names:
            return split
    return "hash"


def _with_layouts(raw: Path, files: Sequence[File]) -> Iterator[File]:
    """Look into the first bytes of the first file of each kind: JSON lines, or text with blank lines in between."""
    layouts: dict[tuple[str, str], str] = {}
    for file in files:
        kind = (file.container if file.codec in {"zip", "tar"} else file.path, PurePosixPath(file.path).suffix)
        if kind not in layouts:
            layouts[kind] = "rows" if file.layout == "rows" else _layout(raw, file)
        yield replace(file, layout=layouts[kind])


def _layout(raw: Path, file: File) -> str:
    with open_file(raw, file) as stream:
        head = stream.read(_SNIFF_BYTES)
    if re.match(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html)", head):
        raise SourceError(
            f"{raw / file.container}: {file.path} is an HTML page, not records",
            hint="A server sent a page instead of the file: fetch it again, or give another --source.",
        )
    named_json = PurePosixPath(file.path).suffix in {".json", ".jsonl"}
    return "text" if not named_json and _is_text(head) else "lines"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8-sig")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return bool(lines) and "\0" not in text and not any(line.startswith(("{", "[", '"')) for line in lines)


def _spans(raw: Path, file: File, piece_bytes: int, tape: _Tape, notes: list[str]) -> Iterator[Span]:
    """The spans of a file that is a piece or more of its own."""
    if file.codec == "parquet":
        yield from _parquet_spans(raw / file.container, file, piece_bytes)
    elif file.codec == "plain" and file.layout == "lines":
        for start in range(0, file.bytes or 0, piece_bytes):
            yield Span(file, start, start + piece_bytes)
    else:
        opened = nullcontext(tape.open(file)) if file.codec == "tar" else open_file(raw, file)
        with _named(raw / file.container, file.path), opened as unpacked:
            stream = _Digested(unpacked, wanted=file.sha256 is not None)
            delimiter, chunks = _chunks(stream, file, 0)
            held: list[Chunk] = []
            border = piece_bytes
            for whole in chunks:
                chunk: Chunk | None = whole
                while chunk is not None and chunk.offset + len(chunk.data) > border:
                    before, chunk = _parted(chunk, delimiter, border)
                    yield Span(file, border - piece_bytes, border, (*held, *before), delimiter)
                    held, border = [], border + piece_bytes
                if chunk is not None:
                    held.append(chunk)
            while border - piece_bytes < max(1, stream.bytes):  # also those without a record, as for a plain file
                yield Span(file, border - piece_bytes, border, tuple(held), delimiter)
                held, border = [], border + piece_bytes
            if stream.digest and stream.digest.hexdigest() != file.sha256:
                notes.append(f"{file.path} is not the official file whose SHA-256 the manifest knows")


def _read_already(raw: Path, file: File, tape: _Tape) -> Span:
    """All of a small member of a tape, which cannot be read twice."""
    with _named(raw / file.container, file.path):
        delimiter, chunks = _chunks(tape.open(file), file, 0)
        return Span(file, 0, None, tuple(chunks), delimiter)


def _parted(chunk: Chunk, delimiter: bytes, border: int) -> tuple[list[Chunk], Chunk | None]:
    """What of a chunk begins before a border, and what begins from there on."""
    if chunk.offset >= border:
        return [], chunk
    if chunk.size:
        return [chunk], None
    if len(delimiter) == 1:
        cut = chunk.data.find(delimiter, border - chunk.offset - 1) + 1
    else:  # two of them may overlap, so it takes all to tell where they stand
        offsets = _begins(chunk.offset, chunk.data.split(delimiter), delimiter)
        cut = next((offset - chunk.offset for offset in offsets if offset >= border), 0)
    if not 0 < cut < len(chunk.data):
        return [chunk], None
    return [Chunk(chunk.offset, chunk.data[:cut])], Chunk(chunk.offset + cut, chunk.data[cut:])


def _blocks(runs: Iterable[_Run]) -> Iterator[Block]:
    """Group records by the mebibyte in which they begin."""
    held: list[tuple[int, bytes]] = []
    rejects: list[Reject] = []
    window = 0
    for offsets, records, size in runs:
        first = 0
        while first < len(offsets):
            if offsets[first] // BLOCK_BYTES != window and (held or rejects):
                yield held, rejects
                held, rejects = [], []
            window = offsets[first] // BLOCK_BYTES
            beyond = bisect_left(offsets, (window + 1) * BLOCK_BYTES, first)
            if size:
                detail = f"{size:,} bytes, more than {RECORD_BYTES:,}; the first {len(records[0]):,} are kept here"
                rejects.append(Reject(offsets[0], "too_large", detail, records[0]))
            else:
                held += zip(offsets[first:beyond], records[first:beyond], strict=True)
            first = beyond
    if held or rejects:
        yield held, rejects


def _records(chunks: Iterable[Chunk], delimiter: bytes, start: int, end: int | None) -> Iterator[_Run]:
    """Every record that begins in [start, end), but blank ones, which are none."""
    for chunk in chunks:
        for offsets, records, size in _split(chunk, delimiter):
            if offsets[0] == 0 and records[0].startswith(b"\xef\xbb\xbf"):
                records[0] = records[0][3:]
            first = bisect_left(offsets, start)
            last = len(offsets) if end is None else bisect_left(offsets, end)
            if first > 0 or last < len(offsets):
                yield from _without_blank(offsets[first:last], records[first:last], size)
            else:
                yield from _without_blank(offsets, records, size)
            if last < len(offsets):
                return


def _without_blank(offsets: list[int], records: list[bytes], size: int) -> Iterator[_Run]:
    """The run itself where no record is blank, as nearly always; nothing where all are."""
    if not all(records) or any(map(bytes.isspace, records)):
        filled = [at for at, record in enumerate(records) if record and not record.isspace()]
        offsets, records = [offsets[at] for at in filled], [records[at] for at in filled]
    if records:
        yield offsets, records, size


def _split(chunk: Chunk, delimiter: bytes) -> Iterator[_Run]:
    """The records of a chunk; of what is longer than a record may be, only the head is kept."""
    if chunk.size:
        yield [chunk.offset], [chunk.data], chunk.size
        return
    records = chunk.data.split(delimiter)
    offsets = _begins(chunk.offset, records, delimiter)
    if not records[-1]:
        del records[-1], offsets[-1]
    if max(map(len, records), default=0) > RECORD_BYTES:
        for at, record in zip(offsets, records, strict=True):
            too_long = len(record) > RECORD_BYTES
            yield [at], [record[:RAW_BYTES] if too_long else record], len(record) if too_long else 0
    elif records:
        yield offsets, records, 0


def _begins(offset: int, records: Sequence[bytes], delimiter: bytes) -> list[int]:
    """Where each of some records begins that stand one after another."""
    begins = list(accumulate(map(len(delimiter).__add__, map(len, records)), initial=offset))
    begins.pop()
    return begins


def _chunks(stream: _Readable, file: File, at: int) -> tuple[bytes, Iterator[Chunk]]:
    """What ends a record in a stream that stands at byte `at` of a file, and its chunks from there on."""
    if file.layout != "text":
        return b"\n", _whole(stream, b"", at, b"\n")
    buffer = stream.read(_SNIFF_BYTES)
    delimiter = b"\r\n\r\n" if b"\r\n" in buffer else b"\n\n"
    return delimiter, _whole(stream, buffer, at, delimiter)


def _whole(stream: _Readable, buffer: bytes, offset: int, delimiter: bytes) -> Iterator[Chunk]:
    """Cut a stream where a record ends, at about each read."""
    step = len(delimiter)
    head, swallowed = b"", 0  # of a record that is too long to hold
    while True:
        data = stream.read(_READ_BYTES)
        buffer += data
        if swallowed:
            first = buffer.find(delimiter) if data else len(buffer)
            if first >= 0:
                yield Chunk(offset, head, swallowed + first)
                offset += swallowed + first + step
                buffer, head, swallowed = buffer[first + step :], b"", 0
        if not swallowed:
            if not data:
                end = len(buffer)
            elif step == 1:
                end = buffer.rfind(delimiter) + 1
            else:
                end = len(buffer) - len(buffer.split(delimiter)[-1])  # two may overlap
            if end:
                yield Chunk(offset, buffer[:end])
                offset += end
                buffer = buffer[end:]
        if not data:
            return
        keep = len(buffer) - step + 1  # a delimiter may lie across the cut
        if swallowed or keep > RECORD_BYTES:
            head = head or buffer[:RAW_BYTES]
            swallowed += keep
            buffer = buffer[keep:]


def _parquet_spans(path: Path, file: File, piece_bytes: int) -> Iterator[Span]:
    """Row groups taken together up to about a piece; offsets are row numbers."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be opened: {error}", hint="Delete it and fetch it again.") from error
    start = row = size = 0
    for group in range(metadata.num_row_groups):
        row += metadata.row_group(group).num_rows
        size += metadata.row_group(group).total_byte_size
        if size >= piece_bytes or group == metadata.num_row_groups - 1:
            yield Span(file, start, row)
            start, size = row, 0


def _parquet_blocks(path: Path, span: Span) -> Iterator[Block]:
    row = 0
    try:
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if span.start < row + rows and (span.end is None or row < span.end):
                    for batch in parquet.iter_batches(2048, row_groups=[group]):
                        yield _parquet_block(batch, row, span)
                        row += batch.num_rows
                else:
                    row += rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}", hint="Delete it and fetch it again.") from error


def _parquet_block(batch: pa.RecordBatch, row: int, span: Span) -> Block:
    """Rows as records; one whose strings are not UTF-8 is rejected alone."""
    first = max(span.start - row, 0)
    last = batch.num_rows if span.end is None else min(span.end - row, batch.num_rows)
    batch = batch.slice(first, max(0, last - first))
    try:
        return [
            (row + first + at, orjson.dumps(record, default=str)) for at, record in enumerate(batch.to_pylist())
        ], []
    except (UnicodeDecodeError, TypeError):
        pass
    records: list[tuple[int, bytes]] = []
    rejects: list[Reject] = []
    for at in range(batch.num_rows):
        try:
            records.append((row + first + at, orjson.dumps(batch.slice(at, 1).to_pylist()[0], default=str)))
        except (UnicodeDecodeError, TypeError) as error:
            strings = [column.cast(pa.binary())[at].as_py() for column in batch if column.type == pa.string()]
            raw = b"\n".join(string or b"" for string in strings)
            rejects.append(Reject(row + first + at, "not_utf8", str(error), raw))
    return records, rejects
