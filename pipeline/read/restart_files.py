"""Restart points of large compressed members, noted once in `raw/<dataset>/.restart/`.

In: the index of a member that was read to its end. Out: the same index, for a later run or for other jobs of an array.
Invariants: an index holds for one container, by its SHA-256, and one member. A damaged index is ignored and made again.
It is a cache, which may be deleted: documents do not depend on it. Several jobs may write it: it is written whole.
Cost: about half a megabyte for each gigabyte of records.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corpus.pipeline.errors import DiskError
from corpus.pipeline.read.restart import MemberIndex
from corpus.pipeline.read.spans import RecordFile, RestartPoint
from corpus.pipeline.workspace.files import write_atomic

FOLDER = ".restart"
"""Its name in `raw/<dataset>/`."""
MOST_FED = 7
"""Most workers, of all jobs, that get the records of a member whose restart points are not noted yet.

More get ranges, which they unpack themselves: a megabyte then takes the parent 6 ms and all processes 52, not 7 and 48.
"""
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Restarts:
    """The restart points of a dataset's files."""

    raw: Path
    digests: Mapping[str, str]
    """SHA-256 of each file in `raw/<dataset>/`."""
    ranges: bool = False
    """Whether a member without an index is handed out as ranges while it is read, and not as records."""

    def find(self, file: RecordFile) -> MemberIndex | None:
        """The index of a member, if there is one that holds for it."""
        path = self._path(file)
        if path is None:
            return None
        try:
            index = _decode(path.read_bytes(), self._identity(file))
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return None
        return None if file.sha256 is not None and index.sha256 is None else index

    def save(self, file: RecordFile, index: MemberIndex) -> None:
        """Keep the index of a member, if the disk takes it."""
        path = self._path(file)
        if path is not None:
            with contextlib.suppress(DiskError, OSError):
                write_atomic(path, _encode(index, self._identity(file)))

    def _path(self, file: RecordFile) -> Path | None:
        if file.container not in self.digests:
            return None
        name = hashlib.sha256("\0".join(self._identity(file)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self.raw / FOLDER / name

    def _identity(self, file: RecordFile) -> list[str]:
        return [self.digests[file.container], file.codec, file.path]


def _encode(index: MemberIndex, identity: list[str]) -> bytes:
    windows = [zlib.compress(point.window) for point in index.points]
    points = [
        [point.offset, point.packed, point.bits, len(window)]
        for point, window in zip(index.points, windows, strict=True)
    ]
    head = {"schema": _SCHEMA, "of": identity, "bytes": index.bytes, "sha256": index.sha256, "points": points}
    data = json.dumps(head, sort_keys=True).encode() + b"\n" + b"".join(windows)
    return hashlib.sha256(data).digest() + data


def _decode(data: bytes, identity: list[str]) -> MemberIndex:
    """The inverse of `_encode`; raises ValueError for anything else."""
    digest, data = data[:32], data[32:]
    line, _, windows = data.partition(b"\n")
    if hashlib.sha256(data).digest() != digest:
        raise ValueError("damaged")
    head = json.loads(line)
    if head["schema"] != _SCHEMA or head["of"] != identity:
        raise ValueError("of another member")
    points, at = [], 0
    for offset, packed, bits, size in head["points"]:
        points.append(RestartPoint(offset, packed, bits, zlib.decompress(windows[at : at + size])))
        at += size
    return MemberIndex(head["bytes"], head["sha256"], points)
