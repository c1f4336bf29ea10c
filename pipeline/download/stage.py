"""The download stage: a dataset's files, from its mirrors or from --source, into `raw/<dataset>/`.

In: a manifest, or the place that --source names. Out: the archives or files unchanged, `origin.json` (where they came
from) and the ledger.
Invariants: a file appears under its own name only when it is whole and matches its checksum; the ledger names bytes,
never places, so the same bytes from another place give the same ledger; an interrupted download is resumed.
Cost: each file is streamed once; local files are hard-linked where the disk allows and read once for their digest.

A finished stage is skipped without a request; a local --source is compared by digest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from corpus.pipeline.download import planning
from corpus.pipeline.download.http_client import HttpClient, open_client
from corpus.pipeline.download.planning import OFFICIAL, DownloadPlan, DownloadSource, OriginRecord
from corpus.pipeline.download.remote_file import GIVEN, PART_SUFFIX, DownloadedFile, RemoteFile
from corpus.pipeline.download.retry import DEFAULT_RETRY, RetryPolicy
from corpus.pipeline.download.source import is_remote, resolve
from corpus.pipeline.download.transfer import check_free_space, fetch
from corpus.pipeline.errors import DownloadError, SourceError, WorkspaceError
from corpus.pipeline.humanize import shown_url
from corpus.pipeline.manifest import BUILT_IN, DATASETS, Manifest
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.files import disk_errors
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, Report, differences, read_ledger
from corpus.pipeline.workspace.stage import StageRun

STAGE = "download"
VERSION = 1
_SAVE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """Which dataset to download, and from where."""

    dataset: str
    source: str | None = None
    """A folder, an archive, unpacked files or a URL; None: the finished files, else the manifest's mirrors."""
    by_reference: bool = False
    """Whether the files stay at the source, a URL, and `raw/` gets references to them."""

    def __post_init__(self) -> None:
        if self.source is not None and not self.source.strip():
            raise ValueError("--source must name a folder, an archive or a URL, is empty")
        if self.by_reference and not (self.source and is_remote(self.source)):
            raise ValueError(
                "--by-reference must stand with --source URL, where the files stay, such as s3://bucket/folder; "
                "files of a path or file:// are taken without --by-reference"
            )


