"""Download one file into a folder, resuming a partial file.

In: a `RemoteFile`.
Out: the file under its own name, with size and SHA-256; or no file of that name.
Invariants: bytes are appended to `NAME.part`, which is fsynced and renamed once it is complete. Bytes of two versions
are never joined: `.NAME.part.json` holds the version (ETag, Last-Modified, size), and a download whose version is not
proved unchanged restarts.
Cost: one pass over the bytes, hashed as they are written. A resumed partial file is re-read once to rebuild its hash.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from corpus.pipeline.download.remote_file import PART_SUFFIX, DownloadedFile, FileVersion, RemoteFile, Stream
from corpus.pipeline.download.retry import Retrier, RetryPolicy, TransientError, with_minimum_rate
from corpus.pipeline.download.validate import HEAD_BYTES, TAIL_BYTES, head_error, tail_error
from corpus.pipeline.errors import ChecksumError, DiskError, DownloadError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.files import FINISHED_MODE, UNFINISHED_MODE, disk_errors, write_atomic

OnVerified = Callable[[DownloadedFile], None]
_COPY_BYTES = 1 << 20
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


class PartialFile:
    """`NAME.part`, and beside it `.NAME.part.json` with the version that it is a part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + PART_SUFFIX)
        self._metadata = target.with_name(f".{target.name}{PART_SUFFIX}.json")

    @property
    def bytes(self) -> int:
        """Its size; 0 when there is no such file."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, shown: str) -> FileVersion | None:
        """The version of the partial file, if it was downloaded from `shown`."""
        try:
            values = json.loads(self._metadata.read_bytes())
            version = FileVersion(**values["stamp"])
            is_valid = f"{version.etag}{version.modified}".isascii() and isinstance(version.total, int | None)
            return version if values["from"] == shown and is_valid and self.bytes else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, version: FileVersion, shown: str) -> None:
        """Start empty. Old metadata is deleted before old bytes; new metadata is written before new bytes."""
        self.delete()
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=UNFINISHED_MODE)
        write_atomic(self._metadata, json.dumps({"from": shown, "stamp": asdict(version)}, sort_keys=True).encode())

    def delete(self) -> None:
        """Delete the partial file and its metadata."""
        with disk_errors(self.path):
            self._metadata.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Rename it to its final name."""
        with disk_errors(target):
            with suppress(OSError):  # not every file system has modes
                self.path.chmod(FINISHED_MODE)
            self.path.replace(target)
            self._metadata.unlink(missing_ok=True)


def fetch(
    file: RemoteFile, folder: Path, label: str, on_verified: OnVerified, retry: RetryPolicy, progress: Progress
) -> DownloadedFile:
    """Hard-link or download one file into `folder`, resuming its partial file.

    `on_verified` is called before the file appears.

    Raises:
        ChecksumError: its checksum is wrong; it was deleted.
        DownloadError: it does not exist, is not the expected format, or the attempts are used up.
        DiskError: there is not enough free space, or a write failed.

    """
    target = folder / file.path
    if file.local is not None and can_link(file, folder):
        linked = _hard_link(file, file.local, target, label, on_verified, progress)
        if linked is not None:
            return linked
    partial = PartialFile(target)
    retrier = Retrier(file.shown, retry, progress)
    while True:
        try:
            version, sha256 = _attempt(file, partial, label, retry, progress)
            break
        except TransientError as error:
            retrier.failed(error, partial.bytes)
    _check_complete(file, partial, version, sha256)
    downloaded = DownloadedFile(path=file.path, origin=file.origin, bytes=partial.bytes, sha256=sha256, version=version)
    on_verified(downloaded)
    partial.finish(target)
    return downloaded


def can_link(file: RemoteFile, folder: Path) -> bool:
    """Whether a file is on the same disk as `folder`."""
    return file.local is not None and file.local.stat().st_dev == _existing(folder).stat().st_dev


def _hard_link(
    file: RemoteFile, local: Path, target: Path, label: str, on_verified: OnVerified, progress: Progress
) -> DownloadedFile | None:
    """Hard-link a local file to `target`; None where it must be copied."""
    sha256, size = _hash(local, label, progress)
    if file.sha256 not in {None, sha256}:
        raise _wrong_checksum(file, sha256)
    version = FileVersion(etag=file.tag)
    downloaded = DownloadedFile(path=file.path, origin=file.origin, bytes=size, sha256=sha256, version=version)
    on_verified(downloaded)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(local)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
    return downloaded


