"""Checks every output against its ledger, and the ledgers against each other.

In: a workspace; or the folder of an export, which lies outside.
Out: what was checked, or DamageError for the first damaged file, with the command that rebuilds it.
Invariant: only ledgers are trusted, and each is checked: its form, its fingerprint, its digest in `timings.json`, the
counts in its shards, and the digests that later stages took of it.
Nothing is written but the cache of digests, by which `corpus status` knows a file that was checked.
Cost: every output is read once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect.status import AREAS, rows_elsewhere
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.document_shards import part_metadata
from corpus.pipeline.storage.row_shards import rows_metadata
from corpus.pipeline.workspace.checked import EXPORT, check_bytes, check_size, damage
from corpus.pipeline.workspace.files import reading, sha256_file
from corpus.pipeline.workspace.layout import OUTSIDE, RANKING, ROWS, SINGLE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, fingerprint, read_ledger


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked."""

    stages: int
    files: int
    bytes: int


def run(workspace: Workspace, *, progress: Progress = SILENT) -> Verified:
    """Read every output of every finished stage.

    Raises:
        DamageError: a file is missing, altered or does not agree with another.
        DiskError: a file or folder may not be read.

    """
    found = list(_finished(workspace))
    files, size = 0, sum(ledger.output_bytes for _, _, ledger in found)
    with progress.bar("verify", size, "B"), reading(workspace.root):
        for area, folder, ledger in found:
            _check_ledger(area, folder, ledger)
            if workspace.remote is not None:
                workspace.remote.check(folder, ledger.outputs)
            for output in ledger.outputs:
                check_size(area, folder, output)
                check_bytes(area, folder, output)
                workspace.remember_digest(folder / output.path, output.sha256)
                progress.advance(output.bytes)
                files += 1
            _check_counts(area, folder, ledger)
            _check_inputs(workspace, area, folder, ledger)
    workspace.save_digests()
    return Verified(len(found), files, size)


def run_export(folder: Path, *, progress: Progress = SILENT) -> Verified:
    """Read every file that the ledger of an export names; the workspace that it came from is not asked.

    Raises:
        WorkspaceError: the folder holds no finished export.
        DamageError: a file is missing or altered.
        DiskError: a file or folder may not be read.

    """
    with reading(folder):
        ledger = read_ledger(folder)
        if ledger is None or ledger.stage != EXPORT:
            made = "no finished export" if ledger is None else f"what `{ledger.stage}` made, not an export"
            hint = "Run `corpus export` first; an interrupted one goes on with the same command."
            raise WorkspaceError(f"{folder} holds {made}", hint=hint)
        with progress.bar("verify", ledger.output_bytes, "B"):
            _check_ledger(EXPORT, folder, ledger)
            for output in ledger.outputs:
                check_size(EXPORT, folder, output)
                check_bytes(EXPORT, folder, output)
                progress.advance(output.bytes)
    return Verified(1, len(ledger.outputs), ledger.output_bytes)


def _finished(workspace: Workspace) -> Iterator[tuple[str, Path, Ledger]]:
    for area in AREAS:
        root = workspace.root / area
        for folder in [root] if area in SINGLE else [root / name for name in workspace.finished(area)]:
            ledger = read_ledger(folder)
            if ledger is not None:
                yield area, folder, ledger


def _check_ledger(area: str, folder: Path, ledger: Ledger) -> None:
    """A ledger is canonical JSON, and its digest is the one in `timings.json`, which an export from the hub lacks."""
    path, timings = folder / LEDGER, folder / "timings.json"
    identity, found = fingerprint(ledger.stage, ledger.version, ledger.config, ledger.inputs), sha256_file(path)
    try:
        is_without = area == EXPORT and not timings.exists()
        noted = found if is_without else json.loads(timings.read_bytes()).get("ledger_sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise damage(area, folder, timings, f"cannot be read ({error})") from error
    if path.read_bytes() != ledger.to_json() or identity != ledger.fingerprint or noted != found:
        raise damage(area, folder, path, "is not as it was written")


def _check_counts(area: str, folder: Path, ledger: Ledger) -> None:
    """The counts of a stage are the sum of the counts in its shards."""
    if area == "documents":
        total: Counter[str] = Counter()
        for path in folder.glob("part-*.parquet"):
            metadata = part_metadata(path)
            total.update(_flat(metadata[1]) if metadata else {})
        batches = ledger.counts.get("batches")
        counts = {key: value for key, value in ledger.counts.items() if key != "batches"}
        if +total != +Counter(_flat(counts)) or (
            batches is not None and sum(each["records"] for each in batches) != counts["records"]
        ):
            raise damage(area, folder, folder / LEDGER, "does not agree with the counts in its shards")
    if area in {*ROWS.values(), RANKING}:
        for split, counts in ledger.counts["splits"].items():
            rows: Counter[str] = Counter()
            for path in (folder / split).glob("data-*.arrow"):
                metadata = rows_metadata(path)
                rows.update(metadata[1] if metadata else {})
            if +rows != +Counter(counts):
                raise damage(area, folder, folder / LEDGER, f"does not agree with the counts in the shards of {split}")
            if area == RANKING:
                continue
            slots = counts["rows"] * ledger.config["seq_length"]
            if counts["tokens"] + counts["padding"] != slots:
                raise damage(area, folder, folder / LEDGER, f"does not balance: {split} has {slots:,} slots")


def _check_inputs(workspace: Workspace, area: str, folder: Path, ledger: Ledger) -> None:
    elsewhere = rows_elsewhere(workspace, ledger)
    for entry in ledger.inputs:
        if entry.path.startswith(OUTSIDE) or entry in elsewhere:
            continue
        path = workspace.root / entry.path
        if not path.is_file() or sha256_file(path) != entry.sha256:
            what = f"was made from another {entry.path} than the one there now"
            raise damage(area, folder, folder / LEDGER, what, delete=False)


def _flat(values: Any, prefix: str = "") -> dict[str, int]:
    if isinstance(values, dict):
        return {name: count for key, value in values.items() for name, count in _flat(value, f"{prefix}/{key}").items()}
    return {prefix: int(values)}
