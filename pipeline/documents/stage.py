"""The stage that turns raw records into documents: read, clean, filter, write.

In: the files of `raw/<dataset>/`, cut into pieces. Out: `documents/<dataset>/part-NNNNN.parquet` and
`rejected/part-NNNNN.parquet`, one pair for each piece, and with `signatures` what `corpus.pipeline.signatures` says.
Invariants: records = documents + dropped, by reason, in every piece and in the sum; a shard depends on its piece alone,
so workers, interruption and order change nothing; a shard carries a fingerprint, and its piece leaves a receipt, so a
rerun keeps current shards. A file that a growing dataset cannot take leaves the earlier documents finished.
Cost: a worker holds one mebibyte of records and one row group of documents.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corpus.pipeline import kernels
from corpus.pipeline.clean.pii_recognizers import KINDS
from corpus.pipeline.clean.quality import QUALITY
from corpus.pipeline.documents import batches
from corpus.pipeline.documents.batches import Batch
from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.documents.transform import make_part, piece_name
from corpus.pipeline.errors import ArchiveError, DamageError, ManifestError, ShapeError, SourceError, WorkspaceError
from corpus.pipeline.manifest import Manifest
from corpus.pipeline.manifest.table import line_of
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.read.convert import CONVERTED
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.pieces import cut, renumbered
from corpus.pipeline.read.spans import Piece, RecordFile
from corpus.pipeline.signatures.files import Signing
from corpus.pipeline.storage import shard_counts
from corpus.pipeline.storage.document_shards import part_metadata, part_name, part_number, parts
from corpus.pipeline.workers import run_pieces, worker_count
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import FileDigest, Report, Stopwatch, output_changes, read_ledger
from corpus.pipeline.workspace.receipts import Receipt
from corpus.pipeline.workspace.share import Share
from corpus.pipeline.workspace.stage import StageRun

STAGE = "ingest"
VERSION = 4
PIECE_BYTES = 32 << 20
LAYOUTS = {
    "lines": "a JSON object a line", "array": "a JSON array", "csv": "CSV", "tsv": "TSV",
    "text": "plain text, a blank line between documents", "file": "one document a file", "rows": "Parquet",
}  # fmt: skip
"""The layouts of files, in words."""
_WORTH_A_WORKER_BYTES = 16 << 20  # one process finishes less before a second has started


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """How one dataset's records become documents."""

    dataset: str
    min_length: int | None = None
    """Shortest document kept, in characters; the manifest's own when None."""
    workers: int = 0
    """Worker processes; one for each core when 0. The result does not depend on it."""
    off: tuple[str, ...] = ()
    """Filter rules to switch off, besides those of the manifest."""
    mask: bool = True
    """Whether the kinds of personal data that the manifest names become placeholders."""
    piece_bytes: int = PIECE_BYTES
    """Bytes of records in one documents shard."""
    signatures: bool = False
    """Whether documents are signed for dedup while their texts are in memory; else dedup reads them again."""

    def __post_init__(self) -> None:
        if self.min_length is not None and self.min_length < 0:
            raise ValueError(f"--min-length must not be negative, is {self.min_length}")
        for rule in self.off:
            if rule not in QUALITY:
                raise ValueError(f"--no-rule must be one of {', '.join(QUALITY)}, is {rule}")
        if self.workers < 0:
            raise ValueError(f"--workers must not be negative, is {self.workers}")
        if self.piece_bytes < 1:
            raise ValueError(f"piece_bytes must be at least 1, is {self.piece_bytes}")


