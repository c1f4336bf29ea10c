"""`corpus report`, one page about the workspace, and `corpus card`, the data cards beside the rows."""

from __future__ import annotations

from pathlib import Path

import click

from corpus.pipeline.cli.options import dataset_option, workspace_of, workspace_option
from corpus.pipeline.cli.workspace_url import sending
from corpus.pipeline.humanize import size_text
from corpus.pipeline.terminal import console


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed shows other documents and rows.")
@workspace_option()
def report(seed: int, workspace_dir: Path) -> None:
    """Write a page about the workspace: report/index.html.

    Each dataset from records to tokens, what was dropped and why, lengths and characters, duplicates,
    evaluation items, documents before and after, the tokenizer with a box to try it, packed rows and training runs.
    Figures come from the ledgers; pictures and texts from a seeded sample, so it takes seconds whatever the corpus.
    The page is one file, needs no network, and can be written while another command runs.

    \b
    Examples:
      corpus report
      corpus report --seed 2 --workspace demo-workspace
    """
    from corpus.pipeline.report import build
    from corpus.pipeline.workspace.checked import bring_all
    from corpus.pipeline.workspace.remote import shown

    workspace, progress = workspace_of(workspace_dir), console.Console()
    bring_all(workspace, ("documents", "dedup", "decontaminate", "quality", "packed", "chat"), progress)
    with sending(workspace_dir, "report"):
        path = build.run(workspace, seed=seed, progress=progress)
    console.line(f"report: {shown(path)} ({size_text(path.stat().st_size)})")
    console.line("It shows texts of the corpora: check it before you share it.")


@click.command()
@dataset_option("all that are packed")
@workspace_option()
def card(datasets: tuple[str, ...], workspace_dir: Path) -> None:
    """Write README.md and croissant.json beside packed rows.

    These data cards state sources and rights, rules with what they dropped and changed, splits, tokenizer, known
    defects, digests of all ledgers, how to rebuild the rows and how to have a document removed. `corpus pack` also
    writes them; `corpus train` writes a model's card.

    \b
    Example:
      corpus card --dataset baike2018qa
    """
    from corpus.pipeline.pack import dataset_card

    workspace = workspace_of(workspace_dir)
    with workspace.writing("card"):
        for path in dataset_card.run(workspace, tuple(dict.fromkeys(datasets))):
            console.line(f"card: {path}")
