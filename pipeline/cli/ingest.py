"""`corpus download`, `clean`, `ingest`, `dedup` and `decontaminate`: from archives to the documents that are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from corpus.pipeline.cli import summaries
from corpus.pipeline.cli.options import (
    against_option,
    config_of,
    dataset_option,
    json_option,
    mask_option,
    min_length_option,
    no_rule_option,
    source_option,
    usage_errors,
    workers_option,
    workspace_of,
    workspace_option,
)
from corpus.pipeline.terminal.console import Console


@click.command()
@dataset_option("the five corpora, or those found at --source")
@source_option
@json_option
@workspace_option()
def download(datasets: tuple[str, ...], source: str | None, as_json: bool, workspace_dir: Path) -> None:
    """Fetch archives from mirrors or from --source.

    \b
    Examples:
      corpus download --dataset wiki2019zh
      corpus download --source ~/Downloads
    """
    from corpus.pipeline import workflows

    with usage_errors():
        reports = workflows.download(workspace_of(workspace_dir), datasets=datasets, source=source, progress=Console())
    if as_json:
        summaries.as_json(reports)
    else:
        summaries.download(reports)


@click.command()
@dataset_option("all that are downloaded")
@min_length_option
@no_rule_option
@mask_option
@workers_option
@json_option
@workspace_option()
def clean(datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Turn records into documents: read, clean, mask, filter.

    \b
    Example:
      corpus clean --dataset baike2018qa --min-length 20
    """
    from corpus.pipeline import workflows

    with usage_errors():
        reports = workflows.clean(workspace_of(workspace_dir), datasets=datasets, progress=Console(), **settings)
    if as_json:
        summaries.as_json(reports)
    else:
        summaries.ingest(reports)


@click.command()
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
def ingest(as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Download, clean, filter and deduplicate, in one command.

    Dropped records go to documents/NAME/rejected/ with the reason; the ledger counts them. Duplicates within and
    across datasets, and documents that hold items of the evaluation sets, stay in documents/; dedup/ and
    decontaminate/ list them, and no later command uses them. Official splits are kept; wiki2019zh has no splits, so
    0.5 % of it goes to validation.

    \b
    Examples:
      corpus ingest --dataset baike2018qa
      corpus ingest --source ~/Downloads
      corpus ingest --dataset wiki2019zh --source https://example.org/corpora/ --min-length 64
      corpus ingest --against ceval.jsonl --against cmmlu.csv --no-rule little_han
    """
    from corpus.pipeline import workflows

    with usage_errors():
        result = workflows.ingest(workspace_of(workspace_dir), progress=Console(), **settings)
    if as_json:
        summaries.as_json([*result.documents, *result.lists], result.left_out)
    else:
        summaries.ingest(result.documents, result.left_out, result.lists)


@click.command()
@dataset_option("all that have documents")
@click.option("--near/--no-near", default=True, show_default=True, help="Also find near duplicates.")
@click.option(
    "--threshold",
    type=float,
    default=0.8,
    show_default=True,
    help="Least similarity of near duplicates (Jaccard, 5-shingles).",
)
@workers_option
@json_option
@workspace_option()
def dedup(datasets: tuple[str, ...], as_json: bool, workspace_dir: Path, **settings: Any) -> None:
    """Find duplicate documents, within and across datasets.

    Script, width, punctuation and blanks do not count. One document of each group is kept: one of the test split,
    else of validation, else the first in the order of datasets, files and records. dedup/NAME.parquet lists the
    others, and no later command uses them.

    \b
    Examples:
      corpus dedup
      corpus dedup --threshold 0.9
    """
    from corpus.pipeline.dedup import stage

    workspace = workspace_of(workspace_dir)
    config = config_of(stage.DedupConfig, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing("dedup"):
        report = stage.run(config, workspace, progress=Console())
    if as_json:
        summaries.as_json([report])
    else:
        summaries.dedup(report)


@click.command()
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

    Compares spans of 13 characters; script, width, punctuation and blanks do not count. decontaminate/NAME.parquet
    lists the documents with the item and the shared span, and no later command uses them. The workspace keeps the
    sets: without --against, those given before are used.

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
        report = stage.run(config, workspace, progress=Console())
    if as_json:
        summaries.as_json([report])
    else:
        summaries.decontaminate(report)
