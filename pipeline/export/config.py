"""What is exported, and the folder that it may be written into.

In: settings. Out: a folder that is new, empty or an earlier export in the same format.
Invariants: a folder that holds other files is refused, and changed in nothing.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import orjson

from corpus.pipeline.errors import ExportError
from corpus.pipeline.export.formats import FORMATS
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.workspace.files import disk_errors
from corpus.pipeline.workspace.layout import ROWS, Workspace
from corpus.pipeline.workspace.lock import HOLDER, LOCK

MARK = "export.json"
"""Written first: the folder is an export, in this format."""
_UNFINISHED = (LOCK, HOLDER, f".{HOLDER}.*.tmp", f".{MARK}.*.tmp")
"""What an export leaves that was killed before it wrote the mark."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What is exported, and where to."""

    format: str
    """A name in `FORMATS`."""
    place: Path
    """The folder: new, empty, or an earlier export in this format."""
    _: KW_ONLY
    datasets: tuple[str, ...] = ()
    """All that have documents when empty."""
    splits: tuple[str, ...] = ()
    """All when empty."""
    form: str = "text"
    """`text`, or for the formats of text `chat`: documents with a question, as messages."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""
    unit_characters: int | None = None
    """Characters of documents in one piece; the format's when None."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.format not in FORMATS:
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, is {self.format}")
        if self.form not in ROWS:
            raise ValueError(f"--form must be one of {', '.join(ROWS)}, is {self.form}")
        if self.form == "chat" and FORMATS[self.format].tokens:
            raise ValueError(f"--form chat is for --format jsonl and parquet, not {self.format}")
        if unknown := set(self.splits) - set(SPLITS):
            raise ValueError(f"--split must be one of {', '.join(SPLITS)}, is {', '.join(sorted(unknown))}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")


def place_of(config: ExportConfig, workspace: Workspace) -> Path:
    """The folder, if it is one that an export may be written into."""
    place = config.place.expanduser().absolute()
    if place.resolve().is_relative_to(workspace.root.resolve()):
        raise ExportError(
            f"{place} is in the workspace, whose folders belong to other stages",
            hint="Name a folder outside it.",
        )
    with disk_errors(place):
        there = next(path for path in (place, *place.parents) if path.exists())
        if not there.is_dir():
            raise ExportError(f"{there} is a file", hint="Name a new folder.")
        known = place / MARK
        ours = {path for pattern in _UNFINISHED for path in place.glob(pattern)}
        others = [path for path in place.glob("*") if path not in ours]
        if not known.is_file() and others:
            raise ExportError(f"{place} holds other files", hint="Name a new or empty folder.")
        if known.is_file() and known.read_bytes() != mark(config):
            raise ExportError(
                f"{place} holds an export in another format or form: {known.name} says which",
                hint="Name a new folder, or delete that one.",
            )
    return place


def mark(config: ExportConfig) -> bytes:
    """The content of the mark."""
    return orjson.dumps({"format": config.format, "form": config.form}, option=orjson.OPT_APPEND_NEWLINE)
