"""The command line: options in, a stage's `run`, a table out. The one place that prints, and the one boundary for
errors.

Nothing heavy is imported at the top: `corpus --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from corpus.pipeline.cli import report as cli_report
from corpus.pipeline.cli import sample, summaries, train, views
from corpus.pipeline.cli.options import (
    against_option,
    config_of,
    dataset_option,
    json_option,
    mask_option,
    min_length_option,
    no_rule_option,
    source_option,
    tell_behind,
    workers_option,
    workspace_of,
    workspace_option,
)
from corpus.pipeline.errors import CorpusError, SourceError, WorkspaceError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.manifest import BUILT_IN, CORPORA, DATASETS
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.pipeline.workspace.ledger import Report

_DEMO_WORKSPACE = "demo-workspace"
_DEMO_STEPS = 400
_DEMO_VOCABULARY = 3_000
_DEMO_PROMPTS = ("我肚子痛了，要怎么办？", "潮汐")


class Commands(click.Group):
    """Commands in the order in which they are used, not in that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # as click calls it
        """The order of definition."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="corpus-zh", prog_name="corpus")
def cli() -> None:
    """From five public Chinese corpora to a trained GPT.

    \b
    The whole way on the built-in dataset, in a few minutes on a laptop:
      corpus demo
    \b
    On the real corpora (here one of them, fetched from its mirrors):
      corpus ingest --dataset baike2018qa
      corpus pack --dataset baike2018qa
      corpus train --model gpt2-small
      corpus sample --prompt 我感冒了怎么办？

    Everything is written below one folder, the workspace. A command that was interrupted goes on where it was
    when it is run again; one whose work is finished and current says so and does nothing.
    """


@cli.command()
@json_option
@workspace_option()
def datasets(as_json: bool, workspace_dir: Path) -> None:
    """List the datasets, and how far each has come in this workspace.

    \b
    Example:
      corpus datasets
    """
    from corpus.pipeline import manifest as manifests

    workspace = workspace_of(workspace_dir)
    finished = {area: workspace.finished(area) for area in ("raw", "documents", "packed", "chat")}
    here = {name: [area for area, names in finished.items() if name in names] for name in DATASETS}
    summaries.datasets([manifests.load(name) for name in DATASETS], here, as_json=as_json)


@cli.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@json_option
@workspace_option()
def download(datasets: tuple[str, ...], source: str | None, as_json: bool, workspace_dir: Path) -> None:
    """Fetch archives, or take them from a place of your own.

    \b
    Examples:
      corpus download --dataset wiki2019zh
      corpus download --source ~/Downloads
    """
    workspace = workspace_of(workspace_dir)
    with workspace.writing("download"):
        reports = _download(workspace, _sources(workspace, datasets, source), source)
    if as_json:
        summaries.as_json(reports)
    else:
        summaries.download(reports)


@cli.command()
@dataset_option("all that are downloaded")
@min_length_option
@no_rule_option
@mask_option
@workers_option
@json_option
@workspace_option()
def clean(datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Turn downloaded records into documents: read, clean, mask, filter.

    \b
    Example:
      corpus clean --dataset baike2018qa --min-length 20
    """
    from corpus.pipeline.workers import kept

    workspace = workspace_of(workspace_dir)
    with workspace.writing("clean"), kept():
        names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("raw"))
        if not names:
            raise WorkspaceError(
                f"{workspace.root} holds nothing downloaded", hint="Run `corpus download` or `corpus ingest` first."
            )
        reports = _ingest(workspace, names, **settings)
    if as_json:
        summaries.as_json(reports)
    else:
        summaries.ingest(reports, [])


