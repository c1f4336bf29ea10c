"""`corpus datasets`, `status`, `verify`, `inspect` and `trace`: what is in a workspace. They write nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpus.pipeline.cli import summaries, workspace_url
from corpus.pipeline.cli.options import dataset_option, json_option, tell_behind, workspace_of, workspace_option
from corpus.pipeline.errors import CorpusError, WorkspaceError
from corpus.pipeline.humanize import record_text, size_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.inspect.lineage import DocumentOrigin, Dropped, Segment

_RUNS = 5
"""Runs of a document that are shown."""


@click.command()
@json_option
@workspace_option()
def datasets(as_json: bool, workspace_dir: Path) -> None:
    """List the datasets, and what of each this workspace has.

    \b
    Example:
      corpus datasets
    """
    workspace = workspace_of(workspace_dir)
    finished = {area: workspace.finished(area) for area in ("raw", "documents", "packed", "chat")}
    here = {name: [area for area, names in finished.items() if name in names] for name in workspace.datasets()}
    summaries.datasets([workspace.manifest(name) for name in here], here, as_json=as_json)


@click.command()
@json_option
@workspace_option()
def status(as_json: bool, workspace_dir: Path) -> None:
    """Show what is finished, stale, partial or missing, and why.

    \b
    Example:
      corpus status
    """
    from corpus.pipeline.inspect.status import survey

    workspace = workspace_of(workspace_dir)
    rows = survey(workspace)
    tell_behind(workspace)
    if as_json:
        console.data([asdict(row) for row in rows])
    elif rows:
        summaries.status(rows)
    else:
        console.line(
            f"{workspace_url.shown(workspace_dir)} is empty. Begin with `corpus ingest`, or with `corpus demo`."
        )


@click.command()
@click.option(
    "--export", "exported", metavar="FOLDER", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Compare what `corpus export` wrote there, not the workspace.",
)  # fmt: skip
@json_option
@workspace_option()
def verify(as_json: bool, exported: Path | None, workspace_dir: Path) -> None:
    """Compare every finished file with its ledger, byte by byte.

    Checks that the counts of the ledgers agree, too. Ends with exit code 1 at the first file that is damaged, and
    says how to rebuild it. Exports lie outside the workspace; name one with --export.

    \b
    Examples:
      corpus verify
      corpus verify --export ../nanoGPT/data/corpus_zh
    """
    from corpus.pipeline.inspect import verify as checks

    if exported is not None:
        found = checks.run_export(exported.expanduser(), progress=console.Console())
    else:
        found = checks.run(workspace_of(workspace_dir), progress=console.Console())
    if as_json:
        console.data(asdict(found))
    elif exported is not None:
        console.line(f"{found.files:,} files of {exported}, {size_text(found.bytes)}: all as its ledger says")
    else:
        console.line(
            f"{found.files:,} files of {found.stages} stages, {size_text(found.bytes)}: all as their ledgers say"
        )


@click.command()
@dataset_option("all that have documents")
@click.option("--reason", metavar="R", help="Only what this rule, mask or list did; see the closing table of ingest.")
@click.option("--show", "state", type=click.Choice(["kept", "changed", "dropped", "left-out"]), help="Only these.")
@click.option(
    "--passages", is_flag=True, help="Show the passages that most documents repeat, after `corpus dedup --spans`."
)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most shown.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed shows others.")
@workspace_option()
def inspect(
    datasets: tuple[str, ...], reason: str | None, state: str | None, passages: bool, limit: int, seed: int,
    workspace_dir: Path,
) -> None:  # fmt: skip
    """Show random documents, before and after cleaning.

    They were kept, changed, dropped or left out. Removed text is marked [-so-], inserted text {+so+}; in colour on a
    terminal. A duplicate is compared with the document that is used in its place.

    \b
    Examples:
      corpus inspect --dataset news2016zh -n 5
      corpus inspect --reason repeated_spans
      corpus inspect --reason mobile_number --show changed
      corpus inspect --passages
    """
    from corpus.pipeline.inspect import examples as stage
    from corpus.pipeline.inspect import shared
    from corpus.pipeline.workspace.checked import bring_all

    if passages and (reason or state):
        raise click.UsageError(f"--passages does not go with {'--reason' if reason else '--show'}")

    workspace = workspace_of(workspace_dir)
    names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.shown} holds no documents", hint="Run `corpus ingest` first.")
    bring_all(workspace, ("documents", "dedup", "decontaminate", "quality"), console.Console())
    if passages:
        for found in shared.passages(workspace, names, limit=limit):
            where = f"characters {found.start:,} to {found.end:,} of {found.dataset} {found.id}"
            console.write(f"--- {found.documents:,} documents repeat {where}")
            console.write(found.text)
        return
    for shown in stage.sample(workspace, names, state=state or "", reason=reason or "", limit=limit, seed=seed):
        console.write(f"--- {shown.dataset} {shown.id}: {shown.state}: {shown.why}")
        console.marked(shown.pieces)


@click.command()
@click.argument("place", required=False, metavar="[DATASET[/SPLIT]:ROW]")
@click.option("--document", metavar="ID", help="The document with this id.")
@click.option("--text", metavar="WORDS", help="Documents that hold these words.")
@click.option("--rejected", metavar="REASON", help="Records dropped for this reason.")
@click.option(
    "--form", type=click.Choice(["text", "chat"]), default="text", show_default=True, help="The form that ROW is in."
)
@dataset_option("all that have documents")
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=3, show_default=True, help="Most documents or records shown."
)
@workspace_option()
def trace(
    place: str | None,
    document: str | None,
    text: str | None,
    rejected: str | None,
    form: str,
    datasets: tuple[str, ...],
    limit: int,
    workspace_dir: Path,
) -> None:
    """Trace a packed row, a document or words to the records.

    Shows the dataset, the document's id, the file and byte offset of its record, the record itself, the cleaning
    rules that changed it, and whether it gives the same tokens again.

    \b
    Examples:
      corpus trace baike2018qa:0
      corpus trace wiki2019zh/validation:3
      corpus trace --form chat baike2018qa:0
      corpus trace --text 北京
      corpus trace --rejected too_short -n 5
    """
    from corpus.pipeline.inspect import lineage as tracing
    from corpus.pipeline.workspace.checked import bring_all

    wanted = {"DATASET[/SPLIT]:ROW": place, "--document": document, "--text": text, "--rejected": rejected}
    given = [flag for flag, value in wanted.items() if value is not None]
    if len(given) != 1:
        raise click.UsageError("give one of DATASET[/SPLIT]:ROW, --document, --text and --rejected")
    if not (wanted[given[0]] or "").strip():
        raise click.UsageError(f"{given[0]} must not be empty")
    if form != "text" and place is None:
        raise click.UsageError("--form goes with DATASET[/SPLIT]:ROW")
    workspace = workspace_of(workspace_dir)
    names = datasets or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.shown} holds no documents", hint="Run `corpus ingest` first.")
    bring_all(workspace, ("documents", "dedup", "decontaminate", "quality", "packed", "chat"), console.Console())
    if place is not None:
        dataset, split, number = _place(place, workspace.datasets())
        segments, padding = tracing.row(workspace, dataset, split, number, form)
        _row(segments, padding)
        if not all(segment.rebuilt and segment.origin.rebuilt is not False for segment in segments):
            raise CorpusError(
                "the record does not give the same tokens again", hint="Run `corpus status` and `corpus verify`."
            )
    elif rejected is not None:
        _dropped(list(tracing.rejected(workspace, names, rejected, limit=limit)), rejected)
    else:
        _origins(list(tracing.documents(workspace, names, name=document or "", text=text or "", limit=limit)))


def _place(place: str, known: Collection[str]) -> tuple[str, str, int]:
    """Dataset, split and number in `DATASET[/SPLIT]:ROW`."""
    name, _, number = place.rpartition(":")
    dataset, _, split = name.partition("/")
    if dataset not in known or not number.isdecimal():
        raise click.UsageError(
            f"{place!r} is not DATASET[/SPLIT]:ROW, such as baike2018qa:0 or wiki2019zh/validation:3"
        )
    return dataset, split or "train", int(number)


def _row(segments: Sequence[Segment], padding: int) -> None:
    for number, segment in enumerate(segments):
        end = segment.start + segment.length
        console.write(f"--- segment {number}: tokens {segment.start:,} to {end:,} of the document")
        console.write(segment.text)
        _origin(segment.origin)
        console.write(f"tokens: {'the same again' if segment.rebuilt else 'NOT the same again'}\n")
    console.write(f"{len(segments)} segments, {padding} slots of padding")


def _origins(found: Sequence[DocumentOrigin]) -> None:
    for entry in found:
        console.write(f"--- document, {entry.split}")
        console.write(entry.text)
        _origin(entry)
        console.write()
    console.write(f"{len(found)} documents shown")


def _origin(entry: DocumentOrigin) -> None:
    """The record of a document, and the rules that changed it."""
    console.write(f"document: {entry.id} ({entry.dataset})")
    if entry.score:
        console.write(f"quality: score {entry.score[0]:.4f}, {'left out' if entry.score[1] else 'stays'}")
    for run in entry.runs[:_RUNS]:
        console.write(
            f"shared: characters {run.start:,} to {run.end:,} stand in {run.first_dataset} {run.first_id}, "
            f"from {run.first_start:,} on"
        )
    if len(entry.runs) > _RUNS:
        console.write(f"shared: {len(entry.runs) - _RUNS:,} more runs")
    if not entry.raw:
        console.write(f"source: {entry.source_file}, offset {entry.source_offset:,}")
        console.write(
            f"record: not here, as raw/{entry.dataset} was deleted; `corpus download --dataset {entry.dataset}` "
            "brings it back"
        )
        return
    console.write(f"source: raw/{entry.dataset}/{entry.container}, {entry.source_file}, offset {entry.source_offset:,}")
    console.write(f"record: {record_text(entry.raw)}")
    again = "the same text again" if entry.rebuilt else "NOT the same text again"
    console.write(f"cleaned by: {', '.join(entry.rules) or 'nothing'}; {again}")


def _dropped(found: Sequence[Dropped], reason: str) -> None:
    for entry in found:
        console.write(
            f"--- {entry.dataset}, {entry.source_file}, offset {entry.source_offset:,}: {entry.reason}: {entry.detail}"
        )
        console.write(record_text(entry.raw))
    console.write(f"{len(found)} records dropped for {reason} shown")
