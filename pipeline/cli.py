"""The command line: options in, a stage's `run`, a table out. The one place that prints, and the one boundary for errors.

Nothing heavy is imported at the top: `corpus --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from corpus.pipeline import console
from corpus.pipeline.errors import CorpusError, SourceError
from corpus.pipeline.manifest import BUILT_IN, CORPORA, DATASETS

if TYPE_CHECKING:
    from corpus.pipeline.workspace import Report, Workspace

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_DEMO_WORKSPACE = "demo-workspace"


class Commands(click.Group):
    """Commands in the order in which they are used, not in that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
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


def workspace_option(default: str = "workspace") -> Callable[[F], F]:
    """`--workspace`, which every command takes."""
    return click.option(
        "--workspace",
        "workspace_dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="CORPUS_WORKSPACE" if default == "workspace" else None,
        default=default,
        show_default=True,
        metavar="DIR",
        help="The folder that holds everything" + (" (or CORPUS_WORKSPACE)." if default == "workspace" else "."),
    )


def dataset_option(left_out: str) -> Callable[[F], F]:
    """`--dataset`, repeatable."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        type=click.Choice(DATASETS),
        metavar="NAME",
        help=f"Dataset, may be repeated; left out: {left_out}.",
    )


workers_option = click.option(
    "--workers", type=int, default=0, show_default="one for each core", help="Worker processes; the result is the same."
)
source_option = click.option(
    "--source",
    metavar="DIR|URL",
    help="Where the archives lie: a folder, a URL, one archive, or a folder of unpacked files.  [default: the mirrors]",
)
min_length_option = click.option(
    "--min-length", type=int, metavar="N", help="Shortest document kept, in characters.  [default: the manifest's]"
)


@cli.command()
@workspace_option()
def datasets(workspace_dir: Path) -> None:
    """List the datasets, and how far each has come in this workspace.

    \b
    Example:
      corpus datasets
    """
    from corpus.pipeline import manifest as manifests
    from corpus.pipeline.workspace import read_ledger

    workspace = _workspace(workspace_dir)
    rows = []
    for name in DATASETS:
        manifest = manifests.load(name)
        areas = (("raw", workspace.raw), ("documents", workspace.documents), ("packed", workspace.packed))
        done = [area for area, folder in areas if read_ledger(folder(name)) is not None]
        rows.append(
            (
                name,
                console.size(manifest.raw_bytes),
                f"{manifest.records:,}",
                manifest.licence,
                done[-1] if done else "-",
            )
        )
    console.table(("dataset", "size", "records", "licence", "here"), rows)
    for name in DATASETS:
        console.write(f"{name}: {manifests.load(name).summary}")


@cli.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@workspace_option()
def download(datasets: tuple[str, ...], source: str | None, workspace_dir: Path) -> None:
    """Fetch archives, or take them from a place of your own.

    \b
    Examples:
      corpus download --dataset wiki2019zh
      corpus download --source ~/Downloads
    """
    workspace = _workspace(workspace_dir)
    with workspace.writing("download"):
        reports = _download(workspace, datasets, source)
    _close_download(reports)


@cli.command()
@dataset_option("all that are downloaded")
@min_length_option
@workers_option
@workspace_option()
def clean(datasets: tuple[str, ...], min_length: int | None, workers: int, workspace_dir: Path) -> None:
    """Turn downloaded records into documents: read, clean, filter.

    \b
    Example:
      corpus clean --dataset baike2018qa --min-length 20
    """
    workspace = _workspace(workspace_dir)
    with workspace.writing("clean"):
        reports = _ingest(workspace, datasets or tuple(workspace.finished("raw")), min_length, workers)
    _close_ingest(reports)


@cli.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@min_length_option
@workers_option
@workspace_option()
def ingest(
    datasets: tuple[str, ...], source: str | None, min_length: int | None, workers: int, workspace_dir: Path
) -> None:
    """Download, clean, filter: everything up to documents.

    Dropped records lie in documents/NAME/rejected/ with the reason; the ledger counts them. Official splits
    are kept; wiki2019zh, which has none, gives 0.5 % to validation.

    \b
    Examples:
      corpus ingest --dataset baike2018qa
      corpus ingest --source ~/Downloads
      corpus ingest --dataset wiki2019zh --source https://example.org/corpora/ --min-length 64
    """
    workspace = _workspace(workspace_dir)
    reports: list[Report] = []
    with workspace.writing("ingest"):
        for name in _sources(datasets, source):
            _download(workspace, (name,), source)
            reports += _ingest(workspace, (name,), min_length, workers)
    _close_ingest(reports)


@cli.command()
@dataset_option("all that have documents")
@click.option("--vocab-size", type=int, default=32_000, show_default=True, help="Entries, special tokens included.")
@click.option("--sample-characters", type=int, default=10_000_000, show_default=True, help="Characters to train on.")
@workspace_option()
def tokenizer(datasets: tuple[str, ...], vocab_size: int, sample_characters: int, workspace_dir: Path) -> None:
    """Train the byte-level BPE tokenizer on the documents.

    \b
    Example:
      corpus tokenizer --vocab-size 32000
    """
    from corpus.pipeline import tokenizer as stage

    workspace = _workspace(workspace_dir)
    config = _config(
        stage.TokenizerConfig, datasets=datasets, vocab_size=vocab_size, sample_characters=sample_characters
    )
    with workspace.writing("tokenizer"):
        report = stage.run(config, workspace, progress=console.Console())
    _close_tokenizer(report)


@cli.command()
@dataset_option("all that have documents")
@click.option("--seq-length", type=int, default=1024, show_default=True, help="Tokens of a row.")
@click.option(
    "--strategy", type=click.Choice(["best-fit", "concat"]), default="best-fit", show_default=True,
    help="best-fit cuts only documents longer than a row; concat cuts wherever a row ends.",
)  # fmt: skip
@workers_option
@workspace_option()
def pack(datasets: tuple[str, ...], seq_length: int, strategy: str, workers: int, workspace_dir: Path) -> None:
    """Tokenize documents and pack them into Arrow shards.

    Trains the tokenizer first if there is none, on all documents in the workspace.

    \b
    Examples:
      corpus pack --dataset baike2018qa
      corpus pack --seq-length 2048 --strategy concat
    """
    workspace = _workspace(workspace_dir)
    with workspace.writing("pack"):
        reports = _pack(workspace, datasets, seq_length=seq_length, strategy=strategy, workers=workers)
    _close_pack(reports)


# --- what the commands share ---------------------------------------------------------------------------------------


def _workspace(folder: Path) -> Workspace:
    from corpus.pipeline.workspace import Workspace

    return Workspace(folder.expanduser())


def _config(kind: Callable[..., T], **values: Any) -> T:
    """A stage's configuration; what its check refuses is wrong usage."""
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _sources(datasets: Sequence[str], source: str | None) -> Iterator[str]:
    """The datasets to ingest: those asked for, else the five, else those of the five that the source has."""
    from corpus.pipeline import source as places

    if datasets or source is None:
        yield from datasets or CORPORA
        return
    found = [name for name in CORPORA if places.found_in(source, name)]
    absent = [name for name in CORPORA if name not in found]
    if not found:
        raise SourceError(
            f"none of the five corpora is at {places.shown(source)}",
            hint="Name one with --dataset to see what was looked for and what is there.",
        )
    if absent:
        console.Console().say(f"not at {places.shown(source)}: {', '.join(absent)}")
    yield from found


