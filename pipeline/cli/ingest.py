"""`corpus download`, `clean`, `ingest`, `dedup`, `decontaminate` and `quality`: from archives to the used documents."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import options, summaries
from corpus.pipeline.terminal.console import Console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.pipeline.workspace.share import Share


@click.command()
@options.dataset_option("the five corpora, or those found at --source")
@options.manifest_option
@options.source_option
@click.option(
    "--by-reference", is_flag=True,
    help="Leave the files at --source URL: note their size and ETag, and read them there.",
)  # fmt: skip
@options.no_share_option("files come one after another; run it once, before the jobs")
@options.json_option
@options.workspace_option()
def download(as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Fetch archives from mirrors or from --source.

    \b
    Examples:
      corpus download --dataset wiki2019zh
      corpus download --source ~/Downloads
      corpus download --dataset news2016zh --source s3://bucket/corpora --by-reference
    """
    from corpus.pipeline import workflows

    with options.usage_errors():
        reports = workflows.download(options.workspace_of(workspace_dir), progress=Console(), **settings)
    summaries.closing(reports, partial(summaries.download, reports), json_only=as_json)


@click.command()
@options.dataset_option("all that are downloaded")
@options.min_length_option
@options.no_rule_option
@options.mask_option
@options.workers_option
@options.no_share_option("`corpus ingest --shard` does the same on what is downloaded")
@options.json_option
@options.workspace_option()
def clean(as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Turn records into documents: read, clean, mask, filter.

    \b
    Example:
      corpus clean --dataset baike2018qa --min-length 20
    """
    from corpus.pipeline import workflows

    with options.usage_errors():
        reports = workflows.clean(options.workspace_of(workspace_dir), progress=Console(), **settings)
    summaries.closing(reports, partial(summaries.ingest, reports), json_only=as_json)


@click.command()
@options.dataset_option("the five corpora, or those found at --source")
@options.manifest_option
@options.source_option
@options.min_length_option
@options.no_rule_option
@options.mask_option
@click.option("--dedup/--no-dedup", default=True, show_default=True, help="Leave out documents that repeat others.")
@options.against_option
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def ingest(as_json: bool, workspace_dir: Path, share: Share | None, **settings: Any) -> None:
    """Download, clean, filter and deduplicate, in one command.

    Dropped records go to documents/NAME/rejected/ with the reason; the ledger counts them. Duplicates within and
    across datasets, and documents that hold items of the evaluation sets, stay in documents/; dedup/ and
    decontaminate/ list them, and no later command uses them. Official splits are kept; wiki2019zh has no splits, so
    0.5 % of it goes to validation.

    With --shard the command is one job of an array: it cleans its share of what `corpus download` has brought, and
    leaves duplicates and evaluation sets to the run without --shard that follows. docs/cluster.md has the scripts.

    \b
    Examples:
      corpus ingest --dataset baike2018qa
      corpus ingest --source ~/Downloads
      corpus ingest --dataset wiki2019zh --source https://example.org/corpora/ --min-length 64
      corpus ingest --manifest mine.toml
      corpus ingest --against ceval.jsonl --against cmmlu.csv --no-rule little_han
      corpus ingest --dataset news2016zh --shard 3/16
    """
    from corpus.pipeline import workflows

    workspace = options.workspace_of(workspace_dir)
    if share is not None:
        _share(workspace, share, settings, as_json=as_json)
        return
    with options.usage_errors():
        result = workflows.ingest(workspace, progress=Console(), **settings)
    table = partial(summaries.ingest, result.documents, result.left_out, result.lists)
    made = [report.ledger.dataset for report in result.documents if report.ledger.counts["documents"]]
    ranked = [name for name in made if name and workspace.manifest(name).has_rankings]
    rest = [name for name in made if name and name not in ranked]
    pack, named = ("corpus pack", rest) if rest or not ranked else ("corpus pack --form ranking", ranked)
    command = " --dataset ".join([pack, *named]) if len(made) < 3 else pack
    summaries.closing(
        [*result.documents, *result.lists], table, json_only=as_json, left_out=result.left_out,
        then=options.in_workspace(command, workspace_dir) if made else "",
    )  # fmt: skip


def _share(workspace: Workspace, share: Share, settings: dict[str, Any], *, as_json: bool) -> None:
    """`--shard`."""
    from corpus.pipeline.workflows import shares

    for name, why in (
        ("manifests", "run `corpus download --manifest FILE` once, before the jobs"),
        ("source", "run `corpus download --source DIR` once, before the jobs"),
        ("against", "give it to the run without --shard that finishes"),
    ):
        if settings.pop(name):
            raise click.UsageError(f"--{name.removesuffix('s')} must not stand with --shard: {why}")
    with options.usage_errors():
        reports = shares.ingest(workspace, share, progress=Console(), **settings)
    summaries.shares(reports, as_json=as_json)


@click.command()
@options.dataset_option("all that have documents")
@click.option("--near/--no-near", default=True, show_default=True, help="Also find near duplicates.")
@click.option(
    "--threshold", default=0.7, show_default=True, help="Least similarity of near duplicates (Jaccard, 5-shingles)."
)
@click.option(
    "--spans", type=int, metavar="N",
    help="Also list runs of at least N characters that several of the other documents share.  [default: off]",
)  # fmt: skip
@click.option("--cut", is_flag=True, help="With --spans: cut the runs out of prose, all but the first of each.")
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def dedup(**settings: Any) -> None:
    """Find duplicate documents, within and across datasets.

    Script, width, punctuation and blanks do not count. One document of each group is kept: one of the test split,
    else of validation, else the first in the order of datasets, files and records. dedup/lists/NAME/ lists the
    others, and no later command uses them. With --spans 200, dedup/spans/NAME/ lists every run of 200 or more
    characters that an earlier document has too, and dedup/passages.parquet those that most documents repeat; with
    --cut later commands use prose without them.

    With --shard the command is one job of an array: it signs its share of the documents that `corpus ingest` has not
    signed. The run without --shard compares all of them.

    \b
    Examples:
      corpus dedup
      corpus dedup --threshold 0.9
      corpus dedup --spans 200
      corpus dedup --spans 200 --cut
    """
    from corpus.pipeline.dedup import stage

    options.run_stage_or_share(stage, stage.DedupConfig, summary=summaries.dedup, **settings)


@click.command()
@options.dataset_option("all that have documents")
@options.against_option
@click.option("--forget", multiple=True, metavar="NAME", help="Evaluation set to take out again; may be repeated.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME", help="Field of the items, dotted when nested.  [default: all]"
)
@click.option("--cut", is_flag=True, help="Cut the shared span out of prose instead of leaving the document out.")
@click.option("--min-share", type=float, metavar="X", help="Least share of an item's text that counts.")
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def decontaminate(min_share: float | None, **settings: Any) -> None:
    """Find documents that hold items of evaluation sets.

    Compares spans of 13 characters; script, width, punctuation and blanks do not count. decontaminate/lists/NAME/
    lists the documents with the item and the shared span, and no later command uses them. The workspace keeps the
    sets: without --against, those given before are used; --forget takes one out by the name of its file. A set that
    has none of the fields of --field is searched for whole.

    With --shard the command is one job of an array: it searches its share of the documents, and a run without --shard
    with the same flags makes the lists. docs/cluster.md has the scripts.

    \b
    Examples:
      corpus decontaminate --against ceval.jsonl --against cmmlu.csv
      corpus decontaminate --forget cmmlu.csv
      corpus decontaminate --against gaokao.jsonl --field question --cut
    """
    from corpus.pipeline.decontaminate import stage
    from corpus.pipeline.decontaminate.config import DecontaminateConfig

    settings |= {} if min_share is None else {"min_share": min_share}
    options.run_stage_or_share(stage, DecontaminateConfig, summary=summaries.decontaminate, **settings)


@click.command()
@click.option(
    "--positive", multiple=True, metavar="NAME|FILE",
    help="Good text: a dataset, or a file of JSON Lines, CSV, Parquet or text; may be repeated.  [default: as before]",
)  # fmt: skip
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME",
    help="Field of a file's items, dotted if nested.  [default: all]",
)
@click.option(
    "--model", type=options.NamedPath(dir_okay=False), metavar="FILE",
    help="Score with a trained model, the quality/model.safetensors of another workspace.",
)  # fmt: skip
@options.dataset_option("all that have documents, but the positive ones")
@click.option(
    "--alpha", type=float,
    help="Shape of the Pareto rule: with a smaller one more documents stay.  [default: 9]",
)  # fmt: skip
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def quality(**settings: Any) -> None:
    """Leave out documents that are unlike good text.

    Trains a logistic regression on character n-grams, good text against the other datasets, as GPT-3 did: a document
    stays when a Pareto draw of its id exceeds 1 - score. quality/lists/ names the others, and no later command
    uses them; quality/scores/ has the score of every document. Validation, test and positive datasets lose nothing.
    Without --positive and --model, what is not given is as in the last run.
    Training needs scikit-learn (`pip install 'corpus-zh[quality]'`), scoring with --model does not.

    With --shard the command is one job of an array: it scores its share of the documents with the model of --model,
    and a run without --shard with the same flags makes the lists. docs/cluster.md has the scripts.

    \b
    Examples:
      corpus quality --positive wiki2019zh
      corpus quality --positive good.jsonl --field text --dataset webtext2019zh
      corpus quality --positive wiki2019zh --alpha 3
      corpus quality --model ../other/quality/model.safetensors
    """
    from corpus.pipeline.quality import stage
    from corpus.pipeline.quality.config import QualityConfig

    options.run_stage_or_share(stage, QualityConfig, summary=summaries.quality, **settings)
