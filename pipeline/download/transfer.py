"""One file, from wherever it lies, into a folder: whole or not at all, and going on where an earlier try was cut.

In: a `File`: how to open it at an offset, and what is known of it. Out: the file under its own name, with size and
SHA-256.
Invariants: `NAME.part` grows until it is whole, and only then is fsynced and renamed. Bytes of two versions of a file
are never joined: `.NAME.part.json` holds the stamp of the version (ETag, Last-Modified, size), and what cannot be
proved unchanged starts over.
Cost: one pass over the bytes, hashed as they are written; a part that is gone on with is read once more, at disk
speed.
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

from corpus.pipeline.download.remote_file import PART, Arrival, File, Stamp, Stream
from corpus.pipeline.download.retry import PATIENCE, Patience, TransientError, Tries, paced
from corpus.pipeline.download.validate import HEAD_BYTES, TAIL_BYTES, wrong_head, wrong_tail
from corpus.pipeline.errors import ChecksumError, DiskError, DownloadError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.files import FINISHED_MODE, UNFINISHED_MODE, disk_errors, write_atomic

_COPY_BYTES = 1 << 20
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


class Part:
    """The incomplete file, and beside it the stamp of the version that it is a part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + PART)
        self._note = target.with_name(f".{target.name}{PART}.json")

    @property
    def bytes(self) -> int:
        """Its size; 0 when there is none."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def stamp(self, shown: str) -> Stamp | None:
        """The stamp of the part, if it came from the place `shown`."""
        try:
            values = json.loads(self._note.read_bytes())
            stamp = Stamp(**values["stamp"])
            is_sound = f"{stamp.etag}{stamp.modified}".isascii() and isinstance(stamp.total, int | None)
            return stamp if values["from"] == shown and is_sound and self.bytes else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, stamp: Stamp, shown: str) -> None:
        """Start empty. The old note goes before the old bytes, and the new note comes before the new ones."""
        self.drop()
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=UNFINISHED_MODE)
        write_atomic(self._note, json.dumps({"from": shown, "stamp": asdict(stamp)}, sort_keys=True).encode())

    def drop(self) -> None:
        """Throw it away."""
        with disk_errors(self.path):
            self._note.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Give it its final name."""
        with disk_errors(target):
            with suppress(OSError):  # not every file system has modes
                self.path.chmod(FINISHED_MODE)
            self.path.replace(target)
            self._note.unlink(missing_ok=True)


def fetch(
    file: File,
    folder: Path,
    *,
    label: str,
    settle: Callable[[Arrival], None],
    patience: Patience = PATIENCE,
    progress: Progress = SILENT,
) -> Arrival:
    """Bring one file whole into `folder`, going on with what is there of it. `settle` is called just before it appears.

    Raises:
        ChecksumError: it came whole but is not what it should be; it was thrown away.
        DownloadError: it is not there, something else came, or it was cut too often.
        DiskError: it does not fit, or the disk refused.

    """
    part = Part(folder / file.path)
    tries = Tries(file.shown, patience, progress)
    while True:
        try:
            stamp, sha256 = _attempt(file, part, label, patience, progress)
            break
        except TransientError as error:
            tries.failed(error, part.bytes)
    _check_whole(file, part, stamp, sha256)
    arrival = Arrival(path=file.path, origin=file.origin, bytes=part.bytes, sha256=sha256, stamp=stamp)
    settle(arrival)
    part.finish(folder / file.path)
    return arrival


def can_link(file: File, folder: Path) -> bool:
    """Whether a file lies on the disk that `folder` is or will be on."""
    return file.local is not None and file.local.stat().st_dev == _existing(folder).stat().st_dev


def link(
    file: File, folder: Path, *, label: str, settle: Callable[[Arrival], None], progress: Progress = SILENT
) -> Arrival | None:
    """Hard-link a local file into `folder`; None where it must be copied. `settle` is called just before it appears.

    Raises:
        ChecksumError: it is not what its SHA256SUMS says.
        DownloadError: it cannot be read.
        DiskError: the disk refused.

    """
    if file.local is None or not can_link(file, folder):
        return None
    sha256, size = _hash(file.local, label, progress)
    if file.sha256 not in {None, sha256}:
        raise _wrong_checksum(file, sha256)
    target = folder / file.path
    arrival = Arrival(path=file.path, origin=file.origin, bytes=size, sha256=sha256, stamp=Stamp(etag=file.tag))
    settle(arrival)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(file.local)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
    return arrival


