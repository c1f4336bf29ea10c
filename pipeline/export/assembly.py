"""From pieces to the files of an export: appended in order, named in `lineage/`, closed with header or index.

In: pieces with receipts. Out: the files that trainers read, and for each piece a Parquet file in `lineage/`.
Invariants: a file under its final name is whole; it grows as `NAME.part`. The lineage of a piece is written after its
bytes are on the disk, with their digest and the fingerprint of the work, so a rerun keeps exactly the pieces that are
whole. A piece that is in its file, and has its lineage, is deleted with its receipt.
Cost: a file of one piece is renamed; others are copied once, at disk speed, and hashed meanwhile. A rerun hashes what
it keeps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from corpus.pipeline.export.formats import Format, Piece, llmc_header, mds_index, megatron_index
from corpus.pipeline.export.lineage import read_documents, read_lengths, write_lineage
from corpus.pipeline.storage.document_shards import part_metadata
from corpus.pipeline.workspace.files import atomic, disk_errors, hashed, settle, write_atomic
from corpus.pipeline.workspace.ledger import FileDigest
from corpus.pipeline.workspace.receipts import Receipt

_CHUNK = 1 << 20


class Assembly:
    """One file of an export and its pieces."""

    def __init__(self, place: Path, pieces: Sequence[Piece], form: Format, identity: str) -> None:
        self.place, self.pieces, self.form, self.identity = place, pieces, form, identity
        self.path = place / pieces[0].file
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.kept: list[Mapping[str, Any]] = []
        """Counts of the leading pieces that are whole."""
        self._digest = hashlib.sha256()
        """Of the pieces so far, in a file of several."""
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
            if found is None or found[0] != self.identity or not self._is_next(file, found[1]):
                return
            yield found[1]

    def _is_next(self, file: IO[bytes], counts: Mapping[str, Any]) -> bool:
        """Whether the next bytes of a file are a piece with these counts."""
        digest, whole, left = hashlib.sha256(), self._digest.copy(), counts["bytes"]
        while left and (data := file.read(min(left, _CHUNK))):
            digest.update(data)
            whole.update(data)
            left -= len(data)
        if left or digest.hexdigest() != counts["sha256"]:
            return False
        self._digest = whole
        return True

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

    def append(self, receipt: Receipt) -> None:
        """Add the next piece, then its lineage."""
        piece, start = self.pieces[len(self.counts)], self.length
        data = self.place / piece.data
        with disk_errors(self.path):
            if len(self.pieces) == 1 and not self.form.header:
                data.replace(self.part)
            else:
                self._copy(data)
        self.counts.append(receipt.counts)
        self._write_lineage(piece, receipt, start)
        for path in (data, self.place / piece.documents, self.place / receipt.name):
            path.unlink(missing_ok=True)

    def _copy(self, data: Path) -> None:
        """Add the bytes of a piece."""
        with data.open("rb") as source, self.part.open("r+b") as file:
            file.seek(self.bytes)
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                self._digest.update(chunk)
            file.flush()
            os.fsync(file.fileno())

    @property
    def length(self) -> int:
        """Tokens so far, or documents in formats that are not flat."""
        key = "tokens" if self.form.is_flat else "documents"
        return sum(int(counts[key]) for counts in self.counts)

    def _write_lineage(self, piece: Piece, receipt: Receipt, start: int) -> None:
        path, documents = self.place / piece.lineage, self.place / piece.documents
        if not self.form.is_flat:  # a file of one piece, whose lineage is whole
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            settle(documents, path)
            (made,) = (output for output in receipt.outputs if output.path == piece.documents)
            self._lineage.append(FileDigest(piece.lineage, made.bytes, made.sha256))
            return
        found = read_documents(documents)
        starts = start + np.cumsum(found.lengths) - found.lengths
        with hashed(path) as file:
            write_lineage(found, piece.file, starts, self.identity, receipt.counts, file)
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
        """Of the files that were hashed while they were written, or resumed: lineage, and a file without a header."""
        if self.form.header or not self.path.is_file():
            return self._lineage
        sha256 = self.counts[0]["sha256"] if len(self.pieces) == 1 else self._digest.hexdigest()
        return [*self._lineage, FileDigest(self.pieces[0].file, self.bytes, sha256)]

    def write_index(self, kind: np.dtype[Any]) -> Path:
        """The index of Megatron-LM beside the tokens."""
        path = self.path.with_suffix(".idx")
        lineage = [self.place / piece.lineage for piece in self.pieces]
        documents = sum(counts["documents"] for counts in self.counts)
        with atomic(path) as file:
            file.writelines(megatron_index(kind, documents, lambda: map(read_lengths, lineage)))
        return path


def write_mds_index(folder: Path, assemblies: Sequence[Assembly], kind: np.dtype[Any]) -> Path:
    """`index.json` of the shards of MDS in one folder."""
    shards = [(each.path.name, each.bytes, each.length) for each in assemblies]
    write_atomic(folder / "index.json", mds_index(kind, shards))
    return folder / "index.json"
