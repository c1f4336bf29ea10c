"""Opening the files of `raw/<dataset>/`, of which some may be references to files elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

from corpus.pipeline.workspace.layout import REFERENCE

if TYPE_CHECKING:
    from corpus.pipeline.store.references import Reference


def name_of(output: str) -> str:
    """The name of a file of records by that of the file in `raw/<dataset>/`, which may be a reference.

    >>> name_of("a/news.zip.reference"), name_of("a/news.zip")
    ('a/news.zip', 'a/news.zip')
    """
    return output.removesuffix(REFERENCE)


def is_there(path: Path) -> bool:
    """Whether a file, or a reference to it, is there."""
    return path.is_file() or path.with_name(path.name + REFERENCE).is_file()


def open_raw(path: Path) -> IO[bytes]:
    """A file, or the one that is referred to, for reading; it can seek."""
    reference = _reference(path)
    if reference is None:
        return path.open("rb")
    from corpus.pipeline.store.references import open_reference  # noqa: PLC0415  # fsspec, for references alone

    return open_reference(reference)


def source_of(path: Path) -> Path | IO[bytes]:
    """A file's path, or the opened file that is referred to: for libraries that map what is on the disk."""
    return path if path.is_file() else open_raw(path)


def size_of(path: Path) -> int:
    """Its bytes."""
    reference = _reference(path)
    return path.stat().st_size if reference is None else reference.bytes


def stamp_of(path: Path) -> int:
    """When the file, or the reference to it, was written, in nanoseconds."""
    return (path if path.is_file() else path.with_name(path.name + REFERENCE)).stat().st_mtime_ns


def _reference(path: Path) -> Reference | None:
    if path.is_file() or not path.with_name(path.name + REFERENCE).is_file():
        return None
    from corpus.pipeline.store.references import reference_of  # noqa: PLC0415  # fsspec, for references alone

    return reference_of(path)