def _download(workspace: Workspace, datasets: Sequence[str], source: str | None) -> list[Report]:
    from corpus.pipeline import download as stage

    return [
        stage.run(_config(stage.DownloadConfig, dataset=name, source=source), workspace, progress=console.Console())
        for name in _sources(datasets, source)
    ]


def _ingest(workspace: Workspace, datasets: Sequence[str], min_length: int | None, workers: int) -> list[Report]:
    from corpus.pipeline import ingest as stage

    configs = [_config(stage.IngestConfig, dataset=name, min_length=min_length, workers=workers) for name in datasets]
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _pack(workspace: Workspace, datasets: Sequence[str], **settings: Any) -> list[Report]:
    from corpus.pipeline import pack as stage
    from corpus.pipeline import tokenizer as tokenizer_stage
    from corpus.pipeline.errors import WorkspaceError
    from corpus.pipeline.workspace import read_ledger

    names = datasets or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no documents", hint="Run `corpus ingest` first.")
    configs = [_config(stage.PackConfig, dataset=name, **settings) for name in names]
    if read_ledger(workspace.tokenizer) is None:
        console.Console().say("there is no tokenizer yet: training one first, as `corpus tokenizer` does")
        _close_tokenizer(tokenizer_stage.run(tokenizer_stage.TokenizerConfig(), workspace, progress=console.Console()))
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _close_download(reports: Sequence[Report]) -> None:
    rows = [
        (report.ledger.dataset, len(report.ledger.outputs), console.size(report.ledger.output_bytes), _state(report))
        for report in reports
    ]
    console.table(("dataset", "files", "size", "state"), rows)
    _ledgers(reports)