def check_room(folder: Path, bytes_needed: int, purpose: str) -> int:
    """Free bytes of the disk that `folder` is or will be on.

    Raises:
        DiskError: there are fewer than `bytes_needed`.

    """
    with disk_errors(folder):
        free = shutil.disk_usage(_existing(folder)).free
    if free < bytes_needed:
        raise DiskError(
            f"{purpose} needs {size_text(bytes_needed)} on the disk of {folder}, but only {size_text(free)} are free",
            hint="Free some room, or put the workspace on another disk with --workspace; a rerun goes on from here.",
        )
    return free


def _attempt(file: File, part: Part, label: str, patience: Patience, progress: Progress) -> tuple[Stamp, str]:
    """Fetch what is missing; returns the stamp and the SHA-256 of the whole.

    Raises:
        TransientError: it broke off.

    """
    known = part.stamp(file.shown)
    chunks: Iterator[bytes] = iter(())
    with ExitStack() as stack:
        if known is not None and known.total == part.bytes:
            stamp = known
        else:
            stream = stack.enter_context(file.opener(part.bytes if known else 0, known))
            stamp, chunks = stream.stamp, _begin(file, part, stream, patience, progress)
        progress.begin(label, stamp.total, "B")
        stack.callback(progress.end)
        stack.enter_context(disk_errors(part.path))
        sha256 = _append(part.path, chunks, progress)
    if stamp.total is not None and part.bytes < stamp.total:
        raise TransientError(f"the connection ended after {part.bytes:,} of {stamp.total:,} bytes")
    return stamp, sha256


def _begin(file: File, part: Part, stream: Stream, patience: Patience, progress: Progress) -> Iterator[bytes]:
    """Look at what comes before a byte is written; the chunks that are to be appended to the part."""
    chunks = paced(stream.chunks, patience)
    total = stream.stamp.total
    if stream.start:
        whole = "" if total is None else f" of {size_text(total)}"
        progress.say(f"{file.path}: going on at {size_text(stream.start)}{whole}")
        check_room(part.path.parent, (total or 0) - stream.start, f"the rest of {file.path}")
        return chunks
    if stream.why:
        progress.say(f"{file.path}: {stream.why}; starting over")
    head = b""
    while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
        head += chunk
    if file.local is None:
        wrong = wrong_head(file.path, head, is_page=stream.is_page, encoding=stream.encoding)
        if wrong:
            raise DownloadError(f"{file.shown}: {wrong}")
    check_room(part.path.parent, (total or 0) - part.bytes, file.path)
    part.begin(stream.stamp, file.shown)
    return itertools.chain([head], chunks)


def _append(path: Path, chunks: Iterator[bytes], progress: Progress) -> str:
    """Add the chunks to a file, fsync it, and return the SHA-256 of all that is in it."""
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


def _check_whole(file: File, part: Part, stamp: Stamp, sha256: str) -> None:
    """Refuse a file that is not the one it should be; it is thrown away."""
    size = part.bytes
    wrong = ""
    if stamp.total is not None and size > stamp.total:
        wrong = f"it is longer than the {stamp.total:,} bytes announced"
    elif file.local is None:
        with part.path.open("rb") as stream:
            stream.seek(max(0, size - TAIL_BYTES))
            wrong = wrong_tail(file.path, stream.read())
    if wrong:
        part.drop()
        raise DownloadError(f"{file.shown}: {size:,} bytes came, but {wrong}; thrown away")
    if file.sha256 is not None and sha256 != file.sha256:
        part.drop()
        raise _wrong_checksum(file, sha256)


def _wrong_checksum(file: File, sha256: str) -> ChecksumError:
    return ChecksumError(
        f"{file.shown}: its SHA-256 is {sha256} but should be {file.sha256}; not taken",
        hint="That copy is damaged or another version: fetch it from elsewhere and give that with --source.",
    )


def _hash(path: Path, label: str, progress: Progress) -> tuple[str, int]:
    """SHA-256 and size of a local file, with a bar for a large one."""
    digest, size = hashlib.sha256(), 0
    progress.begin(label, path.stat().st_size, "B")
    try:
        with path.open("rb") as file:
            while block := file.read(_COPY_BYTES):
                digest.update(block)
                size += len(block)
                progress.advance(len(block))
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        progress.end()
    return digest.hexdigest(), size


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