def run(config: IngestConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Report:
    """Make a dataset's documents; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: the dataset has not been downloaded.
        DamageError: a file in `raw/` is not what its ledger says.
        ArchiveError, SourceError: a file in `raw/` cannot be read.
        ShapeError: nearly all records of a file are not what the manifest describes.
        WorkerError, DiskError, BooksError: as their names say; a rerun resumes.

    """
    stage, manifest = prepare(config, workspace, progress)
    if report := stage.skipped():
        return replace(report, notes=tuple(_notes(config.dataset, report.ledger.counts)))
    with _earlier_kept(stage):
        return _make(config, plan_of(config, manifest, stage), stage)


def prepare(
    config: IngestConfig, workspace: Workspace, progress: Progress, share: Share | None = None
) -> tuple[StageRun, Manifest]:
    """The run of the stage, or of a share of it, and the manifest with what the configuration switches off."""
    watch = Stopwatch()
    manifest = _switched(workspace.manifest(config.dataset), config)
    stage = StageRun(
        workspace, workspace.documents(config.dataset), stage=STAGE, version=VERSION, dataset=config.dataset,
        config=_settings(config, manifest), inputs=_inputs(workspace, workspace.raw(config.dataset)), watch=watch,
        progress=progress, share=share,
    )  # fmt: skip
    return stage, manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be made of a dataset's files."""

    raw: Path
    files: Sequence[RecordFile]
    batches: Sequence[Batch]
    """One of all files where they do not come one after another."""
    grows: bool
    """Whether files come one after another."""
    make: Callable[..., Receipt]
    """Makes a piece, in a worker; `identity` is the fingerprint of its work."""
    total: int | None
    """Bytes of the records, where they are known."""

    def identity(self, batch: Batch, stage: StageRun, first: int) -> str:
        """The fingerprint of the work of a batch, whose shards begin at number `first`."""
        return batch.identity(STAGE, VERSION, stage.config, first) if self.grows else stage.fingerprint

    def workers(self, config: IngestConfig, shares: int = 1) -> int:
        """Worker processes for one of equal shares of the work."""
        return worker_count(
            config.workers, None if self.total is None else self.total // shares // _WORTH_A_WORKER_BYTES + 1
        )


def plan_of(config: IngestConfig, manifest: Manifest, stage: StageRun) -> Plan:
    """Find the files of records, and say how they are read."""
    raw = stage.workspace.raw(config.dataset)
    files = list_files(raw, manifest)
    _say_layout(files, stage.progress)
    came = batches.batches(read_ledger(raw), files, stage.inputs)
    signing = Signing(stage.workspace.dedup, config.dataset) if config.signatures else None
    make = partial(
        make_part, raw=raw, folder=stage.folder, manifest=manifest, min_length=stage.config["min_length"],
        signing=signing,
    )  # fmt: skip
    return Plan(
        raw=raw, files=files, batches=came or [Batch(files, stage.inputs)], grows=bool(came), make=make,
        total=_total(files, config.piece_bytes),
    )  # fmt: skip


def _make(config: IngestConfig, plan: Plan, stage: StageRun) -> Report:
    """Make what is missing of a dataset's documents."""
    folder, progress = stage.folder, stage.progress
    counts, notes, received, first = Counts(), list[str](), list[dict[str, Any]](), 0
    outputs, rejected = list[Path](), list[Path]()
    noted: dict[str, Any] = {}
    workers = plan.workers(config)
    there = _shards(stage) if plan.grows else _keep_current(stage)
    with progress.bar(f"{config.dataset}: documents", plan.total, "B"):
        for batch in plan.batches:
            identity = plan.identity(batch, stage, first)
            kept = {number: each for number, (found, each) in there.items() if found == identity and number >= first}
            made = batches.whole(stage.before, identity, first, kept) if plan.grows else _all_there(stage, kept)
            if made is None:
                pieces = renumbered(cut(plan.raw, batch.files, config.piece_bytes, notes), first)
                made = _make_pieces(stage, partial(plan.make, identity=identity), pieces, kept, workers)
            shards, sum_of_batch = 0, Counts()
            for number, size, each in made:
                progress.drop(each.dropped)
                progress.advance(size)
                name = part_name(number)
                each.check(f"{config.dataset}, {name}")
                noted[name] = shard_counts.entry(each.documents.total(), each.characters, stage.groups.get(name))
                sum_of_batch.add(each)
                outputs.append(folder / part_name(number))
                rejected += [folder / "rejected" / part_name(number)] if each.dropped else []
                shards += 1
            received.append(batches.entry(batch, identity, shards, sum_of_batch))
            counts.add(sum_of_batch)
            first += shards
    _delete_from(folder, first)
    return stage.finish(
        outputs=(*outputs, *rejected),
        counts=counts.to_dict() | ({"batches": received} if plan.grows else {}),
        check_books=partial(counts.check, config.dataset),
        timings={"workers": worker_count(config.workers, None), "engine": kernels.NAME, shard_counts.KEY: noted},
        notes=(*notes, *_notes(config.dataset, counts.to_dict()), *kernels.notes()),
    )


@contextlib.contextmanager
def _earlier_kept(stage: StageRun) -> Iterator[None]:
    """Put a growing dataset's documents back as they were when files that came later cannot be read."""
    try:
        yield
    except (ArchiveError, ShapeError, SourceError) as error:
        before = stage.before
        if before is None or not before.counts.get("batches"):
            raise
        numbers = [part_number(Path(output.path)) for output in before.outputs]
        _delete_from(stage.folder, max(numbers, default=-1) + 1)
        if stage.restore():
            again = f"`corpus ingest --dataset {stage.dataset}` again"
            error.hint = (
                f"{error.hint} The documents of the files that came before are as they were: dedup and pack take them. "
                f"Take that file out of the source, or mend it, and run {again}."
            ).lstrip()
        raise


def _delete_from(folder: Path, number: int) -> None:
    """Delete the shards from a number on."""
    for path in (*parts(folder), *parts(folder / "rejected")):
        if part_number(path) >= number:
            path.unlink()


def _total(files: Sequence[RecordFile], piece_bytes: int) -> int | None:
    """Bytes of the records; None where a file's size is unknown, or it is cut into pieces of another size."""
    is_known = all(
        file.bytes is not None and (file.layout not in CONVERTED or file.bytes <= piece_bytes) for file in files
    )
    return (sum(file.bytes or 0 for file in files) or None) if is_known else None


def _notes(name: str, counts: Mapping[str, Any]) -> Iterator[str]:
    """That there is no document, and why."""
    if not counts["records"]:
        yield f"{name}: the source has no records, so there are no documents"
    elif not counts["documents"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["dropped"].items())
        shows = f"`corpus inspect --dataset {name} --show dropped` shows some"
        yield f"{name}: all {counts['records']:,} records were dropped ({reasons}), so there are no documents; {shows}"


def _inputs(workspace: Workspace, raw: Path) -> list[FileDigest]:
    command = f"corpus download --dataset {raw.name}"
    ledger = read_ledger(raw)
    if ledger is None:
        raise WorkspaceError(f"{raw.name} is not downloaded", hint=f"Run `{command}` (or `corpus ingest`) first.")
    for name, what in output_changes(ledger, raw, workspace.digest):
        raise DamageError(f"{raw / name} {what}", hint=f"Run `{command}` again, with --source if it came from there.")
    return [replace(output, path=workspace.relative(raw / output.path)) for output in ledger.outputs]


def check_rules(manifest: Manifest, where: str, text: str = "") -> None:
    """Refuse unknown filter rules and unknown kinds of personal data; `text` is the manifest's TOML.

    Raises:
        ManifestError: it names them, with their lines when `text` is given.

    """
    problems, quality = list[str](), manifest.quality
    for known, named, what in ((QUALITY, quality.off, "off"), (KINDS, quality.mask, "mask")):
        line = line_of(text, f"quality.{what}")
        place = f"{where}:{line}" if line else where
        problems += [
            f"{place}: quality.{what}: {name!r} is not one of {', '.join(known)}" for name in named if name not in known
        ]
    if problems:
        raise ManifestError("\n".join(problems))


def _switched(manifest: Manifest, config: IngestConfig) -> Manifest:
    """The manifest with the rules and masks that the configuration switches off."""
    check_rules(manifest, f"{manifest.name}.toml")
    quality = manifest.quality
    off = tuple(sorted({*quality.off, *config.off}))
    return replace(manifest, quality=replace(quality, off=off, mask=quality.mask if config.mask else ()))


def _settings(config: IngestConfig, manifest: Manifest) -> dict[str, Any]:
    quality = asdict(manifest.quality)
    shapes = repr((manifest.members, sorted(manifest.shapes.items())))
    formats = [member.format for member in manifest.members]
    split_fields = [shape.split_field for _, shape in sorted(manifest.shapes.items())]
    if any((*formats, *split_fields)):  # so that documents of manifests without them stay current
        shapes += repr((formats, split_fields))
    return {
        "min_length": manifest.min_length if config.min_length is None else config.min_length,
        "simplify": manifest.simplify,
        "drop_empty_brackets": manifest.drop_empty_brackets,
        "validation_share": manifest.validation_share,
        "quality": {
            name: list(value) if type(value) is tuple else value
            for name, value in quality.items()
            if name != "latin_span" or value  # so that documents made without it stay current
        },
        "piece_bytes": config.piece_bytes,
        "manifest": hashlib.sha256(shapes.encode()).hexdigest()[:16],
        "opencc": version("OpenCC") if manifest.simplify else "",
        "unicode": unicodedata.unidata_version,
    }


def _keep_current(stage: StageRun) -> dict[int, tuple[str, Counts]]:
    """Fingerprint and counts of the finished shards that are current, by number; all other shards are deleted."""
    kept = stage.keep_current(stage.shards("part-*.parquet"), shard_metadata)
    found = {part_number(Path(name)): (stage.fingerprint, Counts.from_dict(values)) for name, values in kept.items()}
    return _without_rejected(stage.folder, found)


def _shards(stage: StageRun) -> dict[int, tuple[str, Counts]]:
    """Fingerprint and counts of all whole shards, by number: which are current is for their batch to say."""
    stage.begin()
    shards = stage.identified(stage.shards("part-*.parquet"), shard_metadata)
    found = {part_number(path): (each[0], Counts.from_dict(each[1])) for path, each in shards if each}
    return _without_rejected(stage.folder, found)


def _without_rejected(folder: Path, shards: dict[int, tuple[str, Counts]]) -> dict[int, tuple[str, Counts]]:
    """The same shards, after deleting shards of rejected records that belong to none of them."""
    for path in parts(folder / "rejected"):
        number = part_number(path)
        if number not in shards or not shards[number][1].dropped:
            path.unlink()
    return shards


def shard_metadata(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    """Fingerprint and counts of a documents shard; None where the records dropped from it are missing."""
    metadata = part_metadata(path)
    if metadata is not None and metadata[1]["dropped"]:
        rejected = part_metadata(path.parent / "rejected" / path.name)
        return metadata if rejected is not None and rejected[0] == metadata[0] else None
    return metadata


def _make_pieces(
    stage: StageRun, work: Callable[[Piece], Receipt], pieces: Iterable[Piece], kept: Mapping[int, Counts], workers: int
) -> Iterator[tuple[int, int, Counts]]:
    """Number, size and counts of every piece, in order: kept ones as they are, missing ones once they are made."""
    waiting: deque[tuple[int, int]] = deque()

    def missing() -> Iterator[Piece]:
        for piece in pieces:
            waiting.append((piece.number, size_of(piece)))
            if piece.number not in kept:
                yield piece

    for receipt in run_pieces(work, missing(), workers=workers):
        while piece_name((first := waiting.popleft())[0]) != receipt.piece:
            yield *first, kept[first[0]]
        yield *first, Counts.from_dict(stage.take(receipt).counts)
    for number, size in waiting:
        yield number, size, kept[number]


def _all_there(stage: StageRun, kept: Mapping[int, Counts]) -> Iterator[tuple[int, int, Counts]] | None:
    """Number, 0 and counts of all pieces, where jobs have noted how many there are, and have made each; else None.

    The files of records are then not read.
    """
    pieces = stage.noted_pieces()
    if pieces is None or any(number not in kept for number in range(pieces)):
        return None
    return ((number, 0, kept[number]) for number in range(pieces))


def size_of(piece: Piece) -> int:
    """Bytes of records in a piece, for the progress bar."""
    size = 0
    for span in piece.spans:
        if span.chunks is not None:
            size += sum(chunk.size or len(chunk.data) for chunk in span.chunks)
        else:
            end = span.file.bytes or 0
            size += (end if span.end is None else min(span.end, end)) - span.start
    return size


def _say_layout(files: Sequence[RecordFile], progress: Progress) -> None:
    for layout in sorted({file.layout for file in files} - {"lines"}):
        names = [file.path for file in files if file.layout == layout]
        shown = f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
        progress.say(f"{shown}: {LAYOUTS[layout]}; read as that")
