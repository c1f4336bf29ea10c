"""Input of any size in the official shapes, repeated from a small sample with the repeats made distinct.

In: the five archives of the shared sample of real text where they are (CORPUS_MIRROR), else the built-in dataset. Out:
a folder of plain files, or the official archive, of about the size asked for; kept in the work folder.
Invariants: equal parameters give equal bytes. The first repeat is the original. In each further one
- about a tenth of the Han characters are replaced by others, drawn from the same corpus by their frequency, so a
  trainer's word counts and an encoder's cache meet new words as they would in a real corpus; characters that OpenCC
  changes are neither replaced nor drawn, so that the share of Traditional lines stays the corpus's own;
- the sentences within texts, and Latin words, are exchanged among all records: documents have the corpus's lengths, and
  no two are alike by chance;
- `PLANTED` of the records are copies of others, half of them with 3 % of their Han characters replaced;
- a record's id carries the number of the repeat.
Validation and test members are the originals, once, and in no training member.
Cost: about twelve seconds and 300 MB of memory for 100 MB.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import click
import numpy as np

from corpus.pipeline import manifest as manifests

ROOT = Path(__file__).parent.parent.parent
MIRROR = Path(os.environ.get("CORPUS_MIRROR", ROOT.parent / "shared" / "mirror"))
MEGABYTE = 1_000_000
_SCHEME = 2  # part of the key: raise it when the same parameters give other bytes
_CHANGED_SHARE = 0.1
PLANTED = 0.05
"""Share of the records of a repeat that are copies."""
_EDITED_SHARE = 0.03
_MOVED = re.compile(r'(?<=[。！？；])[^"\\\n。！？；]+[。！？；]|(?<= )[A-Za-z]+(?=[ ,.])')
_DIGITS = 7
_BLOCK_CHARACTERS = 4_000_000
_WIKI_FILE_BYTES = 1_200_000
_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000))
_TRAIN = {
    "wiki2019zh": "wiki_zh/{}/wiki_{:02d}",
    "news2016zh": "new2016zh/news2016zh_train.json",
    "baike2018qa": "baike_qa_train.json",
    "webtext2019zh": "web_text_zh_train.json",
    "translation2019zh": "translation2019zh_train.json",
}
_DEMO = {
    "wiki2019zh": "wiki.json",
    "news2016zh": "news.json",
    "baike2018qa": "baike.json",
    "webtext2019zh": "webtext.json",
    "translation2019zh": "translation.json",
}


def source() -> str:
    """What inputs are made from, in words."""
    return "sample of real text in the official shapes" if has_mirror() else "built-in dataset"


def plain(work: Path, dataset: str, megabytes: float) -> Path:
    """A folder of a dataset's unpacked files: what `--source` takes."""
    folder = _place(work, dataset, megabytes, "plain")
    if not folder.is_dir():
        _need_room(work, megabytes)
        aside = _aside(folder)
        for name, blocks in _members(dataset, int(megabytes * MEGABYTE)):
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(blocks)
        aside.rename(folder)
    return folder


def archive(work: Path, dataset: str, megabytes: float) -> Path:
    """A folder that holds the dataset's official archive."""
    folder = _place(work, dataset, megabytes, "zip")
    if not folder.is_dir():
        _need_room(work, megabytes)
        aside = _aside(folder)
        with zipfile.ZipFile(aside / manifests.load(dataset).archive, "w", zipfile.ZIP_DEFLATED) as target:
            for name, blocks in _members(dataset, int(megabytes * MEGABYTE)):
                with _open_member(target, name) as file:
                    for block in blocks:
                        file.write(block)
        aside.rename(folder)
    return folder


def size(folder: Path) -> int:
    """Bytes of records in a folder of plain files, or in its archives unpacked."""
    total = 0
    for path in folder.rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as opened:
                total += sum(entry.file_size for entry in opened.infolist())
        elif path.is_file():
            total += path.stat().st_size
    return total