@cli.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@min_length_option
@no_rule_option
@mask_option
@click.option("--dedup/--no-dedup", default=True, show_default=True, help="Leave out documents that repeat others.")
@against_option
@workers_option
@json_option
@workspace_option()
def ingest(
    datasets: tuple[str, ...],
    source: str | None,
    dedup: bool,
    against: tuple[Path, ...],
    as_json: bool,
    workspace_dir: Path,
    **settings: Any,
) -> None:
    """Download, clean, filter, find duplicates: everything up to documents.

    Dropped records lie in documents/NAME/rejected/ with the reason; the ledger counts them. Duplicates within
    and across datasets, and documents that hold items of the evaluation sets, stay in documents/ and are listed
    in dedup/ and decontaminate/; no later command uses them. Official splits are kept; wiki2019zh, which has
    none, gives 0.5 % to validation.

    \b
    Examples:
      corpus ingest --dataset baike2018qa
      corpus ingest --source ~/Downloads
      corpus ingest --dataset wiki2019zh --source https://example.org/corpora/ --min-length 64
      corpus ingest --against ceval.jsonl --against cmmlu.csv --no-rule little_han
    """
    from corpus.pipeline.workers import kept

    workspace = workspace_of(workspace_dir)
    reports: list[Report] = []
    with workspace.writing("ingest"), kept():
        for name in _sources(workspace, datasets, source):
            _download(workspace, (name,), source)
            reports += _ingest(workspace, (name,), **settings)
        lists = _leave_out(workspace, dedup=dedup, against=against, workers=settings["workers"])
        left_out = _left_out(workspace, reports) if lists else []
    if as_json:
        summaries.as_json([*reports, *lists], left_out)
    else:
        summaries.ingest(reports, left_out, lists)