def _close_ingest(reports: Sequence[Report]) -> None:
    rows: list[tuple[object, ...]] = []
    for report in reports:
        counts = report.ledger.counts
        dropped = sum(counts["dropped"].values())
        characters = sum(counts["characters"].values())
        rows.append(
            (report.ledger.dataset, counts["records"], counts["documents"], dropped, characters, _state(report))
        )
    console.table(("dataset", "records", "documents", "dropped", "characters", "state"), rows)
    for report in reports:
        why = ", ".join(f"{reason} {count:,}" for reason, count in report.ledger.counts["dropped"].items())
        console.write(f"{report.ledger.dataset}: dropped: {why or 'nothing'}")
    _ledgers(reports)


def _close_tokenizer(report: Report) -> None:
    rows = [
        (
            name,
            f"{row['bytes_per_token']:.2f}",
            f"{row['characters_per_token']:.2f}",
            f"{row['han_with_own_token']:.2%}",
        )
        for name, row in report.ledger.counts["datasets"].items()
    ]
    title = f"tokenizer: {report.ledger.counts['entries']:,} entries, {_state(report)}"
    console.table(("sample of", "bytes/token", "characters/token", "Han with own token"), rows, title=title)
    _ledgers([report])


def _close_pack(reports: Sequence[Report]) -> None:
    rows: list[tuple[object, ...]] = []
    for report in reports:
        seq_length = report.ledger.config["seq_length"]
        for split, count in report.ledger.counts["splits"].items():
            used = count["tokens"] / max(1, count["rows"] * seq_length)
            name = report.ledger.dataset if split == "train" else f"  {split}"
            rows.append(
                (name, count["documents"], count["tokens"], count["rows"], f"{used:.2%}", count["cut_documents"])
            )
    console.table(("dataset", "documents", "tokens", "rows", "used", "cut"), rows)
    _ledgers(reports)


def _state(report: Report) -> str:
    return "was finished" if report.skipped else f"{report.seconds:.1f} s"


def _ledgers(reports: Sequence[Report]) -> None:
    for report in reports:
        for note in report.notes:
            console.write(f"note: {note}")
    for report in reports:
        console.write(f"ledger: {report.folder / 'ledger.json'}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 a named failure, 2 wrong usage, 130 interrupted."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _interrupt)
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
        print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)  # noqa: T201
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
    except Exception as error:  # noqa: BLE001  # the last boundary: a traceback is for us, not for a user
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


def _interrupt(number: int, frame: object) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does: cleanly, and resumable."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