def _need_room(work: Path, megabytes: float) -> None:
    """Refuse an input that leaves no room for what is made of it."""
    work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free / MEGABYTE
    if 3 * megabytes > free:
        raise click.UsageError(
            f"{megabytes:,.0f} MB of input need about {3 * megabytes:,.0f} MB of disk, {free:,.0f} are free"
        )


def _open_member(target: zipfile.ZipFile, name: str) -> AbstractContextManager[IO[bytes]]:
    entry = zipfile.ZipInfo(name, date_time=(2019, 2, 19, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return target.open(entry, "w", force_zip64=True)


def _place(work: Path, dataset: str, megabytes: float, kind: str) -> Path:
    key = hashlib.sha256((MIRROR / "SHA256SUMS").read_bytes()).hexdigest()[:8] if has_mirror() else "demo"
    return work / "inputs" / f"{dataset}-{megabytes:g}MB-{kind}-{key}-{_SCHEME}"


def _aside(folder: Path) -> Path:
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def has_mirror() -> bool:
    return (MIRROR / "SHA256SUMS").is_file()


def _members(dataset: str, wanted: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Names and bytes of a dataset's files: the training records repeated to `wanted` bytes, the others once."""
    train, others = _originals(dataset)
    blocks = _repeat(dataset, train, wanted)
    if dataset == "wiki2019zh":
        yield from _wiki_files(blocks)
    else:
        yield _TRAIN[dataset], blocks
    for name, lines in others.items():
        yield name, iter(["".join(lines).encode()])


def _originals(dataset: str) -> tuple[list[str], dict[str, list[str]]]:
    """The sample's training records, and its other members."""
    manifest = manifests.load(dataset)
    if not has_mirror():
        lines = _lines((ROOT / "manifests" / "demo" / _DEMO[dataset]).read_bytes())
        if dataset == "wiki2019zh":
            return lines, {}
        name = _TRAIN[dataset].replace("train", "valid")
        return [line for number, line in enumerate(lines) if number % 10], {name: lines[::10]}
    train: list[str] = []
    others: dict[str, list[str]] = {}
    with zipfile.ZipFile(MIRROR / manifest.archive) as opened:
        for name in sorted(opened.namelist()):
            found = manifest.member_of(name)
            if found is None:
                continue
            lines = _lines(opened.read(name))
            if found[0].split in {"train", "hash"}:
                train += lines
            else:
                others[name] = lines
    return train, others


def _lines(data: bytes) -> list[str]:
    """Records, each with its newline."""
    return [line + "\n" for line in data.decode().split("\n") if line.strip()]


def _repeat(dataset: str, lines: list[str], wanted: int) -> Iterator[bytes]:
    """Blocks of whole records, `wanted` bytes in all but for the last record."""
    left = wanted
    for block in itertools.chain(["".join(lines).encode()], _variants(dataset, lines)):
        if len(block) >= left:
            yield block[: block.find(b"\n", left - 1) + 1]
            return
        left -= len(block)
        yield block


def _variants(dataset: str, lines: list[str]) -> Iterator[bytes]:
    """Endless repeats that differ, some of them in each block."""
    text, places = _with_placeholders(dataset, lines)
    base = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    han = np.flatnonzero(_replaceable(base))
    random = np.random.default_rng(list(dataset.encode()))
    together = max(1, _BLOCK_CHARACTERS // len(base))
    digits = 10 ** np.arange(_DIGITS)[::-1]
    for first in itertools.count(1, together):
        repeats = np.arange(first, first + together)
        block = np.tile(base, (together, 1))
        # Drawn with replacement: of a share s of draws, 1 - exp(-s) are different places.
        row, column = np.divmod(random.integers(0, together * len(han), _draws(together * len(han))), len(han))
        block[row, han[column]] = base[han[random.integers(0, len(han), len(row))]]
        numbers = repeats[:, None] // digits % 10 + ord("0")
        for digit in range(_DIGITS):
            block[:, places + digit] = numbers[:, digit, None]
        made = _exchanged(block.tobytes().decode("utf-32-le"), random)
        yield _planted(made, first, random).encode()


def _exchanged(text: str, random: np.random.Generator) -> str:
    """The text with its inner sentences, and its Latin words, each kind in another order."""
    pieces: list[str] = []
    moved: dict[bool, list[int]] = {True: [], False: []}
    end = 0
    for match in _MOVED.finditer(text):
        pieces.append(text[end : match.start()])
        moved[match[0].isascii()].append(len(pieces))
        pieces.append(match[0])
        end = match.end()
    pieces.append(text[end:])
    for places in moved.values():
        taken = [pieces[places[other]] for other in random.permutation(len(places)).tolist()]
        for place, piece in zip(places, taken, strict=True):
            pieces[place] = piece
    return "".join(pieces)


def _planted(text: str, number: int, random: np.random.Generator) -> str:
    """The records with some replaced by copies of others, half of them edited; ids stay those of no other record."""
    records = text.splitlines(keepends=True)
    chosen = random.permutation(len(records))[: 2 * round(PLANTED * len(records))].tolist()
    for turn, (copied, place) in enumerate(zip(chosen[::2], chosen[1::2], strict=True)):
        record = records[copied].replace(f"{number:0{_DIGITS}}", f"{10**_DIGITS - number:0{_DIGITS}}", 1)
        records[place] = _edited(record, random) if turn % 2 else record
    return "".join(records)


def _edited(record: str, random: np.random.Generator) -> str:
    characters = list(record)
    han = [place for place, character in enumerate(characters) if any(a <= ord(character) < b for a, b in _HAN)]
    for place in random.choice(len(han), round(_EDITED_SHARE * len(han)), replace=False).tolist():
        characters[han[place]] = characters[han[int(random.integers(len(han)))]]
    return "".join(characters)


def _draws(places: int) -> int:
    return int(-np.log1p(-_CHANGED_SHARE) * places)


def _with_placeholders(dataset: str, lines: list[str]) -> tuple[str, np.ndarray]:
    """All records as one text, with room for the repeat's number at the end of each id, and where that room is."""
    shape = manifests.load(dataset).shapes[dataset]
    fields = shape.id_fields[:1]
    ends = [re.compile(rf'"{field}": ?"?[^",}}]+') for field in fields]
    pieces: list[str] = []
    places: list[int] = []
    length = 0
    for line in lines:
        found = ends[0].search(line) if ends else None
        cut = found.end() if found else 0
        made = line[:cut] + "0" * _DIGITS + line[cut:] if found else line
        if found:
            places.append(length + cut)
        pieces.append(made)
        length += len(made)
    return "".join(pieces), np.array(places, dtype=np.int64)


def _replaceable(base: np.ndarray) -> np.ndarray:
    """Where a Han character stands that OpenCC leaves as it is."""
    import opencc

    convert = opencc.OpenCC("t2s").convert
    known = np.unique(base)
    han = [
        point
        for point in known.tolist()
        if any(start <= point < end for start, end in _HAN) and convert(chr(point)) == chr(point)
    ]
    return np.isin(base, np.array(han, dtype=np.uint32))


def _wiki_files(blocks: Iterator[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Files of about the official size, a hundred in a folder, named as the official ones."""
    rest = b""
    numbers = itertools.count()
    for block in blocks:
        rest += block
        while len(rest) >= _WIKI_FILE_BYTES:
            cut = rest.find(b"\n", _WIKI_FILE_BYTES - 1) + 1
            yield _wiki_name(next(numbers)), iter([rest[:cut]])
            rest = rest[cut:]
    if rest:
        yield _wiki_name(next(numbers)), iter([rest])


def _wiki_name(number: int) -> str:
    folder, file = divmod(number, 100)
    return _TRAIN["wiki2019zh"].format(chr(ord("A") + folder // 26) + chr(ord("A") + folder % 26), file)
