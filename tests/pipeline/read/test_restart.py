"""Compressed members that are read from within: the same records, wherever they begin and however they are packed."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corpus.pipeline.errors import ArchiveError
from corpus.pipeline.read import deflate
from corpus.pipeline.read.archives import open_file
from corpus.pipeline.read.pieces import cut, note_restarts, without_restarts
from corpus.pipeline.read.records import read
from corpus.pipeline.read.restart import open_deflate
from corpus.pipeline.read.restart_files import FOLDER, Restarts
from corpus.pipeline.read.spans import Block, Piece, RecordFile
from tests.support.mutations import byte_change
from tests.support.records import baike, examples, lines

pytestmark = pytest.mark.skipif(deflate.LIBRARY is None, reason="there is no C library of zlib here")

FILE = RecordFile(
    container="packed", codec="gz", path="records.json", tail="", split="train", shape="x", layout="lines", bytes=None
)
FLUSHES = (zlib.Z_NO_FLUSH, zlib.Z_BLOCK, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)


def squeezed(chance: random.Random, data: bytes, bits: int) -> bytes:
    """Deflate data of blocks of every kind and size."""
    level, memory = chance.choice((0, 1, 6, 9)), chance.choice((1, 1, 8))
    strategy = chance.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY))
    packer, packed, at = zlib.compressobj(level, zlib.DEFLATED, bits, memory, strategy), b"", 0
    while at < len(data):
        size = chance.choice((100, 3000, 40_000))
        packed += packer.compress(data[at : at + size]) + packer.flush(chance.choice(FLUSHES))
        at += size
    return packed + packer.flush()


def gzipped(chance: random.Random, data: bytes) -> bytes:
    """Gzip members one after another, one of them perhaps empty, with names and padding."""
    borders = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 5))))
    parts = [data[start:end] for start, end in zip([0, *borders], [*borders, len(data)], strict=True)]
    packed = b""
    for part in parts:
        member = squeezed(chance, part, 31)
        if chance.random() < 0.3:
            member = member[:3] + bytes([4 | 8 | 16 | 2]) + member[4:10] + b"\2\0xxname\0said\0\0\0" + member[10:]
        packed += member + b"\0" * chance.choice((0, 0, 7))
    return packed


def zipped(data: bytes, level: int = 6) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("other.json", b"{}\n")
        archive.writestr(FILE.path, data)
    return out.getvalue()


def lay(folder: Path, chance: random.Random, data: bytes) -> RecordFile:
    if chance.random() < 0.3:
        (folder / FILE.container).write_bytes(zipped(data, chance.choice((1, 9))))
        return replace(FILE, codec="zip", bytes=len(data))
    (folder / FILE.container).write_bytes(gzipped(chance, data))
    return FILE


def records(chance: random.Random) -> bytes:
    """Records of every length, some blank, perhaps without a newline at the end."""
    made = [lines([baike(n, answer="答" * chance.choice((0, 9, 300)))]) for n in range(chance.choice((0, 1, 40, 100)))]
    made += [b"\n", b"x" * chance.choice((10, 20_000)) + b"\n"] * chance.choice((0, 1))
    chance.shuffle(made)
    data = (b"\xef\xbb\xbf" if chance.random() < 0.2 else b"") + b"".join(made)
    return data[:-1] if chance.random() < 0.3 else data


def restarts(folder: Path, *, ranges: bool = False, digest: str = "a") -> Restarts:
    return Restarts(raw=folder, digests={FILE.container: digest}, ranges=ranges)


def blocks(folder: Path, pieces: list[Piece]) -> list[list[Block]]:
    return [[block for span in piece.spans for block in read(folder, span)] for piece in pieces]


def ranged(pieces: list[Piece]) -> list[bool]:
    return [span.restart is not None for piece in pieces for span in piece.spans]


@pytest.mark.parametrize("seed", range(examples(300, 10)))
def test_pieces_are_the_same_however_a_member_is_read(tmp_path: Path, seed: int) -> None:
    """Records by the reading process, ranges while the points are noted, and ranges by the index."""
    chance = random.Random(seed)
    data = records(chance)
    file, step = lay(tmp_path, chance, data), chance.choice((3000, 7000, 40_000, 1 << 20))
    fed = list(cut(tmp_path, [file], step))
    expected = blocks(tmp_path, fed)
    ways = []
    for ranges, kept in ((False, False), (True, False), (True, True), (False, True)):
        if not kept:
            shutil.rmtree(tmp_path / FOLDER, ignore_errors=True)
        pieces = list(cut(tmp_path, [file], step, restarts=restarts(tmp_path, ranges=ranges)))
        assert [piece.number for piece in pieces] == list(range(len(fed)))
        assert blocks(tmp_path, pieces) == expected
        ways.append(all(ranged(pieces)))
    if file.bytes is None or file.bytes > step:  # a small member of a zip is read whole
        assert ways == [False, True, True, True]


def test_a_worker_notes_the_points_of_a_file(tmp_path: Path) -> None:
    """Those that the process notes that cuts it."""
    (tmp_path / FILE.container).write_bytes(gzipped(random.Random(3), lines([baike(n) for n in range(300)])))
    list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path)))
    expected = restarts(tmp_path).find(FILE)
    shutil.rmtree(tmp_path / FOLDER)
    others = [replace(FILE, layout="csv"), replace(FILE, codec="xz"), replace(FILE, codec="zip", bytes=9000)]
    assert without_restarts([*others, FILE], 9000, restarts(tmp_path)) == [FILE]
    note_restarts(FILE, piece_bytes=9000, restarts=restarts(tmp_path))
    assert restarts(tmp_path).find(FILE) == expected
    assert without_restarts([FILE], 9000, restarts(tmp_path)) == []


def test_what_is_in_a_piece_begins_near(tmp_path: Path) -> None:
    """A worker unpacks its range, not what is before it."""
    chance = random.Random(1)
    data = lines([baike(n, answer=chance.randbytes(300).hex()) for n in range(600)])
    (tmp_path / FILE.container).write_bytes(zipped(data))
    file, step = replace(FILE, codec="zip", bytes=len(data)), 100_000
    list(cut(tmp_path, [file], step, restarts=restarts(tmp_path)))
    index = restarts(tmp_path).find(file)
    assert index is not None
    assert index.bytes == len(data)
    for start in range(0, len(data), step):
        assert index.before(start).offset <= max(0, start - 1)
        with open_deflate(tmp_path, file, index.before(start)) as stream:
            assert stream.read(2000) == data[index.before(start).offset :][:2000]
    assert len({index.before(start).offset for start in range(0, len(data), step)}) == -(-len(data) // step)


def spoil(folder: Path) -> None:
    (path,) = (folder / FOLDER).iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-20] + bytes(20))


def cut_short(folder: Path) -> None:
    (path,) = (folder / FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("damage", [spoil, cut_short])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: object) -> None:
    chance = random.Random(5)
    data = lines([baike(n) for n in range(300)])
    (tmp_path / FILE.container).write_bytes(gzipped(chance, data))
    assert not any(ranged(list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path)))))
    (before,) = [path.read_bytes() for path in (tmp_path / FOLDER).iterdir()]
    assert callable(damage)
    damage(tmp_path)
    assert restarts(tmp_path).find(FILE) is None
    assert not any(ranged(list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path)))))
    assert [path.read_bytes() for path in (tmp_path / FOLDER).iterdir()] == [before]


def test_an_index_holds_for_one_container(tmp_path: Path) -> None:
    (tmp_path / FILE.container).write_bytes(gzip.compress(lines([baike(n) for n in range(300)])))
    list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path, digest="a")))
    assert restarts(tmp_path, digest="a").find(FILE) is not None
    assert restarts(tmp_path, digest="b").find(FILE) is None
    assert restarts(tmp_path, digest="a").find(replace(FILE, path="another")) is None


def test_the_digest_of_the_official_file_is_noted_too(tmp_path: Path) -> None:
    """So the note that it differs does not depend on who reads."""
    (tmp_path / FILE.container).write_bytes(gzip.compress(lines([baike(n) for n in range(300)])))
    official = replace(FILE, sha256="0" * 64)
    list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path)))
    assert restarts(tmp_path).find(official) is None
    said = []
    for _ in range(2):
        notes: list[str] = []
        pieces = list(cut(tmp_path, [official], 9000, notes, restarts=restarts(tmp_path)))
        said.append((all(ranged(pieces)), notes))
    assert said[0][1] == said[1][1] == ["records.json does not have the SHA-256 of the official file"]
    assert [ranges for ranges, _ in said] == [False, True]


def test_nothing_is_kept_of_a_reading_that_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / FILE.container).write_bytes(gzip.compress(lines([baike(n) for n in range(300)])))
    pieces = cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path, ranges=True))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # it is a generator
    assert not (tmp_path / FOLDER).exists()


def test_without_the_library_records_are_given_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE.container).write_bytes(gzip.compress(lines([baike(n) for n in range(300)])))
    monkeypatch.setattr(deflate, "LIBRARY", None)
    pieces = list(cut(tmp_path, [FILE], 9000, restarts=restarts(tmp_path, ranges=True)))
    assert not any(ranged(pieces))
    assert not (tmp_path / FOLDER).exists()


def said_of(stream: Iterator[bytes]) -> tuple[bytes, str]:
    """All that a stream gives, and how it ends."""
    data = b""
    try:
        for more in stream:
            data += more
    except ArchiveError as error:
        return data, str(error)
    return data, ""


def by_python(folder: Path, file: RecordFile) -> Iterator[bytes]:
    with open_file(folder, file) as stream:
        yield from iter(lambda: stream.read(1000), b"")


def by_blocks(folder: Path, file: RecordFile) -> Iterator[bytes]:
    with open_deflate(folder, file, spacing=5000) as stream:
        yield from iter(lambda: stream.read(1000), b"")


@pytest.mark.parametrize("seed", range(examples(800, 10)))
def test_a_damaged_member_is_named_as_python_names_it(tmp_path: Path, seed: int) -> None:
    """With the same words, wherever the damage is: in the data, in a header, in a checksum, at the end."""
    chance = random.Random(seed)
    data = lines([baike(n) for n in range(60)])
    file = lay(tmp_path, chance, data)
    path = tmp_path / FILE.container
    good = bad = path.read_bytes()
    while bad == good:
        bad = good[: chance.randrange(len(good))] if chance.random() < 0.2 else byte_change(chance, good, good)
    path.write_bytes(bad)
    (given, error), (expected, told) = said_of(by_blocks(tmp_path, file)), said_of(by_python(tmp_path, file))
    assert error == told
    if not told:
        assert given == expected
