"""Discovery: which files in `raw/<dataset>/` hold records, and the layout of each."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath

from corpus.pipeline.errors import ArchiveError, SourceError
from corpus.pipeline.manifest import DATASETS, Manifest
from corpus.pipeline.read.archives import SUFFIXES, UNREADABLE, check_ratio, open_file, open_tar
from corpus.pipeline.read.raw_files import is_there, name_of, open_raw, size_of, source_of
from corpus.pipeline.read.spans import SIZES, RecordFile
from corpus.pipeline.read.splits import split_by_name, split_by_path
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.pipeline.workspace.remote import fetched

_BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".md": "file", ".markdown": "file"}
_Entry = tuple[str, str, str, int | None]
"""Container, codec, path inside, unpacked bytes."""


def list_files(raw: Path, manifest: Manifest) -> list[RecordFile]:
    """The files of records among those in the download's ledger, in reading order.

    Raises:
        ArchiveError: an archive is damaged, encrypted, unsafe or far too large unpacked.
        SourceError: no file is what the manifest names.

    """
    ledger = read_ledger(raw)
    fetched(raw, ledger.outputs if ledger else ())
    names = sorted(name_of(output.path) for output in ledger.outputs) if ledger else []
    found = [entry for name in names if is_there(raw / name) for entry in _entries(raw / name, name)]
    files = _match(found, manifest, official=ledger is not None and ledger.config.get("source") == "official")
    if not files:
        wanted = ", ".join(member.pattern for member in manifest.members)
        there = ", ".join(path for _, _, path, _ in found[:5]) or "nothing"
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise SourceError(
            f"{raw} holds no file of {manifest.name}: looked for {wanted}; found {there}{more}",
            hint="Unpack or rename what was fetched and give its folder with --source.",
        )
    return list(_with_layouts(raw, files))


def _entries(path: Path, name: str) -> list[_Entry]:
    """The files in a file of `raw`."""
    with open_raw(path) as file:
        magic = file.read(6)
    try:
        if magic[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
            return _zip_entries(path, name)
        if magic[:4] == b"PAR1":
            return [(name, "parquet", name, size_of(path))]
        codec = {b"\x1f\x8b": "gz", b"\xfd7": "xz", b"\x28\xb5": "zst"}.get(magic[:2], "plain")
        if re.search(r"\.(tar|tgz|txz|tzst)(\.|$)", path.name):
            return _tar_entries(path, name)
    except UNREADABLE as error:
        raise ArchiveError(
            f"{path} cannot be opened: {error or 'it ends too early'}",
            hint="The archive is damaged or not whole: delete it and fetch it again.",
        ) from error
    if codec == "plain":
        return [(name, "plain", name, size_of(path))]
    plain = name.removesuffix(path.suffix) if path.suffix in SUFFIXES else name
    return [(name, codec, plain, None)]


def _zip_entries(path: Path, name: str) -> list[_Entry]:
    entries: list[_Entry] = []
    with zipfile.ZipFile(source_of(path)) as archive:
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
    check_ratio(path, sum(info.file_size for info in infos), size_of(path))
    return entries


def _tar_entries(path: Path, name: str) -> list[_Entry]:
    entries: list[_Entry] = []
    with open_tar(path) as archive:
        unpacked, packed = 0, size_of(path)
        for entry in archive:
            _check_name(path, entry.name)
            if entry.issym() or entry.islnk():
                raise ArchiveError(f"{path}: {entry.name} is a link; links are not followed")
            unpacked += entry.size
            check_ratio(path, unpacked, packed)
            if entry.isfile():
                entries.append((name, "tar", entry.name, entry.size))
    return entries


def _check_name(path: Path, member: str) -> None:
    if member.startswith(("/", "\\")) or ".." in PurePosixPath(member.replace("\\", "/")).parts or "\0" in member:
        raise ArchiveError(
            f"{path}: the member name {member!r} leads out of its folder", hint="Do not use this archive."
        )


def _match(found: Sequence[_Entry], manifest: Manifest, *, official: bool) -> list[RecordFile]:
    """Match files with the manifest's members; if no file matches, take all that have a text ending."""
    hits = [(*hit, entry) for entry in found if (hit := manifest.member_of(entry[2]))]
    packed = [entry for _, _, entry in hits if entry[1] in {"zip", "tar"} and entry[2].endswith(".parquet")]
    if packed:
        raise SourceError(
            f"{packed[0][0]}: {packed[0][2]} is Parquet inside an archive, which cannot be read in parts",
            hint="Unpack the archive, or give the Parquet file itself.",
        )
    hits.sort(key=lambda hit: (manifest.members.index(hit[0]), hit[2][2]))
    files = [
        RecordFile(
            container=container, codec=codec, path=path, shape=member.shape,
            tail=f"{container}/{path}" if codec in {"zip", "tar"} and manifest.name not in DATASETS else tail,
            split=split_by_path(path) if member.split == "name" else member.split,
            layout="rows" if codec == "parquet" else member.format, bytes=size,
            sha256=member.sha256 if official else None,
        )
        for member, tail, (container, codec, path, size) in hits
    ] or [
        RecordFile(
            container=container, codec=codec, path=path, tail=path, split=split_by_name(path),
            shape=manifest.members[0].shape, layout="", bytes=size,
        )
        for container, codec, path, size in sorted(found, key=itemgetter(2))
        if path.endswith((".txt", ".jsonl", ".json")) and manifest.name in DATASETS
    ]  # fmt: skip
    seen: dict[str, RecordFile] = {}
    for file in files:
        if file.tail in seen:
            raise SourceError(
                f"{file.tail} is in the source twice: {seen[file.tail].container} and {file.container}",
                hint="Keep one copy of each file in the source.",
            )
        seen[file.tail] = file
    return files


def _with_layouts(raw: Path, files: Sequence[RecordFile]) -> Iterator[RecordFile]:
    """Files with their layouts, found in the first bytes of the first file of each kind."""
    layouts: dict[tuple[str, str], str] = {}
    for file in files:
        suffix = PurePosixPath(file.path).suffix
        is_one_kind = file.codec == "tar" or (file.codec == "zip" and suffix != ".json")  # files of a tar come in order
        kind = (file.container if is_one_kind else file.path, suffix)
        if not file.layout and kind not in layouts:
            layouts[kind] = _layout(raw, file)
        yield replace(file, layout=file.layout or layouts[kind])


def _layout(raw: Path, file: RecordFile) -> str:
    with open_file(raw, file) as stream:
        head = stream.read(SIZES.sniff)
    if re.match(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html)", head):
        raise SourceError(
            f"{raw / file.container}: {file.path} is an HTML page, not records",
            hint="A server sent a page instead of the file: fetch it again, or give another --source.",
        )
    return layout_of(file.path, head)


def layout_of(path: str, head: bytes) -> str:
    """The layout of a file, by its name and first bytes."""
    suffix = PurePosixPath(path).suffix
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix == ".json" and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return "array"
    return "text" if suffix not in {".json", ".jsonl", ".ndjson"} and _is_text(head) else "lines"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8-sig")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return bool(lines) and "\0" not in text and not any(line.startswith(("{", "[", '"')) for line in lines)
