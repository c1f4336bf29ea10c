"""What is offered and what taking it costs, and the record of what has come from where.

In: a manifest, or `origin.json`. Out: `Offer`s in the order in which they are to be asked, a `Plan` for one of them,
and what an interrupted run has left that need not be brought again.
Invariants: `origin.json` names every file that this stage has put into the folder, from before it appears there; it
holds URLs without secrets and no path of this machine.
Cost: a kept file is read once to prove that it is the one that came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from corpus.pipeline.download.http_client import Web, hub, shown_url
from corpus.pipeline.download.remote_file import Arrival, File, Stamp, seeking_opener
from corpus.pipeline.download.transfer import Part, can_link, check_room
from corpus.pipeline.humanize import size_text
from corpus.pipeline.manifest import BUILT_IN, Manifest
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
PACKED_ENDINGS = (".gz", ".xz", ".zst")
DOCUMENTS_PER_PACKED_BYTE = 1.25
"""Bytes of documents (Parquet, zstd) for each byte of a zip archive; measured on the five formats: 1.20 to 1.27."""
DOCUMENTS_PER_PLAIN_BYTE = 0.5
"""The same for unpacked records: 0.43 to 0.50."""
OFFICIAL = "official"
ORIGIN = "origin.json"
_PACKAGE = "the package"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """Files that together are a dataset, from one place."""

    name: str
    """What messages call the place."""
    origin: str
    """What `origin.json` calls it: "official", a URL, or "given"."""
    files: tuple[File, ...]
    bytes: int | None
    """Size of all files, where it is known, perhaps rounded."""
    notes: tuple[str, ...] = ()
    """What a user should know of what was taken and left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a download would do."""

    dataset: str
    place: str
    """Where from: a mirror's name, a URL or a folder."""
    files: tuple[str, ...]
    """Names in `raw/<dataset>/`."""
    bytes: int | None
    """Size of all files, where it is known, perhaps rounded."""
    new_bytes: int
    """How much of that must still be written; nothing for files that can be linked."""
    document_bytes: int
    """A rough estimate of what the documents will take."""
    free_bytes: int
    """Room on the workspace's disk."""

    def __str__(self) -> str:
        """One sentence for people."""
        others = len(self.files) - 1
        more = f" and {others} more file{'s' if others > 1 else ''}" if others else ""
        size = f", {size_text(self.bytes)}" if self.bytes else ""
        need = size_text(self.new_bytes + self.document_bytes)
        return (
            f"{self.dataset}: {self.files[0]}{more}{size}, from {self.place}; "
            f"needs about {need} on disk ({size_text(self.new_bytes)} to bring, {size_text(self.document_bytes)} for "
            f"the documents), {size_text(self.free_bytes)} are free"
        )


