"""What a workspace holds: each stage of each dataset, finished, stale, partial or missing.

In: a workspace.
Out: the status of each stage.
Cost: ledgers are read, and digests of inputs, which are cached by size, times and inode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import DiskError, WorkspaceError
from corpus.pipeline.pack import ranking_stage as ranking
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.quality import stage as quality
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.checked import present
from corpus.pipeline.workspace.files import reading
from corpus.pipeline.workspace.layout import OUTSIDE, RANKING, ROWS, SINGLE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, changes, read_ledger
from corpus.pipeline.workspace.receipts import FOLDER as RECEIPTS
from corpus.pipeline.workspace.receipts import progress_of

AREAS = ("raw", "documents", "dedup", "decontaminate", "quality", "tokenizer", "packed", "chat", "ranking", "models")
OPTIONAL = {"chat", "ranking"}
"""Areas that no other needs: not listed while missing, but for those of a dataset that only they can be made of."""
_VERSIONS = {
    stage.STAGE: stage.VERSION for stage in (download, ingest, dedup, decontaminate, quality, tokenizer, pack, ranking)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStatus:
    """One stage of one dataset, or a run."""

    area: str
    name: str
    """Dataset or run; empty for a stage over all datasets."""
    state: str
    """`finished`, `stale`, `partial`, `unreadable` or `missing`."""
    why: str = ""
    """What makes it stale, how much of it is done, or what to know of a finished one."""
    files: int = 0
    bytes: int = 0
    counts: dict[str, Any] = field(default_factory=dict)


def survey(workspace: Workspace) -> list[StageStatus]:
    """Every stage that was begun, and the missing ones of the same datasets."""
    rows = [_row(workspace, area, name) for area, name in _places(workspace)]
    begun = {row.name for row in rows if row.state != "missing" and row.area != "models"}
    expected = {"dedup", "tokenizer"} if begun else set()
    due = [row for row in rows if row.area in expected or (row.name in begun - {""} and _is_due(workspace, row))]
    return [row for row in rows if row.state != "missing" or row in due]


def _places(workspace: Workspace) -> Iterator[tuple[str, str]]:
    for area in AREAS:
        folder = workspace.root / area
        if area in SINGLE or (folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)):
            yield area, ""
        elif area == "models":
            yield from ((area, path.name) for path in sorted(workspace.models.glob("*")) if path.is_dir())
        else:
            yield from ((area, name) for name in workspace.datasets())


def _is_due(workspace: Workspace, row: StageStatus) -> bool:
    """Whether a stage follows the others of its dataset: rankings are packed as rankings alone."""
    if row.area in {"packed", RANKING} and workspace.manifest(row.name).has_rankings:
        return row.area == RANKING
    return row.area not in OPTIONAL


def _row(workspace: Workspace, area: str, name: str) -> StageStatus:
    folder = workspace.root / area / name
    try:
        with reading(folder):
            ledger = read_ledger(folder)
            if ledger is None:
                return _unfinished(area, name, folder)
            stale = _stale(workspace, folder, ledger)
            why = stale or _remarks(workspace, folder, ledger)
    except (WorkspaceError, DiskError) as error:
        return StageStatus(area=area, name=name, state="unreadable", why=f"{error.message}. {error.hint}".strip())
    return StageStatus(
        area=area, name=name, state="stale" if stale else "finished", why="; ".join(why), files=len(ledger.outputs),
        bytes=ledger.output_bytes, counts=dict(ledger.counts),
    )  # fmt: skip


def _stale(workspace: Workspace, folder: Path, ledger: Ledger) -> list[str]:
    """What has changed since, by the present digests of the inputs; archives that were deleted change nothing."""
    kept = [entry for entry in ledger.inputs if entry.path.startswith(OUTSIDE)]
    kept += [*_deleted_archives(workspace, ledger), *rows_elsewhere(workspace, ledger)]
    inside = [workspace.root / entry.path for entry in ledger.inputs if entry not in kept]
    inputs = kept + [found for path in inside if (found := present(workspace, path)) is not None]
    return changes(ledger, folder, _VERSIONS.get(ledger.stage, ledger.version), ledger.config, inputs)


def _deleted_archives(workspace: Workspace, ledger: Ledger) -> list[FileDigest]:
    """The inputs below `raw/`, where none of them is left."""
    raw = [entry for entry in ledger.inputs if entry.path.startswith("raw/")]
    return [] if any(present(workspace, workspace.root / entry.path) for entry in raw) else raw


def rows_elsewhere(workspace: Workspace, ledger: Ledger) -> list[FileDigest]:
    """The rows and the tokenizer of a run, where none of the rows is in the workspace: it read them from a URL."""
    rows = [entry for entry in ledger.inputs if entry.path.partition("/")[0] in ROWS.values()]
    if ledger.stage != "train" or not rows or any(present(workspace, workspace.root / entry.path) for entry in rows):
        return []
    return [*rows, *(entry for entry in ledger.inputs if entry.path.startswith("tokenizer/"))]


def _remarks(workspace: Workspace, folder: Path, ledger: Ledger) -> list[str]:
    """What to know of finished outputs: archives that were deleted, and files whose date has changed."""
    found: list[str] = []
    if _deleted_archives(workspace, ledger):
        name = ledger.dataset
        found.append(
            f"raw/{name} was deleted: the documents are used as they are; `corpus download --dataset {name}` brings "
            "back the records, which `corpus trace` and another cleaning read"
        )
    if rows_elsewhere(workspace, ledger):
        found.append("its rows are not in this workspace: they were read by --rows, or deleted")
    here = [output for output in ledger.outputs if workspace.remote is None or (folder / output.path).exists()]
    touched = [output.path for output in here if workspace.is_touched(folder / output.path, output.sha256)]
    if touched:
        more = f" and {len(touched) - 1:,} more files have" if len(touched) > 1 else " has"
        found.append(f"{touched[0]}{more} changed or moved since it was written: run `corpus verify`")
    return found


def _unfinished(area: str, name: str, folder: Path) -> StageStatus:
    files = dict(_sizes(folder))
    whole = [path for path in files if not path.name.startswith(".") and path.suffix != ".part"]
    pieces = progress_of(folder)
    if not files and pieces is None:
        return StageStatus(area=area, name=name, state="missing")
    steps = [int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    why, size = f"{len(whole):,} files are there", sum(files.values())
    if pieces is not None:
        why = f"{pieces[0]:,} of {pieces[1]:,} pieces are there"
    elif not whole:
        why = "begun; no file is whole yet"
    if steps:
        why = f"checkpoint of step {max(steps):,}"
    elif area == "models":
        why = "begun; no checkpoint yet"
    return StageStatus(area=area, name=name, state="partial", why=why, files=len(whole), bytes=size)


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files of a stage and their bytes, without those that another process deletes or renames meanwhile."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != RECEIPTS]
        for path in (Path(place, name) for name in names if name != LEDGER):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat().st_size
