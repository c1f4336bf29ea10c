"""Resolve --source: from a folder, an archive, unpacked files or a URL to the files to download.

In: the text that a user typed, and a manifest.
Out: a `DownloadSource`, or SourceError with what was looked for and what was found.
Invariants: every name is a plain relative path. Of two forms of one file (plain and compressed) one is used. An archive
goes before unpacked files. Only `SHA256SUMS` is opened; it gives checksums of the files that it names.
Cost: one walk of a local folder, one listing of an fsspec prefix, a few dozen short requests to a web server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from corpus.pipeline import manifest as manifests
from corpus.pipeline.download.http_client import HttpClient, open_client
from corpus.pipeline.download.locations import FsspecPrefix, HttpPrefix, LocalFolder, Location, source_errors
from corpus.pipeline.download.planning import ARCHIVE_ENDINGS, PACKED_ENDINGS, DownloadSource, plain_name
from corpus.pipeline.download.remote_file import GIVEN, PART_SUFFIX, RemoteFile, local_file
from corpus.pipeline.download.retry import DEFAULT_RETRY, RetryPolicy
from corpus.pipeline.errors import SourceError
from corpus.pipeline.humanize import plain_text, shown_url
from corpus.pipeline.manifest import CORPORA, DATA_SUFFIXES, DATASETS, Manifest
from corpus.pipeline.progress import SILENT, Progress

_UNFINISHED = (PART_SUFFIX, ".crdownload", ".download", ".tmp", ".aria2")
_HINT = "Name a folder, an archive, or the URL of the archive's folder with --source."


class DatasetNotFoundError(SourceError):
    """The source exists, but does not contain this dataset."""


def resolve(
    source: str, manifest: Manifest, client: HttpClient, *, exclude: Path | None = None, progress: Progress = SILENT
) -> DownloadSource:
    """The files of a dataset at `source`; `exclude` is the workspace's `raw` folder, which is not searched.

    Raises:
        DatasetNotFoundError: the source exists, but does not contain this dataset.
        SourceError: the source does not exist, or cannot be read.
        DownloadError: a server does not answer.

    """
    location, single = _open(source, manifest, client, exclude, progress)
    files, base = ([single], location) if single is not None else _search(location, manifest)
    if not files:
        raise _not_found(location, manifest)
    place = GIVEN if isinstance(location, LocalFolder) else location.shown
    notes = []
    if isinstance(location, LocalFolder) and location.skipped:
        links = sorted(set(location.skipped))
        notes.append(f"{manifest.name}: {len(links)} links were not followed ({', '.join(map(plain_text, links[:3]))})")
    sums = _parse_sums(base.read_text("SHA256SUMS"))
    files = [replace(file, sha256=sums.get(file.path, sums.get(PurePosixPath(file.path).name))) for file in files]
    count = sum(file.sha256 is not None for file in files)
    if count:
        notes.append(f"{manifest.name}: checked against SHA256SUMS at the source: {count} of {len(files)} files")
    sizes = [file.bytes for file in files if file.bytes is not None]
    return DownloadSource(
        name=location.shown,
        origin=place if single is None else single.origin,
        files=tuple(sorted(files, key=lambda file: file.path)),
        bytes=sum(sizes) if len(sizes) == len(files) else None,
        notes=tuple(notes),
    )


def has_dataset(
    source: str,
    dataset: str,
    *,
    exclude: Path | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    progress: Progress = SILENT,
) -> bool:
    """Whether `source` contains a dataset, for a command that takes all datasets from one source.

    Raises:
        SourceError: the source does not exist, cannot be read, or is a file that may be any dataset.
        DownloadError: a server does not answer.

    """
    every = [manifests.load(name) for name in CORPORA]
    name = PurePosixPath(source.partition("?")[0]).name
    if names_one_file(source) and not any(name in _archives(one) or tail_of(one, source) for one in every):
        raise SourceError(f"{shown(source)} can be any dataset", hint="Name the dataset with --dataset.")
    with open_client(retry) as client:
        try:
            resolve(source, manifests.load(dataset), client, exclude=exclude, progress=progress)
        except DatasetNotFoundError:
            return False
    return True


def shown(source: str) -> str:
    """A source as messages show it: without user names, passwords and signatures."""
    return shown_url(source) if "://" in source else source


def is_remote(source: str) -> bool:
    """Whether `source` is a URL, other than file:// and local://."""
    return "://" in source and not re.match(r"(?i)(file|local)://", source)


