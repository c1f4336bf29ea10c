"""Cutting files into pieces of about equal size, between records.

Invariant: a piece is the records that begin in its range, so pieces do not depend on the reader.
Cost: a large compressed member is read by the parent, which holds one piece at a time. One whose restart points are
noted is not: its pieces are ranges. Where they are not, the parent notes them while it reads.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from corpus.pipeline.read.archives import CountingReader, TarReader, archive_errors, open_file
from corpus.pipeline.read.convert import CONVERTED, converted
from corpus.pipeline.read.parquet import parquet_spans
from corpus.pipeline.read.restart import DeflateStream, MemberIndex, is_deflate, open_deflate, point_before
from corpus.pipeline.read.restart_files import Restarts
from corpus.pipeline.read.spans import SIZES, ByteStream, Chunk, Piece, ReadSizes, RecordFile, Span


def cut(
    raw: Path,
    files: Sequence[RecordFile],
    piece_bytes: int,
    notes: list[str] | None = None,
    *,
    restarts: Restarts | None = None,
    sizes: ReadSizes = SIZES,
) -> Iterator[Piece]:
    """Cut the files into pieces; pieces of streamed files carry their records, or with `restarts` where to begin.

    `notes` gets a line for a streamed file whose digest is not that of the official file.
    """
    number = 0
    tar = TarReader(raw)
    group: list[Span] = []
    group_bytes = 0
    for file in files:
        small = file.codec in {"plain", "zip", "tar"} and file.bytes is not None and file.bytes <= piece_bytes
        if group and (not small or group_bytes + (file.bytes or 0) > piece_bytes or group[-1].file.split != file.split):
            yield Piece(number, tuple(group))
            number, group, group_bytes = number + 1, [], 0
        if small:
            group.append(_preread(raw, file, tar, sizes) if file.codec == "tar" else Span(file, 0, None))
            group_bytes += file.bytes or 0
            continue
        for span in _spans(raw, file, piece_bytes, tar, [] if notes is None else notes, restarts, sizes):
            yield Piece(number, (span,))
            number += 1
    if group:
        yield Piece(number, tuple(group))


def count_pieces(raw: Path, files: Sequence[RecordFile], piece_bytes: int) -> int | None:
    """How many pieces `cut` gives; None where records must be read for that."""
    for file in files:
        is_small = file.bytes is not None and file.bytes <= piece_bytes
        is_seekable = file.codec == "parquet" or (file.codec == "plain" and file.layout == "lines")
        if not (is_seekable or (is_small and file.codec in {"plain", "zip"})):
            return None
    return sum(1 for _ in cut(raw, files, piece_bytes))


def without_restarts(files: Sequence[RecordFile], piece_bytes: int, restarts: Restarts) -> list[RecordFile]:
    """The files of more than a piece that could have restart points, and have none."""
    return [
        file
        for file in files
        if file.layout == "lines"
        and (file.bytes is None or file.bytes > piece_bytes)
        and is_deflate(restarts.raw, file)
        and restarts.find(file) is None
    ]


def note_restarts(file: RecordFile, *, piece_bytes: int, restarts: Restarts) -> None:
    """Read a file to its end and note its restart points.

    Raises:
        ArchiveError: the file is damaged.

    """
    for _ in _restart_spans(restarts.raw, file, piece_bytes, replace(restarts, ranges=True), SIZES):
        pass


def renumbered(pieces: Iterator[Piece], first: int) -> Iterator[Piece]:
    """The pieces, with numbers from `first` on."""
    return (replace(piece, number=first + piece.number) for piece in pieces) if first else pieces


def _spans(
    raw: Path,
    file: RecordFile,
    piece_bytes: int,
    tar: TarReader,
    notes: list[str],
    restarts: Restarts | None,
    sizes: ReadSizes,
) -> Iterator[Span]:
    """The spans of a file of one piece or more."""
    if file.codec == "parquet":
        yield from parquet_spans(raw / file.container, file, piece_bytes)
    elif file.codec == "plain" and file.layout == "lines":
        for start in range(0, file.bytes or 0, piece_bytes):
            yield Span(file, start, start + piece_bytes)
    elif restarts and file.layout == "lines" and is_deflate(raw, file):
        digest = yield from _restart_spans(raw, file, piece_bytes, restarts, sizes)
        _check_digest(file, digest, notes)
    else:
        opened = nullcontext(tar.open(file)) if file.codec == "tar" else open_file(raw, file)
        with archive_errors(raw / file.container, file.path), opened as unpacked:
            stream = CountingReader(unpacked, hashed=file.sha256 is not None)
            yield from _chunk_spans(stream, file, piece_bytes, sizes)
        _check_digest(file, stream.sha256, notes)


def _check_digest(file: RecordFile, digest: str | None, notes: list[str]) -> None:
    if digest != file.sha256:
        notes.append(f"{file.path} does not have the SHA-256 of the official file")


def _restart_spans(
    raw: Path, file: RecordFile, piece_bytes: int, restarts: Restarts, sizes: ReadSizes
) -> Generator[Span, None, str | None]:
    """The spans of a deflated file; returns its digest if the official file has one."""
    index = restarts.find(file)
    if index is None:
        with open_deflate(raw, file, spacing=piece_bytes) as unpacked:
            bounded = raw / file.container if file.codec == "gz" else None
            stream = CountingReader(unpacked, hashed=file.sha256 is not None, path=bounded)
            if restarts.ranges:
                yield from _ranges_read(stream, unpacked, file, piece_bytes, sizes)
            else:
                yield from _chunk_spans(stream, file, piece_bytes, sizes)
        restarts.save(file, MemberIndex(stream.bytes, stream.sha256, unpacked.points()))
        return stream.sha256
    for start in range(0, max(1, index.bytes), piece_bytes):
        yield Span(file, start, start + piece_bytes, restart=index.before(start))
    return index.sha256 if file.sha256 else None


def _ranges_read(
    stream: CountingReader, unpacked: DeflateStream, file: RecordFile, piece_bytes: int, sizes: ReadSizes
) -> Iterator[Span]:
    """The spans of a deflated file as ranges, each once a byte of it was read."""
    start = 0
    while stream.read(sizes.read):
        while start < stream.bytes:
            yield Span(file, start, start + piece_bytes, restart=point_before(unpacked.points(), start))
            start += piece_bytes
    if not start:
        yield Span(file, 0, piece_bytes, restart=point_before(unpacked.points(), 0))


def _chunk_spans(stream: CountingReader, file: RecordFile, piece_bytes: int, sizes: ReadSizes) -> Iterator[Span]:
    """The spans of a streamed file with their records."""
    lines = CountingReader(converted(stream, file, sizes)) if file.layout in CONVERTED else stream
    delimiter, chunks = read_chunks(lines, file, 0, sizes)
    held: list[Chunk] = []
    border = piece_bytes
    for whole in chunks:
        chunk: Chunk | None = whole
        while chunk is not None and chunk.offset + len(chunk.data) > border:
            before, chunk = _split_chunk(chunk, delimiter, border)
            yield Span(file, border - piece_bytes, border, (*held, *before), delimiter)
            held, border = [], border + piece_bytes
        if chunk is not None:
            held.append(chunk)
    while border - piece_bytes < max(1, lines.bytes):  # also spans without a record, as for a plain file
        yield Span(file, border - piece_bytes, border, tuple(held), delimiter)
        held, border = [], border + piece_bytes


def _preread(raw: Path, file: RecordFile, tar: TarReader, sizes: ReadSizes) -> Span:
    """A span with all records of a small tar member, since a tar stream cannot be read twice."""
    with archive_errors(raw / file.container, file.path):
        delimiter, chunks = read_chunks(converted(tar.open(file), file, sizes), file, 0, sizes)
        return Span(file, 0, None, tuple(chunks), delimiter)


def _split_chunk(chunk: Chunk, delimiter: bytes, border: int) -> tuple[list[Chunk], Chunk | None]:
    """The records of a chunk that begin before a border, and those from the border on."""
    if chunk.offset >= border:
        return [], chunk
    if chunk.size:
        return [chunk], None
    if len(delimiter) == 1:
        cut = chunk.data.find(delimiter, border - chunk.offset - 1) + 1
    else:  # delimiters may overlap, so all records are split
        offsets = record_offsets(chunk.offset, chunk.data.split(delimiter), delimiter)
        cut = next((offset - chunk.offset for offset in offsets if offset >= border), 0)
    if not 0 < cut < len(chunk.data):
        return [chunk], None
    return [Chunk(chunk.offset, chunk.data[:cut])], Chunk(chunk.offset + cut, chunk.data[cut:])


def record_offsets(offset: int, records: Sequence[bytes], delimiter: bytes) -> list[int]:
    """Offsets of consecutive records, at least one."""
    return list(accumulate(map(len(delimiter).__add__, map(len, records[:-1])), initial=offset))


def read_chunks(stream: ByteStream, file: RecordFile, at: int, sizes: ReadSizes) -> tuple[bytes, Iterator[Chunk]]:
    """The delimiter of records in a stream at byte `at` of a file, and its chunks from there on."""
    if file.layout != "text":
        return b"\n", _chunks(stream, b"", at, b"\n", sizes)
    buffer = stream.read(sizes.sniff)
    delimiter = b"\r\n\r\n" if b"\r\n" in buffer else b"\n\n"
    return delimiter, _chunks(stream, buffer, at, delimiter, sizes)


def _chunks(stream: ByteStream, buffer: bytes, offset: int, delimiter: bytes, sizes: ReadSizes) -> Iterator[Chunk]:
    """Cut a stream at the last end of a record in each read."""
    step = len(delimiter)
    head, skipped = b"", 0  # of a record that is too long
    while True:
        data = stream.read(sizes.read)
        buffer += data
        if skipped:
            first = buffer.find(delimiter) if data else len(buffer)
            if first >= 0:
                yield Chunk(offset, head, skipped + first)
                offset += skipped + first + step
                buffer, head, skipped = buffer[first + step :], b"", 0
        if not skipped:
            if not data:
                end = len(buffer)
            elif step == 1:
                end = buffer.rfind(delimiter) + 1
            else:
                end = len(buffer) - len(buffer.split(delimiter)[-1])  # delimiters may overlap
            if end:
                yield Chunk(offset, buffer[:end])
                offset += end
                buffer = buffer[end:]
        if not data:
            return
        keep = len(buffer) - step + 1  # a delimiter may straddle the cut
        if skipped or keep > sizes.record:
            head = head or buffer[: sizes.rejected]
            skipped += keep
            buffer = buffer[keep:]
