"""What --source means: a folder, an archive, unpacked files or a URL in, the files to bring into `raw/<dataset>/` out.

In: the text that a user typed, and a manifest. Out: an `Offer`, or SourceError with what was looked for and what is
there.
Invariants: every name from a source is a plain relative path; of two forms of one file (plain and packed) one is
taken; an archive goes before unpacked files. Nothing is opened but a `SHA256SUMS`, which binds the files that it
names.
Cost: one walk of a local folder, one listing of a bucket, a few dozen short requests to a web server, which cannot be
listed.
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
from corpus.pipeline.download.http_client import Web, connected, shown_url
from corpus.pipeline.download.locations import Bucket, Folder, Place, Site, looking
from corpus.pipeline.download.offers import ARCHIVE_ENDINGS, PACKED_ENDINGS, Offer
from corpus.pipeline.download.remote_file import PART, File, local_file
from corpus.pipeline.download.retry import PATIENCE, Patience
from corpus.pipeline.errors import SourceError
from corpus.pipeline.humanize import plain_text
from corpus.pipeline.manifest import CORPORA, Manifest
from corpus.pipeline.progress import SILENT, Progress

_DATA_ENDINGS = (".json", ".jsonl", ".txt", ".parquet")
_UNFINISHED = (PART, ".crdownload", ".download", ".tmp", ".aria2")
_HINT = "Give --source a folder, an archive, or a URL under which the archive lies."
_NAME_BYTES = 200
_PATH_BYTES = 1000


class AbsentError(SourceError):
    """The place is there, but does not hold this dataset."""


def resolve(
    source: str, manifest: Manifest, web: Web, *, exclude: Path | None = None, progress: Progress = SILENT
) -> Offer:
    """What `source` offers of a dataset; `exclude` is the workspace's `raw` folder, in which nothing is looked for.

    Raises:
        AbsentError: the place is there, but this dataset is not in it.
        SourceError: the place is not there, or cannot be read.
        DownloadError: a server does not answer.

    """
    place, single = _open(source, manifest, web, exclude, progress)
    if single is not None:
        files, base = [single], place
    else:
        files, base = _search(place, manifest)
    if not files:
        raise _nothing(place, manifest)
    notes = []
    if isinstance(place, Folder) and place.skipped:
        links = sorted(set(place.skipped))
        notes.append(f"{manifest.name}: {len(links)} links were not followed ({', '.join(map(plain_text, links[:3]))})")
    sums = _sums(base.text("SHA256SUMS"))
    bound = [replace(file, sha256=sums.get(file.path, sums.get(PurePosixPath(file.path).name))) for file in files]
    count = sum(file.sha256 is not None for file in bound)
    if count:
        notes.append(f"{manifest.name}: bound by SHA256SUMS at the source: {count} of {len(bound)} files")
    sizes = [file.bytes for file in bound if file.bytes is not None]
    return Offer(
        name=place.shown,
        origin=files[0].origin if single is not None else place.origin,
        files=tuple(sorted(bound, key=lambda file: file.path)),
        bytes=sum(sizes) if len(sizes) == len(bound) else None,
        notes=tuple(notes),
    )


def found_in(
    source: str,
    dataset: str,
    *,
    exclude: Path | None = None,
    patience: Patience = PATIENCE,
    progress: Progress = SILENT,
) -> bool:
    """Whether `source` holds a dataset, for a command that takes all of them from one place.

    Raises:
        SourceError: the place itself is not there, cannot be read, or is a file that does not say of which dataset.
        DownloadError: a server does not answer.

    """
    every = [manifests.load(name) for name in CORPORA]
    name = PurePosixPath(source.partition("?")[0]).name
    if names_one_file(source) and not any(name in _archives(one) or tail_of(one, source) for one in every):
        raise SourceError(f"{shown(source)} can be any dataset", hint="Say which it is, with --dataset.")
    with connected(patience) as web:
        try:
            resolve(source, manifests.load(dataset), web, exclude=exclude, progress=progress)
        except AbsentError:
            return False
    return True


def shown(source: str) -> str:
    """What messages call a source: without user names, passwords and signatures."""
    return shown_url(source) if "://" in source else source


def is_remote(source: str) -> bool:
    """Whether `source` is a URL of anything but this machine's own disks."""
    return "://" in source and not re.match(r"(?i)(file|local)://", source)


