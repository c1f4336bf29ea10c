"""Where a dataset can be downloaded from, what a download needs, and the record of downloaded files.

In: a manifest, or `origin.json`.
Out: `DownloadSource`s in order of preference, a `DownloadPlan` for one of them, and the complete files that an
interrupted run has left.
Invariants: `origin.json` names each file before it appears in the folder. It contains URLs without secrets and no path
of this machine.
Cost: a reused file is read once to check its digest.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from corpus.pipeline.download.http_client import HttpClient, hub_url
from corpus.pipeline.download.remote_file import DownloadedFile, FileVersion, RemoteFile, seeking_opener
from corpus.pipeline.download.transfer import PartialFile, can_link, check_free_space
from corpus.pipeline.errors import SourceError
from corpus.pipeline.humanize import shown_url, size_text
from corpus.pipeline.manifest import BUILT_IN, Manifest
from corpus.pipeline.store.references import refer
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import REFERENCE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
PACKED_ENDINGS = (".gz", ".xz", ".zst")
DOCUMENTS_PER_PACKED_BYTE = 1.25
"""Bytes of documents (Parquet, zstd) for each byte of a zip archive; measured on the five formats: 1.20 to 1.27."""
DOCUMENTS_PER_PLAIN_BYTE = 0.5
"""The same for unpacked records: 0.43 to 0.50."""
OFFICIAL = "official"
ORIGIN = "origin.json"
_NAME_BYTES = 200
_PATH_BYTES = 1000
_PACKAGE = "the package"


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadSource:
    """The files of a dataset at one location."""

    name: str
    """Its name in messages."""
    origin: str
    """Its name in `origin.json`: "official", a URL, or "given"."""
    files: tuple[RemoteFile, ...]
    bytes: int | None
    """Size of all files, where known, perhaps rounded."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadPlan:
    """What a download needs."""

    dataset: str
    place: str
    """A mirror's name, a URL or a folder."""
    files: tuple[str, ...]
    """Names in `raw/<dataset>/`."""
    bytes: int | None
    """Size of all files, where known, perhaps rounded."""
    new_bytes: int
    """How much is still to be written; 0 for files that can be hard-linked."""
    document_bytes: int
    """Estimated size of the documents."""
    free_bytes: int
    linked: bool
    """Whether the files become hard links in `raw/<dataset>/` instead of copies."""

    def __str__(self) -> str:
        others = len(self.files) - 1
        more = f" and {others} more file{'s' if others > 1 else ''}" if others else ""
        size = f", {size_text(self.bytes)}" if self.bytes else ""
        need, free = size_text(self.new_bytes + self.document_bytes), f"{size_text(self.free_bytes)} are free"
        begin = f"{self.dataset}: {self.files[0]}{more}{size}, from {self.place}; needs about {need} on disk"
        if self.linked:
            link = f"raw/{self.dataset}/ holds hard links, not copies: an edit of one of these files changes both"
            return f"{begin}, for the documents; {free}. {link}"
        if not self.new_bytes:
            return f"{begin}, for the documents; nothing is left to download; {free}"
        parts = f"{size_text(self.new_bytes)} to download, {size_text(self.document_bytes)} for the documents"
        return f"{begin} ({parts}), {free}"