class Origin:
    """`origin.json` of one dataset."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.source = ""
        """What the finished files came from, as an offer calls it."""
        self._files: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, AttributeError, TypeError):
            loaded = json.loads((folder / ORIGIN).read_bytes())
            self.source = str(loaded["source"])
            self._files = {str(path): dict(entry) for path, entry in loaded["files"].items()}

    @property
    def paths(self) -> set[str]:
        """Every file that this stage has put into the folder, or was about to."""
        return set(self._files)

    def expect(self, offer: Offer) -> None:
        """Note what is about to be brought; the source stays that of what is finished."""
        for file in offer.files:
            self._files.setdefault(file.path, {"from": file.origin})
        self.save()

    def kept(self, file: File, workspace: Workspace) -> Arrival | None:
        """A file that an earlier run has brought from the same place, if it is still what came."""
        entry = self._files.get(file.path, {})
        target = self._folder / file.path
        is_same = entry.get("from") == file.origin and (not file.tag or entry.get("etag") == file.tag)
        if not is_same or "sha256" not in entry or not target.is_file() or target.stat().st_size != entry.get("bytes"):
            return None
        if workspace.digest(target) != entry["sha256"] or file.sha256 not in {None, entry["sha256"]}:
            return None
        stamp = Stamp(etag=str(entry.get("etag", "")), modified=str(entry.get("modified", "")))
        return Arrival(
            path=file.path, origin=file.origin, bytes=entry["bytes"], sha256=entry["sha256"], stamp=stamp
        )  # fmt: skip

    def note(self, arrival: Arrival) -> None:
        """Note what has come; `save` writes it down."""
        entry = {"from": arrival.origin, "bytes": arrival.bytes, "sha256": arrival.sha256}
        extra = {"etag": arrival.stamp.etag, "modified": arrival.stamp.modified}
        self._files[arrival.path] = {**entry, **{key: value for key, value in extra.items() if value}}

    def finish(self, offer: Offer, paths: set[str]) -> None:
        """Write down that `paths` are all, and that they came from this offer."""
        self.source = offer.origin
        self._files = {path: entry for path, entry in self._files.items() if path in paths}
        self.save()

    def save(self) -> None:
        """Write it down."""
        values = {"source": self.source, "files": self._files}
        write_atomic(self._folder / ORIGIN, (json.dumps(values, sort_keys=True, indent=2) + "\n").encode())


def estimate(offer: Offer, manifest: Manifest, origin: Origin, workspace: Workspace) -> Plan:
    """What taking an offer would cost."""
    folder = workspace.raw(manifest.name)
    size = offer.bytes if offer.bytes is not None else manifest.archive_bytes
    is_packed = offer.files[0].path.endswith((*ARCHIVE_ENDINGS, *PACKED_ENDINGS, ".parquet"))
    there = sum(Part(folder / file.path).bytes for file in offer.files)
    there += sum(arrival.bytes for file in offer.files if (arrival := origin.kept(file, workspace)))
    return Plan(
        dataset=manifest.name,
        place=offer.name,
        files=tuple(file.path for file in offer.files),
        bytes=offer.bytes,
        new_bytes=0 if all(can_link(file, folder) for file in offer.files) else max(0, size - there),
        document_bytes=int(size * (DOCUMENTS_PER_PACKED_BYTE if is_packed else DOCUMENTS_PER_PLAIN_BYTE)),
        free_bytes=check_room(folder, 0, manifest.name),
    )


def own_offers(manifest: Manifest, web: Web) -> Iterator[Offer]:
    """The manifest's mirrors in order, or what comes with the package."""
    if manifest.name == BUILT_IN:
        files = package_files(manifest)
        yield Offer(name=_PACKAGE, origin=OFFICIAL, files=files, bytes=sum(file.bytes or 0 for file in files))
    for mirror in manifest.mirrors:
        files = tuple(_mirror_file(url.replace("{hub}", hub()), manifest, web) for url in mirror.files)
        yield Offer(name=mirror.name, origin=OFFICIAL, files=files, bytes=manifest.archive_bytes or None)


def package_files(manifest: Manifest) -> tuple[File, ...]:
    """The files of the built-in dataset."""
    folder = resources("corpus.manifests") / manifest.name
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return tuple(_package_file(entry) for entry in entries if manifest.member_of(entry.name) is not None)


def _package_file(resource: Traversable) -> File:
    data = resource.read_bytes()
    stamp = Stamp(etag=hashlib.sha256(data).hexdigest(), total=len(data))
    shown = f"{resource.name} in {_PACKAGE}"
    return File(
        path=resource.name,
        shown=shown,
        origin=_PACKAGE,
        opener=seeking_opener(lambda: resource.open("rb"), lambda: stamp, shown),
        bytes=stamp.total,
        sha256=stamp.etag,
        tag=stamp.etag,
    )


def _mirror_file(url: str, manifest: Manifest, web: Web) -> File:
    """A file of a mirror. Manifests bind official members, so a member that lies there by itself is bound."""
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    hit = manifest.member_of(name)
    if hit is None and not name.endswith(ARCHIVE_ENDINGS):
        name = manifest.archive
    sha256 = hit[0].sha256 if hit is not None else None
    return File(path=name, shown=shown_url(url), origin=shown_url(url), opener=web.opener(url), sha256=sha256)