def names_one_file(source: str) -> bool:
    """Whether `source` is a single file, so that it can be one dataset only."""
    if re.match(r"(?i)https?://", source):
        return bool(urlsplit(source).query) or _is_data(PurePosixPath(urlsplit(source).path).name)
    if is_remote(source):
        return _is_data(PurePosixPath(source).name)
    return Path(re.sub(r"(?i)^(file|local)://", "", source)).expanduser().is_file()


def tail_of(manifest: Manifest, path: str) -> str | None:
    """The tail by which a file is a member of the dataset, also when it is packed by itself or was made a Parquet file.

    >>> tail_of(manifests.load("baike2018qa"), "data/baike_qa_valid.json.gz")
    'baike_qa_valid.json'
    """
    plain = next((path.removesuffix(ending) for ending in PACKED_ENDINGS if path.endswith(ending)), path)
    stem = path.removesuffix(".parquet")
    for name in dict.fromkeys((plain, stem, f"{stem}.json")):
        hit = manifest.member_of(name)
        if hit is not None:
            return hit[1]
    return None


def _open(
    source: str, manifest: Manifest, web: Web, exclude: Path | None, progress: Progress
) -> tuple[Place, File | None]:
    """The place that `source` names; when that is a file, the file and the place around it."""
    if re.match(r"(?i)https?://", source):
        return _open_site(source, manifest, web, progress)
    if "://" in source:
        try:
            files, root = fsspec.core.url_to_fs(source)
        except Exception as error:  # fsspec's back-ends raise what their libraries raise
            raise SourceError(f"{shown_url(source)} cannot be opened: {plain_text(str(error))}", hint=_HINT) from error
        if not isinstance(files, LocalFileSystem):
            return _open_bucket(Bucket(url=source, files=files, root=root), manifest)
        source = root
    with looking(plain_text(source)):
        return _open_local(Path(source).expanduser(), manifest, exclude)


def _open_local(path: Path, manifest: Manifest, exclude: Path | None) -> tuple[Place, File | None]:
    if exclude is not None and path.resolve().is_relative_to(exclude.resolve()):
        raise SourceError(
            f"{path} is the workspace's own", hint="Move the files elsewhere and give that place with --source."
        )
    if path.is_dir():
        return Folder(root=path, exclude=exclude), None
    if path.is_file():
        return Folder(root=path.parent), local_file(path.resolve(), _single_name(path.as_posix(), manifest))
    raise SourceError(f"there is no {path}", hint=_HINT)


def _open_site(source: str, manifest: Manifest, web: Web, progress: Progress) -> tuple[Place, File | None]:
    parts = urlsplit(source)
    name = unquote(PurePosixPath(parts.path).name)
    if not parts.query and not _is_data(name):
        return Site(url=source, web=web, progress=progress), None
    name = _single_name(name, manifest) if _is_data(name) else manifest.archive
    place = Site(url=source.partition("?")[0].rpartition("/")[0], web=web, progress=progress)
    file = place.at(source, name)
    if file is None:
        raise SourceError(f"{shown_url(source)}: {place.said[shown_url(source)]}", hint=_HINT)
    return place, file


def _open_bucket(bucket: Bucket, manifest: Manifest) -> tuple[Place, File | None]:
    around = Bucket(url=bucket.url.rpartition("/")[0], files=bucket.files, root=bucket.root.rpartition("/")[0])
    file = around.get(PurePosixPath(bucket.root).name)
    return (bucket, None) if file is None else (around, replace(file, path=_single_name(bucket.root, manifest)))


def _single_name(path: str, manifest: Manifest) -> str:
    """Name in `raw/` of a file that was given by itself."""
    name = PurePosixPath(path).name
    tail = tail_of(manifest, path)
    other = next((other for other in map(manifests.load, CORPORA) if name in _archives(other)), manifest)
    if other.name != manifest.name:
        raise AbsentError(f"{name} is the archive of {other.name}, not of {manifest.name}", hint=_HINT)
    if tail is None and not _is_data(name):
        raise AbsentError(
            f"{name} is neither an archive ({', '.join(ARCHIVE_ENDINGS)}) nor a file of {manifest.name}", hint=_HINT
        )
    return _checked(name if tail is None else (PurePosixPath(tail).parent / name).as_posix())


