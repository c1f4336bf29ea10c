"""`corpus export`: the used documents as files of another trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from corpus.pipeline.cli import options, summaries
from corpus.pipeline.manifest import SPLITS

_FORMATS = ("nanogpt", "llmc", "megatron", "mds", "jsonl", "parquet")


@click.command()
@click.argument("place", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--format", required=True, type=click.Choice(_FORMATS),
    help="Token ids for nanoGPT, llm.c, Megatron-LM or MosaicML streaming; or text.",
)  # fmt: skip
@options.dataset_option("all that have documents")
@click.option("--split", "splits", multiple=True, type=click.Choice(SPLITS), help="May be repeated.  [default: all]")
@click.option(
    "--form", type=click.Choice(["text", "chat"]), default="text", show_default=True,
    help="chat: only documents with a question, as messages; for jsonl and parquet.",
)  # fmt: skip
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def export(**settings: Any) -> None:
    """Write the used documents for another trainer into FOLDER.

    These are the documents that rows are made of: cleaned, without duplicates, evaluation items and those on the
    removal list. Formats of tokens hold them in order, encoded with the workspace's tokenizer, with <|endoftext|>
    after each.

    Beside them FOLDER gets lineage/, where each document of each file is named, a README.md with the sources and
    rights, and a ledger. docs/export.md shows how to start each trainer from it.

    With --shard the command is one job of an array: it writes its share of the pieces into FOLDER/pieces/, and a run
    without --shard puts them together. docs/cluster.md has the scripts.

    \b
    Examples:
      corpus export --format nanogpt ../nanoGPT/data/corpus_zh
      corpus export --format megatron --dataset wiki2019zh exported
      corpus export --format parquet --split train for-the-hub
      corpus export --format jsonl --form chat --dataset baike2018qa messages
    """
    from corpus.pipeline.export import stage

    options.run_stage_or_share(stage, stage.ExportConfig, summary=summaries.export, **settings)