@cli.command()
@dataset_option("all that have documents")
@click.option("--near/--no-near", default=True, show_default=True, help="Count documents that are nearly alike, too.")
@click.option(
    "--threshold", type=float, default=0.8, show_default=True, help="Least similarity (Jaccard, of shingles of 5)."
)
@workers_option
@json_option
@workspace_option()
def dedup(datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Find documents that repeat others, within and across datasets.

    Script, width, punctuation and blanks do not count. One document of each group stays: one of the test split,
    else of validation, else the first in the order of datasets, files and records; the others are listed in
    dedup/NAME.parquet and no later command uses them.

    \b
    Examples:
      corpus dedup
      corpus dedup --threshold 0.9
    """
    from corpus.pipeline.dedup import stage

    workspace = workspace_of(workspace_dir)
    config = config_of(stage.DedupConfig, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing("dedup"):
        report = stage.run(config, workspace, progress=console.Console())
    if as_json:
        summaries.as_json([report])
    else:
        summaries.dedup(report)


@cli.command()
@dataset_option("all that have documents")
@against_option
@click.option(
    "--field", "fields", multiple=True, metavar="NAME", help="Field of the items, dotted when nested.  [default: all]"
)
@click.option("--cut", is_flag=True, help="Cut the shared span out of prose instead of leaving the document out.")
@click.option("--min-share", type=float, metavar="X", help="Least share of an item's text that counts.")
@workers_option
@json_option
@workspace_option()
def decontaminate(
    datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, min_share: float | None, **settings: Any
) -> None:
    """Find documents that hold items of evaluation sets.

    Compares spans of 13 characters; script, width, punctuation and blanks do not count. The documents are listed
    in decontaminate/NAME.parquet with the item and the shared span, and no later command uses them. The sets are
    kept in the workspace: left out, --against means those that were given before.

    \b
    Examples:
      corpus decontaminate --against ceval.jsonl --against cmmlu.csv
      corpus decontaminate --against gaokao.jsonl --field question --cut
    """
    from corpus.pipeline.decontaminate import stage
    from corpus.pipeline.decontaminate.config import DecontaminateConfig

    workspace = workspace_of(workspace_dir)
    settings |= {} if min_share is None else {"min_share": min_share}
    config = config_of(DecontaminateConfig, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing("decontaminate"):
        report = stage.run(config, workspace, progress=console.Console())
    if as_json:
        summaries.as_json([report])
    else:
        summaries.decontaminate(report)


@cli.command()
@dataset_option("all that have documents")
@click.option("--vocab-size", type=int, default=32_000, show_default=True, help="Entries, special tokens included.")
@click.option("--sample-characters", type=int, default=40_000_000, show_default=True, help="Characters to train on.")
@json_option
@workspace_option()
def tokenizer(
    datasets: tuple[str, ...], vocab_size: int, sample_characters: int, as_json: bool, workspace_dir: Path
) -> None:
    """Train the byte-level BPE tokenizer on the documents.

    \b
    Example:
      corpus tokenizer --vocab-size 32000
    """
    from corpus.pipeline.tokenizer import stage

    workspace = workspace_of(workspace_dir)
    config = config_of(
        stage.TokenizerConfig,
        datasets=tuple(dict.fromkeys(datasets)),
        vocab_size=vocab_size,
        sample_characters=sample_characters,
    )
    with workspace.writing("tokenizer"):
        report = stage.run(config, workspace, progress=console.Console())
    if as_json:
        summaries.as_json([report])
    else:
        summaries.tokenizer(report)


@cli.command()
@dataset_option("all that have documents")
@click.option(
    "--form", type=click.Choice(["text", "chat"]), default="text", show_default=True,
    help="chat: only documents with a question, as a turn of the user and one of the assistant.",
)  # fmt: skip
@click.option("--seq-length", type=int, default=1024, show_default=True, help="Tokens of a row.")
@click.option(
    "--strategy", type=click.Choice(["best-fit", "concat"]), default="best-fit", show_default=True,
    help="best-fit cuts only documents longer than a row; concat cuts wherever a row ends.",
)  # fmt: skip
@click.option(
    "--exclude", "excluded", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Ids of documents to take out for good, one a line; may be repeated.",
)  # fmt: skip
@workers_option
@json_option
@workspace_option()
def pack(
    datasets: tuple[str, ...], excluded: tuple[Path, ...], as_json: bool, workspace_dir: Path, **settings: Any
) -> None:
    """Tokenize documents and pack them into Arrow shards.

    Trains the tokenizer first if there is none, on all documents in the workspace.

    Rows of the chat form lie apart from the others, in `chat/`. Each is question and answer between the tokens that
    `corpus sample --chat` uses; training on them predicts the answers alone.

    What --exclude names (DATASET:ID, or ID) goes on the workspace's list, exclude.txt, and stays out of the rows of
    every later pack, until its line is taken from that file. `corpus inspect` and `corpus trace` show the ids.

    \b
    Examples:
      corpus pack --dataset baike2018qa
      corpus pack --exclude takedown.txt
      corpus pack --seq-length 2048 --strategy concat
      corpus pack --form chat --dataset baike2018qa
    """
    from corpus.pipeline.pack import stage
    from corpus.pipeline.storage import removals

    config_of(stage.PackConfig, dataset=BUILT_IN, **settings)  # wrong usage is told before the list grows
    workspace = workspace_of(workspace_dir)
    with workspace.writing("pack"):
        named = removals.add(workspace, excluded)
        reports = _pack(workspace, datasets, **settings)
        tell_behind(workspace)
        _warn_of_excluded(workspace, named, [report.ledger.dataset for report in reports if report.ledger.dataset])
    if as_json:
        summaries.as_json(reports)
    else:
        summaries.pack(reports)


cli.add_command(train.train)
cli.add_command(sample.sample)
cli.add_command(train.evaluate)
cli.add_command(cli_report.report)
cli.add_command(cli_report.card)


@cli.command()
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    default=_DEMO_STEPS,
    show_default=True,
    help="Training steps; more is better and slower.",
)
@workspace_option(_DEMO_WORKSPACE)
def demo(max_steps: int, workspace_dir: Path) -> None:
    """Go the whole way on the built-in dataset, small enough for a laptop CPU.

    About 220 records in the five corpora's formats, written for this purpose: ingest, tokenizer, rows, a tiny
    GPT, and two samples. A model this small learns its texts by heart; it shows the way, not what a model can do.

    \b
    Example:
      corpus demo
    """
    workspace = workspace_of(workspace_dir)
    with workspace.writing("demo"):
        console.write("1. Records become documents")
        _download(workspace, (BUILT_IN,), None)
        reports = _ingest(workspace, (BUILT_IN,))
        lists = _leave_out(workspace, dedup=True, against=(), workers=0)
        summaries.ingest(reports, _left_out(workspace, reports), lists)
        console.write("\n2. Documents become rows of tokens")
        summaries.pack(
            _pack(workspace, (BUILT_IN,), vocab_size=_DEMO_VOCABULARY, seq_length=256, strategy="best-fit", workers=0)
        )
        console.write("\n3. Rows train a GPT")
        folder = train.train_demo(workspace, max_steps, _DEMO_PROMPTS)
    console.write("\n4. The GPT answers a question it has seen, and continues an article")
    from corpus.generate import stage
    from corpus.generate.config import SampleConfig

    model = stage.load(folder)
    for prompt in _DEMO_PROMPTS:
        sample.print_samples(stage, model, SampleConfig(prompts=(prompt,), max_new_tokens=120, temperature=0, seed=1))
    console.write(f"\nTo see all of it as a page: corpus report --workspace {workspace.root}")


@cli.command()
@json_option
@workspace_option()
def status(as_json: bool, workspace_dir: Path) -> None:
    """Show what is finished, stale, partial or missing in this workspace, and why.

    \b
    Example:
      corpus status
    """
    from corpus.pipeline.inspect.status import survey

    workspace = workspace_of(workspace_dir)
    rows = survey(workspace)
    tell_behind(workspace)
    if as_json:
        console.data([row.to_dict() for row in rows])
    elif rows:
        summaries.status(rows)
    else:
        console.line(f"{workspace_dir} is empty. Begin with `corpus ingest`, or with `corpus demo`.")


@cli.command()
@json_option
@workspace_option()
def verify(as_json: bool, workspace_dir: Path) -> None:
    """Read every finished file again: is every byte what its ledger says, and do the books agree?

    Ends with exit code 1 at the first file that is not right, and says how to make it again.

    \b
    Example:
      corpus verify
    """
    from corpus.pipeline.inspect import verify as checks

    found = checks.run(workspace_of(workspace_dir), progress=console.Console())
    if as_json:
        console.data({"stages": found.stages, "files": found.files, "bytes": found.bytes})
    else:
        console.line(
            f"{found.files:,} files of {found.stages} stages, {size_text(found.bytes)}: all as their ledgers say"
        )


@cli.command()
@dataset_option("all that have documents")
@click.option("--reason", metavar="R", help="Only what this rule, mask or list did; see the closing table of ingest.")
@click.option("--show", "state", type=click.Choice(["kept", "changed", "dropped", "left-out"]), help="Only these.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most shown.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed shows others.")
@workspace_option()
def inspect(
    datasets: tuple[str, ...], reason: str | None, state: str | None, limit: int, seed: int, workspace_dir: Path
) -> None:
    """Show random documents as they are: kept, changed, dropped or left out, before and after.

    What cleaning took is marked [-so-], what it put {+so+}; in colour on a terminal. A document left out as a
    duplicate is shown against the one that is used in its place.

    \b
    Examples:
      corpus inspect --dataset news2016zh -n 5
      corpus inspect --reason repeated_spans
      corpus inspect --reason mobile_number --show changed
    """
    from corpus.pipeline.inspect import examples as stage

    workspace = workspace_of(workspace_dir)
    names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no documents", hint="Run `corpus ingest` first.")
    for shown in stage.sample(workspace, names, state=state or "", reason=reason or "", limit=limit, seed=seed):
        views.shown(shown)


@cli.command()
@click.argument("place", required=False, metavar="[DATASET[/SPLIT]:ROW]")
@click.option("--document", metavar="ID", help="The document with this id.")
@click.option("--text", metavar="WORDS", help="Documents that hold these words.")
@click.option("--rejected", metavar="REASON", help="Records dropped for this reason.")
@click.option(
    "--form", type=click.Choice(["text", "chat"]), default="text", show_default=True, help="The form that ROW is in."
)
@dataset_option("all that have documents")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=3, show_default=True, help="Most documents or records shown."
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
    """Go back from a packed row, a document or words to the records as they came.

    Shows the dataset, the document's id, the file and byte offset of its record, the record itself and the
    cleaning rules that changed it, and whether the same tokens come out again.

    \b
    Examples:
      corpus trace baike2018qa:0
      corpus trace wiki2019zh/validation:3
      corpus trace --form chat baike2018qa:0
      corpus trace --text 北京
      corpus trace --rejected too_short -n 5
    """
    from corpus.pipeline.inspect import lineage as tracing

    if sum(value is not None for value in (place, document, text, rejected)) != 1 or "" in (document, text, rejected):
        raise click.UsageError("give one of DATASET[/SPLIT]:ROW, --document, --text and --rejected")
    if form != "text" and place is None:
        raise click.UsageError("--form goes with DATASET[/SPLIT]:ROW")
    workspace = workspace_of(workspace_dir)
    names = datasets or tuple(workspace.finished("documents"))
    if place is not None:
        dataset, split, number = _place(place)
        segments, padding = tracing.row(workspace, dataset, split, number, form)
        views.row(segments, padding)
        if not all(segment.rebuilt and segment.origin.rebuilt for segment in segments):
            raise CorpusError(
                "the record does not give the same tokens again", hint="Run `corpus status` and `corpus verify`."
            )
    elif rejected is not None:
        views.dropped(list(tracing.rejected(workspace, names, rejected, limit=limit)), rejected)
    else:
        found = tracing.documents(workspace, names, name=document or "", text=text or "", limit=limit)
        views.origins(list(found))


# --- what the commands share ---------------------------------------------------------------------------------------


def _sources(workspace: Workspace, datasets: Sequence[str], source: str | None) -> tuple[str, ...]:
    """The datasets to bring: those asked for, else the five, else those of the five that the source has."""
    if source is not None and not source.strip():
        raise click.UsageError("--source must name a folder, an archive or a URL, is empty")
    if datasets or source is None:
        return tuple(dict.fromkeys(datasets)) or CORPORA
    from corpus.pipeline.download import source as places

    progress = console.Console()
    shown = places.shown(source)
    found = [
        name for name in CORPORA if places.found_in(source, name, exclude=workspace.root / "raw", progress=progress)
    ]
    absent = [name for name in CORPORA if name not in found]
    if not found:
        raise SourceError(
            f"none of the five corpora is at {shown}",
            hint="Name one with --dataset to see what was looked for and what is there.",
        )
    if absent:
        progress.say(f"not at {shown}: {', '.join(absent)}")
    return tuple(found)


def _download(workspace: Workspace, datasets: Sequence[str], source: str | None) -> list[Report]:
    from corpus.pipeline.download import stage

    configs = [config_of(stage.DownloadConfig, dataset=name, source=source) for name in datasets]
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _ingest(workspace: Workspace, datasets: Sequence[str], **settings: Any) -> list[Report]:
    from corpus.pipeline.documents import stage

    configs = [config_of(stage.IngestConfig, dataset=name, **settings) for name in datasets]
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _leave_out(workspace: Workspace, *, dedup: bool, against: tuple[Path, ...], workers: int) -> list[Report]:
    """Find duplicates, and contamination when there are evaluation sets, in all documents of the workspace."""
    from corpus.pipeline.decontaminate import stage as contamination_stage
    from corpus.pipeline.decontaminate.config import DecontaminateConfig
    from corpus.pipeline.dedup import stage
    from corpus.pipeline.workspace.ledger import read_ledger

    progress = console.Console()
    reports = []
    if dedup:
        reports.append(stage.run(config_of(stage.DedupConfig, workers=workers), workspace, progress=progress))
    if against or read_ledger(workspace.decontaminate) is not None:
        config = config_of(DecontaminateConfig, against=against, workers=workers)
        reports.append(contamination_stage.run(config, workspace, progress=progress))
    return reports


def _warn_of_excluded(workspace: Workspace, named: Sequence[str], datasets: Sequence[str]) -> None:
    """Say which ids of --exclude name no document of what was packed, and which one that was not used anyway."""
    from corpus.pipeline.storage import removals as exclude
    from corpus.pipeline.storage import selection

    if not named:
        return
    chosen = {name: selection.load(workspace, name, removals=True) for name in datasets}
    ids = {each: [(name, exclude.of_dataset([each], name)) for name in datasets] for each in named}
    unknown = [each for each, own in ids.items() if not any(one & chosen[name].known for name, one in own)]
    unused = [
        each
        for each, own in ids.items()
        if any(one & chosen[name].known - {*chosen[name].removed} for name, one in own)
    ]
    for found, what in (
        (unknown, "are no documents of what was packed"),
        (unused, "were left out before; the document that each is like may stay"),
    ):
        if found:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            console.Console().say(f"{len(found):,} of {len(ids):,} excluded ids {what}: {shown}")


def _left_out(workspace: Workspace, reports: Sequence[Report]) -> list[Any]:
    """What the lists keep out of each dataset."""
    from corpus.pipeline.storage import selection

    return [selection.load(workspace, report.ledger.dataset or "") for report in reports]


def _pack(
    workspace: Workspace, datasets: Sequence[str], *, vocab_size: int | None = None, **settings: Any
) -> list[Report]:
    """Rows of each dataset; before them the tokenizer, where there was none."""
    from corpus.pipeline.pack import dataset_card, stage
    from corpus.pipeline.tokenizer import stage as tokenizer_stage
    from corpus.pipeline.workers import kept
    from corpus.pipeline.workspace.ledger import read_ledger

    config_of(stage.PackConfig, dataset=BUILT_IN, **settings)  # wrong usage is told before what is missing
    names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no documents", hint="Run `corpus ingest` first.")
    if settings.get("form") == "chat" and not datasets:
        names = _with_questions(workspace, names)
    configs = [config_of(stage.PackConfig, dataset=name, **settings) for name in names]
    reports: list[Report] = []
    if read_ledger(workspace.tokenizer) is None:
        console.Console().say("there is no tokenizer yet: training one first, as `corpus tokenizer` does")
        config = tokenizer_stage.TokenizerConfig(vocab_size=vocab_size or tokenizer_stage.VOCAB_SIZE)
        reports.append(tokenizer_stage.run(config, workspace, progress=console.Console()))
    with kept():
        for each in configs:
            reports.append(stage.run(each, workspace, progress=console.Console()))
            dataset_card.write(workspace, each.dataset, each.form)
    return reports


def _with_questions(workspace: Workspace, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the datasets that the chat form can use; of the others it is said."""
    from corpus.pipeline.pack.shard import has_questions

    found = tuple(name for name in names if has_questions(workspace.documents(name)))
    others = ", ".join(name for name in names if name not in found)
    if not found:
        raise WorkspaceError(
            f"{others}: no questions that the chat form could use",
            hint="`corpus pack` without --form takes any document.",
        )
    if others:
        console.Console().say(f"without questions, so not packed: {others}")
    return found


def _place(place: str) -> tuple[str, str, int]:
    """`DATASET[/SPLIT]:ROW`, read."""
    name, _, number = place.rpartition(":")
    dataset, _, split = name.partition("/")
    if dataset not in DATASETS or not number.isdecimal():
        raise click.UsageError(
            f"{place!r} is not DATASET[/SPLIT]:ROW, such as baike2018qa:0 or wiki2019zh/validation:3"
        )
    return dataset, split or "train", int(number)


def _prepare() -> None:
    """A terminal that cannot show a character must not end a command, and SIGTERM ends it as Ctrl-C does."""
    console.open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _interrupt)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 a named failure, 2 wrong usage, 130 interrupted."""
    _prepare()
    try:
        code = cli.main(
            args=list(arguments) if arguments is not None else None, prog_name="corpus", standalone_mode=False
        )
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.UsageError as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
        code = 130
    except CorpusError as error:
        console.failure(error)
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; so may we
        code = 1
    except MemoryError:
        console.failure(CorpusError("out of memory", hint="Use fewer --workers or a smaller model."))
        code = 1
    except OSError as error:
        console.failure(CorpusError(f"{error.filename or 'the system'}: {error.strerror or error}"))
        code = 1
    except Exception as error:  # the last boundary: a traceback is for us, not for a user
        if os.environ.get("CORPUS_DEBUG"):
            raise
        console.failure(
            CorpusError(
                f"internal error: {type(error).__name__}: {error}",
                hint="This is a defect of corpus-zh. Run again with CORPUS_DEBUG=1 and report what it prints.",
            )
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does: cleanly, and resumable."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