def check_free_space(folder: Path, bytes_needed: int, purpose: str) -> int:
    """Free bytes of the disk of `folder`, which may not exist yet.

    Raises:
        DiskError: there are fewer than `bytes_needed`.

    """
    with disk_errors(folder):
        free = shutil.disk_usage(_existing(folder)).free
    if free < bytes_needed:
        raise DiskError(
            f"{purpose} needs {size_text(bytes_needed)} on the disk of {folder}, but only {size_text(free)} are free",
            hint="Free some room, or put the workspace on another disk with --workspace; a rerun resumes.",
        )
    return free


def _attempt(
    file: RemoteFile, partial: PartialFile, label: str, retry: RetryPolicy, progress: Progress
) -> tuple[FileVersion, str]:
    """Download what is missing; returns the version and the SHA-256 of the whole file.

    Raises:
        TransientError: the connection was cut.

    """
    known = partial.version(file.shown)
    chunks: Iterator[bytes] = iter(())
    with ExitStack() as stack:
        if known is not None and known.total == partial.bytes:
            version = known
        else:
            stream = stack.enter_context(file.opener(partial.bytes if known else 0, known))
            version, chunks = stream.version, _begin(file, partial, stream, retry, progress)
        stack.enter_context(progress.bar(label, version.total, "B"))
        stack.enter_context(disk_errors(partial.path))
        sha256 = _append(partial.path, chunks, progress)
    if version.total is not None and partial.bytes < version.total:
        raise TransientError(f"the connection ended after {partial.bytes:,} of {version.total:,} bytes")
    return version, sha256


def _begin(
    file: RemoteFile, partial: PartialFile, stream: Stream, retry: RetryPolicy, progress: Progress
) -> Iterator[bytes]:
    """Check the first bytes and the free space; returns the chunks to append to the partial file."""
    chunks = with_minimum_rate(stream.chunks, retry)
    total = stream.version.total
    if stream.start:
        whole = "" if total is None else f" of {size_text(total)}"
        progress.say(f"{file.path}: resuming at {size_text(stream.start)}{whole}")
        check_free_space(partial.path.parent, (total or 0) - stream.start, f"the rest of {file.path}")
        return chunks
    if stream.restart_reason:
        progress.say(f"{file.path}: {stream.restart_reason}; starting over")
    head = b""
    while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
        head += chunk
    wrong = head_error(file.path, head, is_html=stream.is_html, encoding=stream.encoding)
    if wrong and file.local is None:
        raise DownloadError(f"{file.shown}: {wrong}")
    check_free_space(partial.path.parent, (total or 0) - partial.bytes, file.path)
    partial.begin(stream.version, file.shown)
    return itertools.chain([head], chunks)


def _append(path: Path, chunks: Iterator[bytes], progress: Progress) -> str:
    """Append the chunks to a file and fsync it; returns the SHA-256 of the whole file."""
    digest = hashlib.sha256()
    with path.open("r+b") as out:
        while block := out.read(_COPY_BYTES):
            digest.update(block)
            progress.advance(len(block))
        for chunk in chunks:
            out.write(chunk)
            digest.update(chunk)
            progress.advance(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _check_complete(file: RemoteFile, partial: PartialFile, version: FileVersion, sha256: str) -> None:
    """Delete and reject a file with a wrong length, end or checksum."""
    size = partial.bytes
    wrong = ""
    if version.total is not None and size > version.total:
        wrong = f"it is longer than the {version.total:,} bytes announced"
    elif file.local is None:
        with partial.path.open("rb") as stream:
            stream.seek(max(0, size - TAIL_BYTES))
            wrong = tail_error(file.path, stream.read())
    if wrong:
        partial.delete()
        raise DownloadError(f"{file.shown}: received {size:,} bytes, but {wrong}; deleted")
    if file.sha256 is not None and sha256 != file.sha256:
        partial.delete()
        raise _wrong_checksum(file, sha256)


def _wrong_checksum(file: RemoteFile, sha256: str) -> ChecksumError:
    return ChecksumError(
        f"{file.shown}: its SHA-256 is {sha256} but should be {file.sha256}; rejected",
        hint="That copy is damaged or another version: fetch it from elsewhere and name that place with --source.",
    )


def _hash(path: Path, label: str, progress: Progress) -> tuple[str, int]:
    """SHA-256 and size of a local file, with a progress bar."""
    digest, size = hashlib.sha256(), 0
    with progress.bar(label, path.stat().st_size, "B"):
        try:
            with path.open("rb") as file:
                while block := file.read(_COPY_BYTES):
                    digest.update(block)
                    size += len(block)
                    progress.advance(len(block))
        except OSError as error:
            raise DownloadError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest(), size


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
