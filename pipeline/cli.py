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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from corpus.pipeline import closing, console
from corpus.pipeline.errors import CorpusError, SourceError, WorkspaceError
from corpus.pipeline.manifest import BUILT_IN, CORPORA, DATASETS

if TYPE_CHECKING:
    from corpus.pipeline.workspace import Report, Workspace

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_DEMO_WORKSPACE = "demo-workspace"
_DEMO_STEPS = 400
_DEMO_VOCABULARY = 3_000
_DEMO_PROMPTS = ("我肚子痛了，要怎么办？", "潮汐")


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
no_rule_option = click.option(
    "--no-rule", "off", multiple=True, metavar="RULE", help="Switch a filter rule off, may be repeated."
)
mask_option = click.option(
    "--mask/--no-mask", default=True, show_default=True, help="Personal data becomes placeholders such as [手机号]."
)
against_option = click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Evaluation set to keep out: JSON Lines, CSV, Parquet or text; may be repeated.",
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
        reports = _download(workspace, _sources(workspace, datasets, source), source)
    closing.download(reports)


@cli.command()
@dataset_option("all that are downloaded")
@min_length_option
@no_rule_option
@mask_option
@workers_option
@workspace_option()
def clean(datasets: tuple[str, ...], workspace_dir: Path, **settings: Any) -> None:
    """Turn downloaded records into documents: read, clean, mask, filter.

    \b
    Example:
      corpus clean --dataset baike2018qa --min-length 20
    """
    workspace = _workspace(workspace_dir)
    with workspace.writing("clean"):
        names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("raw"))
        if not names:
            raise WorkspaceError(
                f"{workspace.root} holds nothing downloaded", hint="Run `corpus download` or `corpus ingest` first."
            )
        reports = _ingest(workspace, names, **settings)
    closing.ingest(reports, [])


