"""From pieces to the files of an export: appended in order, named in `lineage/`, closed with header or index.

In: written pieces. Out: the files that trainers read, and for each piece a Parquet file in `lineage/`.
Invariants: a file under its final name is whole; it grows as `NAME.part`. The lineage of a piece is written after its
bytes are on the disk, with their digest and the fingerprint of the work, so a rerun keeps exactly the pieces that are
whole.
Cost: a file of one piece is renamed; others are copied once, at disk speed. A rerun hashes what it keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.export.formats import Format, Piece, llmc_header, mds_index, megatron_index
from corpus.pipeline.export.shard import Written
from corpus.pipeline.storage.document_shards import COUNTS_KEY, FINGERPRINT_KEY, part_metadata
from corpus.pipeline.workspace.files import atomic, disk_errors, hashed, settle, write_atomic
from corpus.pipeline.workspace.ledger import FileDigest

_CHUNK = 1 << 20


class Assembly:
    """One file of an export and its pieces."""

    def __init__(self, place: Path, pieces: Sequence[Piece], form: Format, identity: str) -> None:
        self.place, self.pieces, self.form, self.identity = place, pieces, form, identity
        self.path = place / pieces[0].file
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.kept: list[Mapping[str, Any]] = []
        """Counts of the leading pieces that are whole."""
        with disk_errors(self.path):
            data = self.path if self.path.is_file() else self.part
            if data.is_file():
                with data.open("rb") as file:
                    self.kept = list(self._whole(file))
        self.counts = list(self.kept)
        """Counts of all pieces so far."""
        self._lineage: list[FileDigest] = []

    def _whole(self, file: IO[bytes]) -> Iterator[Mapping[str, Any]]:
        file.seek(self.form.header)
        for piece in self.pieces:
            found = part_metadata(self.place / piece.lineage)
            if found is None or found[0] != self.identity or not _is_next(file, found[1]):
                return
            yield found[1]

    @property
    def bytes(self) -> int:
        """Bytes up to the end of the last piece that is there."""
        return self.form.header + sum(int(counts["bytes"]) for counts in self.counts)

    @property
    def is_whole(self) -> bool:
        """Whether the file is there under its final name, with nothing more than its pieces."""
        return len(self.kept) == len(self.pieces) and self.path.is_file() and self.path.stat().st_size == self.bytes

    def resume(self) -> None:
        """Cut the file after the last piece that is kept."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                self.path.replace(self.part)
            with self.part.open("ab") as file:
                file.truncate(self.bytes)

    def append(self, written: Written) -> None:
        """Add the next piece, then its lineage."""
        piece, start = self.pieces[len(self.counts)], self.length
        with disk_errors(self.path):
            if self.bytes == 0:
                written.aside.replace(self.part)
            else:
                with written.aside.open("rb") as source, self.part.open("r+b") as file:
                    file.seek(self.bytes)
                    shutil.copyfileobj(source, file, _CHUNK)
                written.aside.unlink()
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
        self.counts.append(written.counts)
        self._write_lineage(piece, written, start)

    @property
    def length(self) -> int:
        """Tokens so far, or documents in formats that are not flat."""
        key = "tokens" if self.form.is_flat else "documents"
        return sum(int(counts[key]) for counts in self.counts)

    def _write_lineage(self, piece: Piece, written: Written, start: int) -> None:
        table, count = written.lineage, written.lineage.num_rows
        sizes = table["length"].to_numpy() if self.form.is_flat else np.ones(count, dtype=np.int64)
        starts = start + np.cumsum(sizes) - sizes
        table = table.add_column(2, "file", pa.chunked_array([pa.repeat(piece.file, count)]))
        table = table.add_column(3, "start", pa.chunked_array([pa.array(starts, pa.int64())]))
        metadata = {
            FINGERPRINT_KEY: self.identity.encode(),
            COUNTS_KEY: json.dumps(written.counts, sort_keys=True).encode(),
        }
        path = self.place / piece.lineage
        with hashed(path) as file:
            pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")
        settle(Path(file.name), path)
        self._lineage.append(FileDigest(piece.lineage, file.bytes, file.sha256))

    def close(self, kind: np.dtype[Any] | None) -> None:
        """Write the header and give the file its name; a file without a document goes."""
        if not any(counts["documents"] for counts in self.counts):
            self.part.unlink()
            return
        if self.form.name == "llmc" and kind is not None:
            with disk_errors(self.path), self.part.open("r+b") as file:
                file.write(llmc_header(kind, self.length))
        settle(self.part, self.path)

    @property
    def digests(self) -> list[FileDigest]:
        """Of the files that were hashed while they were written, or resumed: lineage, and a file that is one piece."""
        if len(self.pieces) > 1 or self.form.header or not self.path.is_file():
            return self._lineage
        return [*self._lineage, FileDigest(self.pieces[0].file, self.counts[0]["bytes"], self.counts[0]["sha256"])]

    def write_index(self, kind: np.dtype[Any]) -> Path:
        """The index of Megatron-LM beside the tokens."""
        path = self.path.with_suffix(".idx")
        lineage = [self.place / piece.lineage for piece in self.pieces]
        documents = sum(counts["documents"] for counts in self.counts)
        with atomic(path) as file:
            file.writelines(megatron_index(kind, documents, lambda: map(_lengths, lineage)))
        return path


def write_mds_index(folder: Path, assemblies: Sequence[Assembly], kind: np.dtype[Any]) -> Path:
    """`index.json` of the shards of MDS in one folder."""
    shards = [(each.path.name, each.bytes, each.length) for each in assemblies]
    write_atomic(folder / "index.json", mds_index(kind, shards))
    return folder / "index.json"


def _lengths(lineage: Path) -> np.ndarray:
    return np.asarray(pq.read_table(lineage, columns=["length"])["length"].to_numpy(), dtype=np.int64)


def _is_next(file: IO[bytes], counts: Mapping[str, Any]) -> bool:
    """Whether the next bytes of a file are a piece with these counts."""
    digest, left = hashlib.sha256(), counts["bytes"]
    while left and (data := file.read(min(left, _CHUNK))):
        digest.update(data)
        left -= len(data)
    return not left and digest.hexdigest() == counts["sha256"]