class OriginRecord:
    """`origin.json` of one dataset: where each file was downloaded from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.source = ""
        """Origin of the finished download."""
        self.files: dict[str, dict[str, Any]] = {}
        """Every file that this stage has written into the folder, or was about to write."""
        self.arrivals: list[list[str]] = []
        """The files of each finished download that brought new ones, in order."""
        with suppress(OSError, ValueError, AttributeError, TypeError):
            loaded = json.loads((folder / ORIGIN).read_bytes())
            self.source = str(loaded["source"])
            self.files = {str(path): dict(entry) for path, entry in loaded["files"].items()}
            self.arrivals = [list(map(str, paths)) for paths in loaded.get("arrivals", [])]

    def add_expected(self, candidate: DownloadSource) -> None:
        """Add the files of a download that begins. `source` stays that of the finished download."""
        for file in candidate.files:
            self.files.setdefault(file.path, {"from": file.origin})
        self.save()

    def reusable(self, file: RemoteFile, workspace: Workspace) -> DownloadedFile | None:
        """A file that an earlier run downloaded from the same URL, if it is unchanged on disk."""
        entry = self.files.get(file.path, {})
        target = self._folder / file.path
        is_same = entry.get("from") == file.origin and (not file.tag or entry.get("etag") == file.tag)
        if not is_same or "sha256" not in entry or not target.is_file() or target.stat().st_size != entry.get("bytes"):
            return None
        if workspace.digest(target) != entry["sha256"] or file.sha256 not in {None, entry["sha256"]}:
            return None
        version = FileVersion(etag=str(entry.get("etag", "")), modified=str(entry.get("modified", "")))
        return DownloadedFile(
            path=file.path, origin=file.origin, bytes=entry["bytes"], sha256=entry["sha256"], version=version
        )

    def add(self, downloaded: DownloadedFile) -> None:
        """Add a complete file; `save` writes the record."""
        entry = {"from": downloaded.origin, "bytes": downloaded.bytes, "sha256": downloaded.sha256}
        extra = {"etag": downloaded.version.etag, "modified": downloaded.version.modified}
        self.files[downloaded.path] = {**entry, **{key: value for key, value in extra.items() if value}}

    def finish(self, candidate: DownloadSource, paths: set[str], *, grows: bool) -> None:
        """Record that the download from `candidate` is complete, its `paths`, and with `grows` their order."""
        self.source = candidate.origin
        self.files = {path: entry for path, entry in self.files.items() if path in paths}
        if grows:
            known = {path for arrived in self.arrivals for path in arrived}
            arrivals = [[path for path in arrived if path in paths] for arrived in self.arrivals]
            self.arrivals = [arrived for arrived in (*arrivals, sorted(paths - known)) if arrived]
        self.save()

    def save(self) -> None:
        """Write `origin.json`."""
        values = {"source": self.source, "files": self.files} | ({"arrivals": self.arrivals} if self.arrivals else {})
        write_atomic(self._folder / ORIGIN, (json.dumps(values, sort_keys=True, indent=2) + "\n").encode())


def estimate(candidate: DownloadSource, manifest: Manifest, origin: OriginRecord, workspace: Workspace) -> DownloadPlan:
    """The plan of a download from `candidate`."""
    folder = workspace.raw(manifest.name)
    size = candidate.bytes if candidate.bytes is not None else manifest.archive_bytes
    is_packed = candidate.files[0].path.endswith((*ARCHIVE_ENDINGS, *PACKED_ENDINGS, ".parquet"))
    linked = all(can_link(file, folder) for file in candidate.files)
    there = sum(PartialFile(folder / file.path).bytes for file in candidate.files)
    there += sum(downloaded.bytes for file in candidate.files if (downloaded := origin.reusable(file, workspace)))
    return DownloadPlan(
        dataset=manifest.name,
        place=candidate.name,
        files=tuple(file.path for file in candidate.files),
        bytes=candidate.bytes,
        new_bytes=0 if linked else max(0, size - there),
        linked=linked,
        document_bytes=int(size * (DOCUMENTS_PER_PACKED_BYTE if is_packed else DOCUMENTS_PER_PLAIN_BYTE)),
        free_bytes=check_free_space(folder, 0, manifest.name),
    )


def official_sources(manifest: Manifest, client: HttpClient) -> Iterator[DownloadSource]:
    """The manifest's mirrors in order, or the files in the package."""
    if manifest.name == BUILT_IN:
        files = package_files(manifest)
        yield DownloadSource(name=_PACKAGE, origin=OFFICIAL, files=files, bytes=sum(file.bytes or 0 for file in files))
    for mirror in manifest.mirrors:
        files = tuple(_mirror_file(url.replace("{hub}", hub_url()), manifest, client) for url in mirror.files)
        if len({file.path for file in files}) < len(files):
            names = ", ".join(sorted(file.path for file in files))
            raise SourceError(f"{manifest.name}: two files of mirror {mirror.name} have one name: {names}")
        yield DownloadSource(name=mirror.name, origin=OFFICIAL, files=files, bytes=manifest.archive_bytes or None)


def referred(source: DownloadSource) -> DownloadSource:
    """The same files as references: each is small, and says where a file is.

    Raises:
        StoreError: a file cannot be read there, or only by a signature in the URL.

    """
    files = tuple(map(_reference_file, source.files))
    size = size_text(source.bytes) if source.bytes else "their bytes"
    note = f"{len(files)} files stay at {source.name}; {size} are read there"
    return replace(source, files=files, bytes=sum(file.bytes or 0 for file in files), notes=(note,))


def _reference_file(file: RemoteFile) -> RemoteFile:
    data = refer(file.shown).to_json()
    version = FileVersion(etag=hashlib.sha256(data).hexdigest(), total=len(data))
    return RemoteFile(
        path=f"{file.path}{REFERENCE}", shown=file.shown, origin=file.origin, bytes=len(data), sha256=version.etag,
        tag=version.etag, opener=seeking_opener(lambda: io.BytesIO(data), lambda: version, file.shown),
    )  # fmt: skip


def plain_name(name: str) -> str:
    """A relative path, if it is valid below `raw/<dataset>/`.

    Raises:
        SourceError: it leads elsewhere, is too long, or is a name that the workspace itself uses there.

    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or not name.isprintable() or "\\" in name:
        raise SourceError(f"{name!r} is not a plain relative file name", hint="Rename the file, or use another source.")
    if len(name.encode()) > _PATH_BYTES or any(len(part.encode()) > _NAME_BYTES for part in parts):
        raise SourceError(f"{name[:60]}...: the name is too long", hint="Rename the file or its folders.")
    if name in {LEDGER, ORIGIN, "timings.json"}:
        raise SourceError(f"{name} is a name that the workspace uses itself", hint="Rename the file.")
    return name


def package_files(manifest: Manifest) -> tuple[RemoteFile, ...]:
    """The files of the built-in dataset."""
    folder = resources("corpus.manifests") / manifest.name
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return tuple(_package_file(entry) for entry in entries if manifest.member_of(entry.name) is not None)


def _package_file(resource: Traversable) -> RemoteFile:
    data = resource.read_bytes()
    version = FileVersion(etag=hashlib.sha256(data).hexdigest(), total=len(data))
    shown = f"{resource.name} in {_PACKAGE}"
    return RemoteFile(
        path=resource.name,
        shown=shown,
        origin=_PACKAGE,
        opener=seeking_opener(lambda: resource.open("rb"), lambda: version, shown),
        bytes=version.total,
        sha256=version.etag,
        tag=version.etag,
    )


def _mirror_file(url: str, manifest: Manifest, client: HttpClient) -> RemoteFile:
    """A file of a mirror, with the manifest's checksum when it is an unpacked member."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    packed = next((ending for ending in PACKED_ENDINGS if name.endswith(ending)), "")
    hit = manifest.member_of(name.removesuffix(packed))
    if hit is None and not name.endswith(ARCHIVE_ENDINGS):
        name = manifest.archive or name
    name = plain_name(name)
    sha256 = hit[0].sha256 if hit is not None else None
    return RemoteFile(path=name, shown=shown_url(url), origin=shown_url(url), opener=client.opener(url), sha256=sha256)