def run(
    config: DownloadConfig,
    workspace: Workspace,
    *,
    progress: Progress = SILENT,
    manifest: Manifest | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> Report:
    """Download a dataset's files into the workspace; the caller holds `workspace.writing()`.

    `manifest` is the dataset's own when left out.

    Raises:
        DownloadError: the given URL, or every mirror, failed.
        ChecksumError: a file has another digest than expected.
        SourceError: --source does not hold the dataset.
        DiskError: there is not enough room, or the disk refused.
        WorkspaceError: files from an earlier --source are gone, and no --source was given.

    """
    with open_client(retry) as client:
        job = _Job(config, manifest or workspace.manifest(config.dataset), workspace, client, progress)
        if report := job.stage.skipped():
            return report
        candidate, downloads = job.fetch_first()
    return job.finish(candidate, downloads)


def plan(config: DownloadConfig, workspace: Workspace, *, progress: Progress = SILENT) -> DownloadPlan | None:
    """What `run` would do; None when it would be skipped. Makes requests only for a --source that is a URL.

    Raises:
        SourceError, DownloadError, WorkspaceError: as `run` does.

    """
    with open_client(DEFAULT_RETRY) as client:
        job = _Job(config, workspace.manifest(config.dataset), workspace, client, progress)
        return None if job.stage.is_current else job.plan(job.candidates[0])


class _Job:
    """The download of one dataset."""

    def __init__(
        self, config: DownloadConfig, manifest: Manifest, workspace: Workspace, client: HttpClient, progress: Progress
    ) -> None:
        self.source = config.source or workspace.source_of(manifest.name)
        self.is_own = manifest.name not in DATASETS
        self._is_given = config.source is not None
        self.by_reference = config.by_reference
        self.manifest = manifest
        self.workspace = workspace
        self.client = client
        self.progress = progress
        self.folder = workspace.raw(self.manifest.name)
        self.origin = OriginRecord(self.folder)
        self._unsaved_bytes = 0
        origin: str | None = OFFICIAL if self.source is None else GIVEN
        if self.source is None and (before := read_ledger(self.folder)):
            origin = before.config.get("source")  # finished files may have come from a --source
        self.stage = StageRun(
            workspace, self.folder, stage=STAGE, version=VERSION, dataset=self.manifest.name,
            config={"source": origin}, inputs=[], by_size=True, progress=progress,
        )  # fmt: skip
        self._compare_source()

    @cached_property
    def candidates(self) -> list[DownloadSource]:
        """The places to try, in order."""
        if self.source is None and not self.manifest.mirrors and self.manifest.name != BUILT_IN:
            raise SourceError(
                f"{self.manifest.name}: its manifest names neither a source nor a mirror",
                hint="Give the files with --source, or write `source = ...` into the manifest.",
            )
        if self.source is None:
            return list(planning.official_sources(self.manifest, self.client))
        exclude = self.workspace.root / "raw"
        found = resolve(self.source, self.manifest, self.client, exclude=exclude, progress=self.progress)
        return [planning.referred(found) if self.by_reference else found]

    def _compare_source(self) -> None:
        """Add to the reasons what has changed at the source; without --source, its files must still be there."""
        before, reasons, source = self.stage.before, self.stage.reasons, self.source
        if before is None:
            return
        was = before.config.get("source")
        if source is None and reasons and was == GIVEN:
            raise WorkspaceError(
                f"{self.folder}: {reasons[0]}, and it came from a --source",
                hint=f"Give the same --source again, or delete {self.folder} to fetch it from the mirrors.",
            )
        if source is None and was == OFFICIAL and self.manifest.name == BUILT_IN:
            reasons += _differences(before, {file.path: file.tag for file in planning.package_files(self.manifest)})
        elif self.by_reference:
            reasons += _differences(before, {file.path: file.tag for file in self.candidates[0].files})
        elif source is not None and is_remote(source):
            old, new = self.origin.source.rstrip("/"), shown_url(source).rstrip("/")
            reasons += [f"the source was {old} and is {new}"] if old != new else []
            if self.is_own and old == new and not reasons:
                reasons += self._remote_differences(before)
        elif source is not None and not reasons and (self._is_given or Path(source).exists()):
            digests = {file.path: self._local_digest(file) for file in self.candidates[0].files}
            reasons += _differences(before, digests)
        elif source is not None and not reasons:
            self.progress.say(f"{self.manifest.name}: its source {source} is not there; what was downloaded is used")

    def _remote_differences(self, before: Ledger) -> list[str]:
        """How names and sizes at a remote source differ; a web server cannot list its files."""
        if self.source is None or self.source.lower().startswith(("http://", "https://")):
            return []
        sizes = {output.path: output.bytes for output in before.outputs}
        there = {file.path: file.bytes for file in self.candidates[0].files}
        found = [f"{path} is new at the source" for path in there if path not in sizes]
        found += [f"{path} is gone from the source" for path in sizes if path not in there]
        return found + [
            f"{path} at the source has changed"
            for path, size in there.items()
            if path in sizes and size not in {None, sizes[path]}
        ]

    def plan(self, candidate: DownloadSource) -> DownloadPlan:
        return planning.estimate(candidate, self.manifest, self.origin, self.workspace)

    def fetch_first(self) -> tuple[DownloadSource, list[DownloadedFile]]:
        """Fetch the first candidate whose files arrive whole."""
        failures: list[str] = []
        for candidate, following in zip(self.candidates, [*self.candidates[1:], None], strict=True):
            try:
                return candidate, self._fetch(candidate)
            except DownloadError as error:
                if candidate.origin != OFFICIAL:
                    error.hint = error.hint or "Check the --source, or fetch the file by hand and give its folder."
                    raise
                failures.append(f"{candidate.name}: {error.message.partition(': ')[2]}")
                then = f"next: {following.name}" if following else "that was the last mirror"
                self.progress.say(f"{self.manifest.name}: {candidate.name}: {error.message}; {then}")
        name, archive = self.manifest.name, self.manifest.archive
        drive = [url for mirror in self.manifest.mirrors for url in mirror.files if "drive" in url]
        places = " or ".join([self.manifest.homepage, *drive])
        raise DownloadError(
            f"none of the {len(failures)} mirrors gave {archive} whole ({'; '.join(failures)})",
            hint=f"Fetch {archive} by hand ({places}), then type: "
            f"corpus ingest --dataset {name} --source FOLDER_WITH_{archive}",
        )

    def finish(self, candidate: DownloadSource, downloads: list[DownloadedFile]) -> Report:
        """Delete files that are no longer part of the dataset, and write the ledger."""
        paths, before = {downloaded.path for downloaded in downloads}, self.stage.before
        outputs = [self.folder / path for path in sorted(paths)]
        found = {(file.path, file.bytes, file.sha256) for file in self.workspace.file_digests(outputs, self.folder)}
        if found != {(downloaded.path, downloaded.bytes, downloaded.sha256) for downloaded in downloads}:
            raise DownloadError(f"{self.folder}: a file changed during the download", hint="Run the command again.")
        self.stage.begin()
        known = {*self.origin.files, *(output.path for output in (before.outputs if before else []))}
        _sweep(self.folder, known - paths)
        self.origin.finish(candidate, paths, grows=self.is_own)
        return self.stage.finish(
            outputs=outputs,
            counts={
                "files": len(downloads),
                "bytes": sum(downloaded.bytes for downloaded in downloads),
                **({"arrivals": self.origin.arrivals} if self.is_own else {}),
            },
            check_books=None,  # the files have just been compared with what arrived
            notes=candidate.notes,
            details={"place": candidate.name},
        )

    def _fetch(self, candidate: DownloadSource) -> list[DownloadedFile]:
        plan = self.plan(candidate)
        self.progress.say(str(plan))
        check_free_space(self.folder, plan.new_bytes + plan.document_bytes, f"{self.manifest.name} with its documents")
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.origin.add_expected(candidate)
        try:
            return [self._fetch_file(file) for file in candidate.files]
        finally:
            self.origin.save()

    def _fetch_file(self, file: RemoteFile) -> DownloadedFile:
        if downloaded := self.origin.reusable(file, self.workspace):
            if file.local is None:
                self.progress.say(f"{file.path}: kept from an earlier run")
            return downloaded
        label = f"{self.manifest.name}: {file.path}"
        downloaded = fetch(file, self.folder, label, self._on_verified, self.client.retry, self.progress)
        self.workspace.remember_digest(self.folder / file.path, downloaded.sha256)
        return downloaded

    def _on_verified(self, downloaded: DownloadedFile) -> None:
        """Before a file appears: delete the ledger and save the file's entry."""
        self.stage.begin()
        self.origin.add(downloaded)
        self._unsaved_bytes += downloaded.bytes
        if downloaded.origin != GIVEN or self._unsaved_bytes >= _SAVE_BYTES:
            self.origin.save()
            self._unsaved_bytes = 0

    def _local_digest(self, file: RemoteFile) -> str:
        target = self.folder / file.path
        if file.local is None:
            return ""
        is_linked = target.is_file() and target.samefile(file.local)
        return self.workspace.digest(target if is_linked else file.local)


def _differences(before: Ledger, digests: Mapping[str, str]) -> list[str]:
    """How the files at the source differ from the downloaded ones."""
    said = {"gone": "is gone from the source", "new": "is new at the source", "changed": "at the source has changed"}
    return [f"{path} {said[what]}" for path, what in differences(before.outputs, digests)]


def _sweep(folder: Path, paths: set[str]) -> None:
    """Delete files of an earlier download, partial files, and folders that are then empty."""
    inside = [folder / path for path in sorted(paths) if ".." not in PurePosixPath(path).parts]
    for path in (*inside, *folder.rglob(f"*{PART_SUFFIX}"), *folder.rglob(f".*{PART_SUFFIX}.json")):
        if path.is_relative_to(folder):
            with disk_errors(path):
                path.unlink(missing_ok=True)
    for top, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(top).rmdir()
