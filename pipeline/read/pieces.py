"""Cutting files into pieces of about equal size, between records.

Invariant: a piece is the records that begin in its range, so cuts do not depend on who reads.
Cost: a large compressed member is read once, by the parent, which holds one piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path

from corpus.pipeline.read.archives import DigestReader, Readable, TarReader, archive_errors, open_file
from corpus.pipeline.read.parquet import parquet_spans
from corpus.pipeline.read.spans import SIZES, Chunk, Piece, ReadSizes, RecordFile, Span


def cut(
    raw: Path,
    files: Sequence[RecordFile],
    piece_bytes: int,
    notes: list[str] | None = None,
    *,
    sizes: ReadSizes = SIZES,
) -> Iterator[Piece]:
    """Cut the files into pieces; those that must be streamed carry their records along.

    Whether a streamed file is the official one, where its digest is known, is said in `notes`.
    """
    number = 0
    tape = TarReader(raw)
    group: list[Span] = []
    group_bytes = 0
    for file in files:
        small = file.codec in {"plain", "zip", "tar"} and file.bytes is not None and file.bytes <= piece_bytes
        if group and (not small or group_bytes + (file.bytes or 0) > piece_bytes or group[-1].file.split != file.split):
            yield Piece(number, tuple(group))
            number, group, group_bytes = number + 1, [], 0
        if small:
            group.append(_read_already(raw, file, tape, sizes) if file.codec == "tar" else Span(file, 0, None))
            group_bytes += file.bytes or 0
            continue
        for span in _spans(raw, file, piece_bytes, tape, [] if notes is None else notes, sizes):
            yield Piece(number, (span,))
            number += 1
    if group:
        yield Piece(number, tuple(group))


def _spans(
    raw: Path, file: RecordFile, piece_bytes: int, tape: TarReader, notes: list[str], sizes: ReadSizes
) -> Iterator[Span]:
    """The spans of a file that is a piece or more of its own."""
    if file.codec == "parquet":
        yield from parquet_spans(raw / file.container, file, piece_bytes)
    elif file.codec == "plain" and file.layout == "lines":
        for start in range(0, file.bytes or 0, piece_bytes):
            yield Span(file, start, start + piece_bytes)
    else:
        opened = nullcontext(tape.open(file)) if file.codec == "tar" else open_file(raw, file)
        with archive_errors(raw / file.container, file.path), opened as unpacked:
            stream = DigestReader(unpacked, wanted=file.sha256 is not None)
            delimiter, chunks = read_chunks(stream, file, 0, sizes)
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


def _read_already(raw: Path, file: RecordFile, tape: TarReader, sizes: ReadSizes) -> Span:
    """All of a small member of a tape, which cannot be read twice."""
    with archive_errors(raw / file.container, file.path):
        delimiter, chunks = read_chunks(tape.open(file), file, 0, sizes)
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
        offsets = record_offsets(chunk.offset, chunk.data.split(delimiter), delimiter)
        cut = next((offset - chunk.offset for offset in offsets if offset >= border), 0)
    if not 0 < cut < len(chunk.data):
        return [chunk], None
    return [Chunk(chunk.offset, chunk.data[:cut])], Chunk(chunk.offset + cut, chunk.data[cut:])


def record_offsets(offset: int, records: Sequence[bytes], delimiter: bytes) -> list[int]:
    """Where each of some records begins that stand one after another."""
    begins = list(accumulate(map(len(delimiter).__add__, map(len, records)), initial=offset))
    begins.pop()
    return begins


def read_chunks(stream: Readable, file: RecordFile, at: int, sizes: ReadSizes) -> tuple[bytes, Iterator[Chunk]]:
    """What ends a record in a stream that stands at byte `at` of a file, and its chunks from there on."""
    if file.layout != "text":
        return b"\n", _whole(stream, b"", at, b"\n", sizes)
    buffer = stream.read(sizes.sniff)
    delimiter = b"\r\n\r\n" if b"\r\n" in buffer else b"\n\n"
    return delimiter, _whole(stream, buffer, at, delimiter, sizes)


def _whole(stream: Readable, buffer: bytes, offset: int, delimiter: bytes, sizes: ReadSizes) -> Iterator[Chunk]:
    """Cut a stream where a record ends, at about each read."""
    step = len(delimiter)
    head, swallowed = b"", 0  # of a record that is too long to hold
    while True:
        data = stream.read(sizes.read)
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
        if swallowed or keep > sizes.record:
            head = head or buffer[: sizes.rejected]
            swallowed += keep
            buffer = buffer[keep:]
