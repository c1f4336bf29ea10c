"""`corpus demo`: every stage on the built-in dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpus.pipeline.cli import summaries
from corpus.pipeline.cli.options import usage_errors, workspace_of, workspace_option
from corpus.pipeline.cli.sample import ending
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workflows import IngestResult, PackResult
    from corpus.pipeline.workspace.ledger import Report


@click.command()
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Training steps; more is better and slower.",
)
@workspace_option("demo-workspace")
def demo(max_steps: int, workspace_dir: Path) -> None:
    """Go the whole way on the built-in dataset, on a CPU.

    About 220 records in the five corpora's formats, written for this purpose: ingest, tokenizer, rows, a tiny
    GPT, and two samples. A model this small memorises its texts; it shows the way, not what a model can do.

    \b
    Example:
      corpus demo
    """
    from corpus.pipeline import workflows

    workspace = workspace_of(workspace_dir)
    progress = console.Console()
    console.write("1. Records become documents")
    with usage_errors():
        result = workflows.demo(workspace, max_steps=max_steps, progress=progress, on_result=_show)
    for sample in result.samples:
        console.write(sample.prompt + sample.text)
        progress.say(ending(sample.finish, sample.seed))
    console.write(f"\nTo see all of it as a page: corpus report --workspace {workspace.root}")


def _show(result: IngestResult | PackResult | Report) -> None:
    """Print the closing table of a stage, and the heading of the next one."""
    from corpus.pipeline.workflows import IngestResult, PackResult

    if isinstance(result, IngestResult):
        summaries.ingest(result.documents, result.left_out, result.lists)
        console.write("\n2. Documents become rows of tokens")
    elif isinstance(result, PackResult):
        summaries.pack(result.rows, result.tokenizer)
        console.write("\n3. Rows train a GPT")
    else:
        summaries.losses(result.folder)
        summaries.train(result)
        console.write("\n4. The GPT answers a question it has seen, and continues an article")