def names_one_file(source: str) -> bool:
    """Whether `source` is a single file, and so at most one dataset."""
    if re.match(r"(?i)https?://", source):
        return bool(urlsplit(source).query) or _is_data(PurePosixPath(urlsplit(source).path).name)
    if is_remote(source):
        return _is_data(PurePosixPath(source).name)
    return Path(re.sub(r"(?i)^(file|local)://", "", source)).expanduser().is_file()


def tail_of(manifest: Manifest, path: str) -> str | None:
    """The part of a path that names a member of the dataset, also of a compressed or Parquet form of the member.

    >>> tail_of(manifests.load("baike2018qa"), "data/baike_qa_valid.json.gz")
    'baike_qa_valid.json'
    """
    plain = next((path.removesuffix(ending) for ending in PACKED_ENDINGS if path.endswith(ending)), path)
    hit = manifest.member_of(plain)
    if hit is None and manifest.name not in DATASETS and path.endswith(ARCHIVE_ENDINGS):
        return path  # a user's source may be a folder of archives
    return hit[1] if hit is not None else None


def _open(
    source: str, manifest: Manifest, client: HttpClient, exclude: Path | None, progress: Progress
) -> tuple[Location, RemoteFile | None]:
    """The location that `source` names; when that is a file, its parent location and the file."""
    if re.match(r"(?i)https?://", source):
        return _open_site(source, manifest, client, progress)
    if "://" in source:
        try:
            files, root = fsspec.core.url_to_fs(source)
        except Exception as error:  # fsspec's back-ends raise what their libraries raise
            raise SourceError(f"{shown_url(source)} cannot be opened: {plain_text(str(error))}", hint=_HINT) from error
        if not isinstance(files, LocalFileSystem):
            folder = FsspecPrefix(url=source.rpartition("/")[0], files=files, root=root.rpartition("/")[0])
            file = folder.get(PurePosixPath(root).name)
            if file is None:
                return replace(folder, url=source, root=root), None
            return folder, replace(file, path=_single_name(root, manifest))
        source = root
    with source_errors(plain_text(source)):
        return _open_local(Path(source).expanduser(), manifest, exclude)


def _open_local(path: Path, manifest: Manifest, exclude: Path | None) -> tuple[Location, RemoteFile | None]:
    if exclude is not None and path.resolve().is_relative_to(exclude.resolve()):
        hint = "Move the files elsewhere and name that folder with --source."
        raise SourceError(f"{path} belongs to the workspace", hint=hint)
    if path.is_dir():
        return LocalFolder(root=path, exclude=exclude), None
    if path.is_file():
        return LocalFolder(root=path.parent), local_file(path.resolve(), _single_name(path.as_posix(), manifest))
    raise SourceError(f"there is no {path}", hint=_HINT)


def _open_site(
    source: str, manifest: Manifest, client: HttpClient, progress: Progress
) -> tuple[Location, RemoteFile | None]:
    parts = urlsplit(source)
    name = unquote(PurePosixPath(parts.path).name)
    if not parts.query and not _is_data(name):
        return HttpPrefix(url=source, client=client, progress=progress), None
    name = _single_name(name, manifest) if _is_data(name) else manifest.archive or f"{manifest.name}.jsonl"
    location = HttpPrefix(url=source.partition("?")[0].rpartition("/")[0], client=client, progress=progress)
    file = location.at(source, name)
    if file is None:
        raise SourceError(f"{shown_url(source)}: {location.failures[shown_url(source)]}", hint=_HINT)
    return location, file


def _single_name(path: str, manifest: Manifest) -> str:
    """Name in `raw/<dataset>/` of a source that is a single file."""
    name = PurePosixPath(path).name
    tail = tail_of(manifest, path)
    other = next((other for other in map(manifests.load, CORPORA) if name in _archives(other)), manifest)
    if other.name != manifest.name:
        raise DatasetNotFoundError(f"{name} is the archive of {other.name}, not of {manifest.name}", hint=_HINT)
    if tail is None and not _is_data(name):
        message = f"{name} is neither an archive ({', '.join(ARCHIVE_ENDINGS)}) nor a file of {manifest.name}"
        raise DatasetNotFoundError(message, hint=_HINT)
    if manifest.name not in DATASETS:
        return plain_name(name)  # its folder is no part of the name
    return plain_name(name if tail is None else (PurePosixPath(tail).parent / name).as_posix())