def _search(place: Place, manifest: Manifest) -> tuple[list[File], Place]:
    """The files of the dataset in a place, and the folder that they are named from."""
    inner = place.below(manifest.name)
    places = [place] if inner is None else [place, inner]
    for base in places:
        for name in _archives(manifest):
            file = base.get(name)
            if file is not None:
                return [file], base
    for base in reversed(places):
        files = _members(base, manifest)
        if files:
            return files, base
    return [], place


def _members(place: Place, manifest: Manifest) -> list[File]:
    """Unpacked files: of two forms of one the plainer, and Parquet only where there is nothing else."""
    chosen: dict[str, str] = {}
    listed = place.walk()
    for name in _askable(manifest) if listed is None else listed:
        tail = tail_of(manifest, name)
        if tail is None or name.endswith(_UNFINISHED) or (listed is None and place.get(name) is None):
            continue
        other = chosen.get(tail)
        if other is not None and PurePosixPath(other).parent != PurePosixPath(name).parent:
            raise SourceError(
                f"{place.shown}: {tail} is there twice, as {other} and as {name}",
                hint="Give --source a folder that holds each file once.",
            )
        chosen[tail] = name if other is None else min(other, name, key=lambda path: (len(path), path))
    names = [name for name in chosen.values() if not name.endswith(".parquet")] or list(chosen.values())
    return [file for file in (place.get(_checked(name)) for name in names) if file is not None]


def _archives(manifest: Manifest) -> tuple[str, ...]:
    """Names that the archive may have, the official one first."""
    if not manifest.archive:
        return ()
    stem = next((manifest.archive.removesuffix(e) for e in ARCHIVE_ENDINGS if manifest.archive.endswith(e)), "")
    return tuple(dict.fromkeys((manifest.archive, *(stem + ending for ending in ARCHIVE_ENDINGS))))


def _askable(manifest: Manifest) -> Iterator[str]:
    """Names of unpacked files that can be asked for without a listing."""
    for member in manifest.members:
        if not re.search(r"[*?]", member.pattern):
            yield from (member.pattern, *(member.pattern + ending for ending in PACKED_ENDINGS))


def _sums(text: str) -> dict[str, str]:
    """What a `SHA256SUMS` says, by name."""
    lines = (re.fullmatch(r"([0-9A-Fa-f]{64}) [ *](?:\./)?(.+)", line.rstrip()) for line in text.splitlines())
    return {line[2]: line[1].lower() for line in lines if line is not None}


def _is_data(name: str) -> bool:
    return re.sub(r"\.(gz|xz|zst)$", "", name).endswith(_DATA_ENDINGS) or name.endswith(ARCHIVE_ENDINGS)


def _checked(name: str) -> str:
    """The name, if it can be one below `raw/<dataset>/`."""
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or not name.isprintable() or "\\" in name:
        raise SourceError(f"{name!r} is not a plain relative name", hint="Rename the file, or do not use this source.")
    if len(name.encode()) > _PATH_BYTES or any(len(part.encode()) > _NAME_BYTES for part in parts):
        raise SourceError(f"{name[:60]}...: the name is too long", hint="Rename the file or its folders.")
    return name


def _nothing(place: Place, manifest: Manifest) -> AbsentError:
    patterns = ", ".join(member.pattern for member in manifest.members)
    archive = f"{manifest.archive} (or {', '.join(ARCHIVE_ENDINGS[1:])}), " if manifest.archive else ""
    there = place.seen()
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    listed = f"{', '.join(map(plain_text, there[:5])) or 'nothing'}{more}"
    found = f"the server said {listed}" if isinstance(place, Site) else f"found {listed}"
    skipped = sorted(set(place.skipped))[:3] if isinstance(place, Folder) else []
    links = f"; links that lead out of it were not followed: {', '.join(map(plain_text, skipped))}" if skipped else ""
    return AbsentError(
        f"{place.shown} does not hold {manifest.name}: "
        f"looked for {archive}{manifest.name}/ and unpacked {patterns}; {found}{links}",
        hint=f"{_HINT} It is offered at {manifest.homepage}." if manifest.homepage else _HINT,
    )