@cli.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@min_length_option
@no_rule_option
@mask_option
@click.option("--dedup/--no-dedup", default=True, show_default=True, help="Leave out documents that repeat others.")
@against_option
@workers_option
@workspace_option()
def ingest(
    datasets: tuple[str, ...],
    source: str | None,
    dedup: bool,
    against: tuple[Path, ...],
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
    workspace = _workspace(workspace_dir)
    reports: list[Report] = []
    with workspace.writing("ingest"):
        for name in _sources(workspace, datasets, source):
            _download(workspace, (name,), source)
            reports += _ingest(workspace, (name,), **settings)
        lists = _leave_out(workspace, dedup=dedup, against=against, workers=settings["workers"])
        left_out = _left_out(workspace, reports) if lists else []
    closing.ingest(reports, left_out, lists)


@cli.command()
@dataset_option("all that have documents")
@click.option("--near/--no-near", default=True, show_default=True, help="Count documents that are nearly alike, too.")
@click.option(
    "--threshold", type=float, default=0.8, show_default=True, help="Least similarity (Jaccard, of shingles of 5)."
)
@workers_option
@workspace_option()
def dedup(datasets: tuple[str, ...], workspace_dir: Path, **settings: Any) -> None:
    """Find documents that repeat others, within and across datasets.

    Script, width, punctuation and blanks do not count. One document of each group stays: one of the test split,
    else of validation, else the first in the order of datasets, files and records; the others are listed in
    dedup/NAME.parquet and no later command uses them.

    \b
    Examples:
      corpus dedup
      corpus dedup --threshold 0.9
    """
    from corpus.pipeline import dedup as stage

    workspace = _workspace(workspace_dir)
    config = _config(stage.DedupConfig, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing("dedup"):
        report = stage.run(config, workspace, progress=console.Console())
    closing.dedup(report)


@cli.command()
@dataset_option("all that have documents")
@against_option
@click.option(
    "--field", "fields", multiple=True, metavar="NAME", help="Field of the items, dotted when nested.  [default: all]"
)
@click.option("--cut", is_flag=True, help="Cut the shared span out of prose instead of leaving the document out.")
@click.option("--min-share", type=float, metavar="X", help="Least share of an item's text that counts.")
@workers_option
@workspace_option()
def decontaminate(datasets: tuple[str, ...], workspace_dir: Path, min_share: float | None, **settings: Any) -> None:
    """Find documents that hold items of evaluation sets.

    Compares spans of 13 characters; script, width, punctuation and blanks do not count. The documents are listed
    in decontaminate/NAME.parquet with the item and the shared span, and no later command uses them. The sets are
    kept in the workspace: left out, --against means those that were given before.

    \b
    Examples:
      corpus decontaminate --against ceval.jsonl --against cmmlu.csv
      corpus decontaminate --against gaokao.jsonl --field question --cut
    """
    from corpus.pipeline import decontaminate as stage

    workspace = _workspace(workspace_dir)
    settings |= {} if min_share is None else {"min_share": min_share}
    config = _config(stage.DecontaminateConfig, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing("decontaminate"):
        report = stage.run(config, workspace, progress=console.Console())
    closing.decontaminate(report)


@cli.command()
@dataset_option("all that have documents")
@click.option("--vocab-size", type=int, default=32_000, show_default=True, help="Entries, special tokens included.")
@click.option("--sample-characters", type=int, default=40_000_000, show_default=True, help="Characters to train on.")
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
        stage.TokenizerConfig,
        datasets=tuple(dict.fromkeys(datasets)),
        vocab_size=vocab_size,
        sample_characters=sample_characters,
    )
    with workspace.writing("tokenizer"):
        report = stage.run(config, workspace, progress=console.Console())
    closing.tokenizer(report)


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
    closing.pack(reports)


@cli.command()
@dataset_option("all that are packed")
@click.option(
    "--model", default="gpt2-small", show_default=True, metavar="PRESET", help="Size of the model; see --list-models."
)
@click.option(
    "--init", type=click.Path(path_type=Path), metavar="DIR", help="Go on from this model instead of random weights."
)
@click.option("--run", default="", metavar="NAME", help="Folder below models/.  [default: PRESET and a fingerprint]")
@click.option("--epochs", type=float, default=1.0, show_default=True, help="How often each row is seen.")
@click.option("--max-steps", type=int, metavar="N", help="Optimizer steps, instead of --epochs.")
@click.option("--batch-size", type=int, metavar="N", help="Rows of a step, over all devices.  [default: the preset's]")
@click.option("--micro-batch-size", type=int, metavar="N", help="Rows of one pass of one device.  [default: what fits]")
@click.option("--learning-rate", type=float, metavar="X", help="Peak of the schedule.  [default: the preset's]")
@click.option("--warmup", type=float, default=0.05, show_default=True, help="Steps, or below 1 a share of all.")
@click.option("--weight-decay", type=float, default=0.1, show_default=True, help="AdamW's, on matrices.")
@click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient; 0: none.")
@click.option("--dropout", type=float, metavar="X", help="Share of units dropped.  [default: the preset's]")
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights, order and dropout.")
@click.option(
    "--document-mask/--no-document-mask", default=True, show_default=True, help="Attention stays inside a document."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--log-steps", type=int, default=10, show_default=True, help="Steps between two losses in metrics.jsonl.")
@click.option(
    "--eval-steps", type=int, metavar="N", help="Steps between two evaluations.  [default: about ten in a run]"
)
@click.option(
    "--eval-rows", type=int, default=128, show_default=True, help="Most validation rows of a dataset; 0: all."
)
@click.option(
    "--save-steps", type=int, metavar="N", help="Steps between two checkpoints.  [default: a tenth of the run]"
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the last checkpoint of the same run."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Compute activations twice to save memory.")
@click.option("--compile", "compile_model", is_flag=True, help="Use torch.compile.")
@click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: torch's choice]")
@click.option("--list-models", is_flag=True, help="Print the presets and leave.")
@workspace_option()
def train(
    datasets: tuple[str, ...], compile_model: bool, list_models: bool, workspace_dir: Path, **settings: Any
) -> None:
    """Train a GPT on packed rows.

    Prints parameters, tokens, steps and an estimate of the time before it starts. Interrupted, it goes on from
    its last checkpoint when the same command is run again. Losses and bits per character on each dataset's
    validation split are in models/RUN/metrics.jsonl.

    \b
    Examples:
      corpus train --list-models
      corpus train --model tiny --max-steps 200
      corpus train --dataset wiki2019zh --model gpt2-small --epochs 5
    """
    if list_models:
        _list_models()
        return
    from corpus.train.config import TrainConfig

    workspace = _workspace(workspace_dir)
    config = _config(TrainConfig, datasets=datasets, compile=compile_model, **settings)
    console.Console().say("loading torch and transformers ...")
    from corpus.train import train as stage

    with workspace.writing("train"):
        report = stage.run(config, workspace, progress=console.Console())
    closing.train(report)


@cli.command()
@click.option("--model", metavar="DIR", help="A run's name, or a model's folder.  [default: the newest run]")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Text to continue, may be repeated; left out: a new document.",
)
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="Most tokens of one sample.")
@click.option(
    "--temperature", type=float, default=1.0, show_default=True, help="Below 1 bolder choices get rarer; 0: none."
)
@click.option("--top-k", type=int, default=30, show_default=True, help="Choose among the k likeliest tokens; 0: all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="... that together reach this probability.")
@click.option(
    "--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1, repeating gets less likely."
)
@click.option("--num-samples", type=int, default=1, show_default=True, help="Different continuations of each prompt.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.  [default: a new one, printed]")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Most samples written at the same time.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End where this text comes, may be repeated.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@workspace_option()
def sample(
    model: str | None, device: str, precision: str, seed: int | None, workspace_dir: Path, **settings: Any
) -> None:
    """Continue a prompt, token by token, until the model ends the document.

    \b
    Examples:
      corpus sample --prompt 我感冒了怎么办？
      corpus sample --prompt 秋天的山里 --num-samples 3 --temperature 0.8 --seed 7
    """
    from corpus.generate.config import SampleConfig

    workspace = _workspace(workspace_dir)
    settings["prompts"] = settings["prompts"] or ("",)
    config = _config(SampleConfig, **settings, **({} if seed is None else {"seed": seed}))
    folder = _model_folder(workspace, model)
    console.Console().say(f"loading {folder} ...")
    from corpus.generate import sample as stage

    _print_samples(stage, stage.load(folder, device=device, precision=precision), config)


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
    workspace = _workspace(workspace_dir)
    with workspace.writing("demo"):
        console.write("1. Records become documents")
        _download(workspace, (BUILT_IN,), None)
        reports = _ingest(workspace, (BUILT_IN,))
        lists = _leave_out(workspace, dedup=True, against=(), workers=0)
        closing.ingest(reports, _left_out(workspace, reports), lists)
        console.write("\n2. Documents become rows of tokens")
        closing.pack(
            _pack(workspace, (BUILT_IN,), vocab_size=_DEMO_VOCABULARY, seq_length=256, strategy="best-fit", workers=0)
        )
        console.write("\n3. Rows train a GPT")
        folder = _demo_train(workspace, max_steps)
    console.write("\n4. The GPT answers a question it has seen, and continues an article")
    from corpus.generate import sample as stage
    from corpus.generate.config import SampleConfig

    model = stage.load(folder)
    for prompt in _DEMO_PROMPTS:
        _print_samples(stage, model, SampleConfig(prompts=(prompt,), max_new_tokens=120, temperature=0, seed=1))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@workspace_option()
def status(as_json: bool, workspace_dir: Path) -> None:
    """Show what is finished, stale, partial or missing in this workspace, and why.

    \b
    Example:
      corpus status
    """
    import json

    from corpus.pipeline.status import survey

    rows = survey(_workspace(workspace_dir))
    if as_json:
        console.write(json.dumps([row.to_dict() for row in rows], ensure_ascii=False, indent=2))
    elif rows:
        shown = [
            (
                f"{row.area}/{row.name}".rstrip("/"),
                row.state,
                row.files or "-",
                console.size(row.bytes) if row.bytes else "-",
            )
            for row in rows
        ]
        console.table(("what", "state", "files", "size"), shown, left=2)
        for row in rows:
            if row.why:
                console.write(f"{row.area}/{row.name}: {row.state}: {row.why}")
    else:
        console.write(f"{workspace_dir} is empty. Begin with `corpus ingest`, or with `corpus demo`.")


@cli.command()
@workspace_option()
def verify(workspace_dir: Path) -> None:
    """Read every finished file again: is every byte what its ledger says, and do the books agree?

    Ends with exit code 1 at the first file that is not right, and says how to make it again.

    \b
    Example:
      corpus verify
    """
    from corpus.pipeline import verify as checks

    found = checks.run(_workspace(workspace_dir), progress=console.Console())
    console.write(
        f"{found.files:,} files of {found.stages} stages, {console.size(found.bytes)}: all as their ledgers say"
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
    from corpus.pipeline import inspect as stage

    workspace = _workspace(workspace_dir)
    names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no documents", hint="Run `corpus ingest` first.")
    for shown in stage.sample(workspace, names, state=state or "", reason=reason or "", limit=limit, seed=seed):
        closing.shown(shown)


@cli.command()
@click.argument("place", required=False, metavar="[DATASET[/SPLIT]:ROW]")
@click.option("--document", metavar="ID", help="The document with this id.")
@click.option("--text", metavar="WORDS", help="Documents that hold these words.")
@click.option("--rejected", metavar="REASON", help="Records dropped for this reason.")
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
      corpus trace --text 北京
      corpus trace --rejected too_short -n 5
    """
    from corpus.pipeline import trace as tracing

    if sum(value is not None for value in (place, document, text, rejected)) != 1 or "" in (document, text, rejected):
        raise click.UsageError("give one of DATASET[/SPLIT]:ROW, --document, --text and --rejected")
    workspace = _workspace(workspace_dir)
    names = datasets or tuple(workspace.finished("documents"))
    if place is not None:
        dataset, split, number = _place(place)
        segments, padding = tracing.row(workspace, dataset, split, number)
        closing.row(segments, padding)
        if not all(segment.rebuilt and segment.origin.rebuilt for segment in segments):
            raise CorpusError(
                "the record does not give the same tokens again", hint="Run `corpus status` and `corpus verify`."
            )
    elif rejected is not None:
        closing.dropped(list(tracing.rejected(workspace, names, rejected, limit=limit)), rejected)
    else:
        found = tracing.documents(workspace, names, name=document or "", text=text or "", limit=limit)
        closing.origins(list(found))


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


def _sources(workspace: Workspace, datasets: Sequence[str], source: str | None) -> tuple[str, ...]:
    """The datasets to bring: those asked for, else the five, else those of the five that the source has."""
    if source is not None and not source.strip():
        raise click.UsageError("--source must name a folder, an archive or a URL, is empty")
    if datasets or source is None:
        return tuple(dict.fromkeys(datasets)) or CORPORA
    from corpus.pipeline import source as places

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
    from corpus.pipeline import download as stage

    configs = [_config(stage.DownloadConfig, dataset=name, source=source) for name in datasets]
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _ingest(workspace: Workspace, datasets: Sequence[str], **settings: Any) -> list[Report]:
    from corpus.pipeline import ingest as stage

    configs = [_config(stage.IngestConfig, dataset=name, **settings) for name in datasets]
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _leave_out(workspace: Workspace, *, dedup: bool, against: tuple[Path, ...], workers: int) -> list[Report]:
    """Find duplicates, and contamination when there are evaluation sets, in all documents of the workspace."""
    from corpus.pipeline import decontaminate as contamination_stage
    from corpus.pipeline import dedup as stage
    from corpus.pipeline.workspace import read_ledger

    progress = console.Console()
    reports = []
    if dedup:
        reports.append(stage.run(_config(stage.DedupConfig, workers=workers), workspace, progress=progress))
    if against or read_ledger(workspace.decontaminate) is not None:
        config = _config(contamination_stage.DecontaminateConfig, against=against, workers=workers)
        reports.append(contamination_stage.run(config, workspace, progress=progress))
    return reports


def _left_out(workspace: Workspace, reports: Sequence[Report]) -> list[Any]:
    """What the lists keep out of each dataset."""
    from corpus.pipeline import selection

    return [selection.load(workspace, report.ledger.dataset or "") for report in reports]


def _pack(
    workspace: Workspace, datasets: Sequence[str], *, vocab_size: int | None = None, **settings: Any
) -> list[Report]:
    from corpus.pipeline import pack as stage
    from corpus.pipeline import tokenizer as tokenizer_stage
    from corpus.pipeline.workspace import read_ledger

    _config(stage.PackConfig, dataset=BUILT_IN, **settings)  # wrong usage is told before what is missing
    names = tuple(dict.fromkeys(datasets)) or tuple(workspace.finished("documents"))
    if not names:
        raise WorkspaceError(f"{workspace.root} holds no documents", hint="Run `corpus ingest` first.")
    configs = [_config(stage.PackConfig, dataset=name, **settings) for name in names]
    if read_ledger(workspace.tokenizer) is None:
        console.Console().say("there is no tokenizer yet: training one first, as `corpus tokenizer` does")
        config = tokenizer_stage.TokenizerConfig(vocab_size=vocab_size or tokenizer_stage.VOCAB_SIZE)
        closing.tokenizer(tokenizer_stage.run(config, workspace, progress=console.Console()))
    return [stage.run(config, workspace, progress=console.Console()) for config in configs]


def _place(place: str) -> tuple[str, str, int]:
    """`DATASET[/SPLIT]:ROW`, read."""
    name, _, number = place.rpartition(":")
    dataset, _, split = name.partition("/")
    if dataset not in DATASETS or not number.isdecimal():
        raise click.UsageError(
            f"{place!r} is not DATASET[/SPLIT]:ROW, such as baike2018qa:0 or wiki2019zh/validation:3"
        )
    return dataset, split or "train", int(number)


def _list_models() -> None:
    from corpus.train.presets import list_models

    rows = [
        (
            row.name,
            row.layers,
            row.width,
            row.heads,
            row.context,
            f"{row.parameters / 1e6:,.1f} M",
            console.size(row.memory),
        )
        for row in list_models()
    ]
    console.table(("preset", "layers", "width", "heads", "context", "parameters", "memory"), rows)


def _model_folder(workspace: Workspace, model: str | None) -> Path:
    from corpus.pipeline.errors import ModelError
    from corpus.pipeline.workspace import LEDGER

    if model is not None:
        named = workspace.models / model
        return named if named.is_dir() else Path(model).expanduser()
    finished = sorted(workspace.models.glob(f"*/{LEDGER}"), key=lambda path: path.stat().st_mtime_ns)
    if not finished:
        raise ModelError(
            f"{workspace.models} holds no finished model",
            hint="Run `corpus train` first, or name one with --model DIR.",
        )
    return finished[-1].parent


def _print_samples(stage: Any, model: Any, config: Any) -> None:
    """Samples one after another as they are written: the prompt, its continuation, and how it ended."""
    many = len(config.prompts) * config.num_samples > 1
    opened: set[tuple[int, int]] = set()
    progress = console.Console()
    for piece in stage.in_order(stage.stream(model, config, progress=progress), config):
        if (piece.prompt, piece.sample) not in opened:
            opened.add((piece.prompt, piece.sample))
            if many:
                console.write(f"--- prompt {piece.prompt + 1}, sample {piece.sample + 1}")
            console.write(config.prompts[piece.prompt], end="")
        console.write(console.harmless(piece.text), end="")
        if piece.finish:
            console.write()
            progress.say(
                f"({piece.finish.tokens} tokens, {piece.finish.tokens_per_second:.0f} a second, "
                f"ended by {piece.finish.reason}, seed {config.seed})"
            )


def _demo_train(workspace: Workspace, max_steps: int) -> Path:
    from corpus.train.config import TrainConfig

    config = _config(
        TrainConfig, datasets=(BUILT_IN,), model="tiny", max_steps=max_steps, batch_size=8, learning_rate=1e-3,
        dropout=0.0, log_steps=20, eval_steps=max(1, max_steps),
    )  # fmt: skip
    console.Console().say("loading torch and transformers ...")
    from corpus.train import train as stage

    report = stage.run(config, workspace, progress=console.Console())
    closing.losses(report.folder)
    closing.train(report)
    return report.folder


def _prepare() -> None:
    """A terminal that cannot show a character must not end a command, and SIGTERM ends it as Ctrl-C does."""
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