def _search(location: Location, manifest: Manifest) -> tuple[list[RemoteFile], Location]:
    """The files of the dataset, and the location that their names are relative to."""
    inner = location.subfolder(manifest.name) if manifest.name in DATASETS else None
    places = [location] if inner is None else [location, inner]
    for base in places:
        for name in _archives(manifest):
            if file := base.get(name):
                return [file], base
    for base in reversed(places):
        if files := _members(base, manifest):
            return files, base
    return [], location


def _members(location: Location, manifest: Manifest) -> list[RemoteFile]:
    """Unpacked files: the shortest name of each member, and Parquet only where there is no other form."""
    chosen: dict[str, str] = {}
    listed = location.walk()
    for name in _fixed_names(manifest) if listed is None else listed:
        tail = tail_of(manifest, name)
        if tail is None or name.endswith(_UNFINISHED) or (listed is None and location.get(name) is None):
            continue
        other = chosen.get(tail)
        if other is not None and PurePosixPath(other).parent != PurePosixPath(name).parent:
            raise SourceError(
                f"{location.shown}: {tail} is there twice, as {other} and as {name}",
                hint="Name a folder with --source that contains each file once.",
            )
        chosen[tail] = name if other is None else min(other, name, key=lambda path: (len(path), path))
    names = list(chosen.values())
    if manifest.name in DATASETS:  # whose Parquet files are the same records in another form
        names = [name for name in names if not name.endswith(".parquet")] or names
    return [file for file in (location.get(plain_name(name)) for name in names) if file is not None]


def _archives(manifest: Manifest) -> tuple[str, ...]:
    """Possible names of the archive, the official one first."""
    if not manifest.archive:
        return ()
    stem = next((manifest.archive.removesuffix(e) for e in ARCHIVE_ENDINGS if manifest.archive.endswith(e)), "")
    return tuple(dict.fromkeys((manifest.archive, *(stem + ending for ending in ARCHIVE_ENDINGS))))


def _fixed_names(manifest: Manifest) -> Iterator[str]:
    """Names of unpacked files without wildcards, for a location that cannot be listed."""
    for member in manifest.members:
        if not re.search(r"[*?]", member.pattern):
            yield from (member.pattern, *(member.pattern + ending for ending in PACKED_ENDINGS))


def _parse_sums(text: str) -> dict[str, str]:
    """Checksums of a `SHA256SUMS` file by file name."""
    lines = (re.fullmatch(r"([0-9A-Fa-f]{64}) [ *](?:\./)?(.+)", line.rstrip()) for line in text.splitlines())
    return {line[2]: line[1].lower() for line in lines if line is not None}


def _is_data(name: str) -> bool:
    return re.sub(r"\.(gz|xz|zst)$", "", name).endswith(DATA_SUFFIXES) or name.endswith(ARCHIVE_ENDINGS)


def _not_found(location: Location, manifest: Manifest) -> DatasetNotFoundError:
    patterns = ", ".join(member.pattern for member in manifest.members)
    archive = f"{manifest.archive} (or {', '.join(ARCHIVE_ENDINGS[1:])}), " if manifest.archive else ""
    there = location.contents()
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    listed = f"{', '.join(map(plain_text, there[:5])) or 'nothing'}{more}"
    found = f"the server said {listed}" if isinstance(location, HttpPrefix) else f"found {listed}"
    skipped = sorted(set(location.skipped))[:3] if isinstance(location, LocalFolder) else []
    links = f"; links that lead out of it were not followed: {', '.join(map(plain_text, skipped))}" if skipped else ""
    return DatasetNotFoundError(
        f"{location.shown} does not contain {manifest.name}: "
        f"looked for {archive}{manifest.name}/ and unpacked {patterns}; {found}{links}",
        hint=f"{_HINT} It is published at {manifest.homepage}." if manifest.homepage else _HINT,
    )
