"""`corpus tokenizer` and `corpus pack`: from documents to rows of tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import options, summaries
from corpus.pipeline.terminal.console import Console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.share import Share


@click.command()
@options.dataset_option("all that have documents")
@click.option("--vocab-size", type=int, default=32_000, show_default=True, help="Entries, special tokens included.")
@click.option("--sample-characters", type=int, default=40_000_000, show_default=True, help="Characters to train on.")
@options.no_share_option("it trains on a sample of all documents; run it once, before `corpus pack`")
@options.json_option
@options.workspace_option()
def tokenizer(as_json: bool, **settings: Any) -> None:
    """Train the byte-level BPE tokenizer on the documents.

    \b
    Example:
      corpus tokenizer --vocab-size 32000
    """
    from corpus.pipeline.tokenizer import stage

    report = options.run_stage(stage, stage.TokenizerConfig, **settings)
    summaries.closing([report], partial(summaries.tokenizer, report), json_only=as_json)


@click.command()
@options.dataset_option("all that have documents")
@click.option(
    "--form", type=click.Choice(["text", "chat", "ranking"]), default="text", show_default=True,
    help="chat: only documents with a question, as a turn of the user and one of the assistant; ranking: the answers "
    "to one question in order of preference.",
)  # fmt: skip
@click.option("--seq-length", type=int, default=1024, show_default=True, help="Tokens of a row.")
@click.option(
    "--strategy", type=click.Choice(["best-fit", "concat"]), default="best-fit", show_default=True,
    help="best-fit cuts only documents longer than a row; concat cuts wherever a row ends.",
)  # fmt: skip
@click.option(
    "--exclude", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Ids of documents to remove for good, one a line; may be repeated.",
)  # fmt: skip
@click.option(
    "--min-ratio", type=float, metavar="X", help="For ranking: least ratio of two answers' votes.  [default: 1.5]"
)
@click.option("--max-answers", type=int, metavar="N", help="For ranking: most answers of a question.  [default: 9]")
@click.option("--max-pairs", type=int, metavar="N", help="For ranking: most pairs of a question.  [default: 36]")
@click.option("--any-age", is_flag=True, help="For ranking: also pairs whose better answer is the older one.")
@options.share_option
@options.workers_option
@options.json_option
@options.workspace_option()
def pack(as_json: bool, workspace_dir: Path, share: Share | None, **settings: Any) -> None:
    """Tokenize documents and pack them into Arrow shards.

    Trains the tokenizer first where it is missing, on all documents in the workspace.

    Rows of the chat form are written to `chat/`. Each is question and answer between the tokens that
    `corpus sample --chat` uses; training on them predicts the answers alone.

    With --form ranking the answers to one question are compared, by the votes that their records hold, as those of
    webtext2019zh do, or in the order of a record of a manifest of the form `ranking`, and written to `ranking/`. A
    reward model and DPO learn from them; docs/preferences.md says which answers are compared.

    Ids in --exclude files (DATASET:ID, or ID) join the workspace's removal list, exclude.txt. Every later pack leaves
    these documents out, until their lines are deleted from that file. An id that names no document yet stays there for
    documents to come. `corpus inspect` and `corpus trace` show ids.

    With --shard the command is one job of an array: it packs its share of the documents with a tokenizer that is
    there, and a run without --shard then finishes. docs/cluster.md has the scripts.

    \b
    Examples:
      corpus pack --dataset baike2018qa
      corpus pack --exclude takedown.txt
      corpus pack --seq-length 2048 --strategy concat
      corpus pack --form chat --dataset baike2018qa
      corpus pack --form ranking --dataset webtext2019zh
      corpus pack --dataset news2016zh --shard 3/16
    """
    from corpus.pipeline import workflows

    if share is not None and settings["exclude"]:
        raise click.UsageError(
            "--exclude must not stand with --shard: add the ids to exclude.txt in the workspace before the jobs"
        )
    rules = {name: settings.pop(name) for name in ("min_ratio", "max_answers", "max_pairs", "any_age")}
    given = {name: value for name, value in rules.items() if value is not None and value is not False}
    if settings["form"] == "ranking":
        _rankings(workspace_dir, share, given, settings, as_json=as_json)
        return
    if given:
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} must stand with --form ranking")
    if share is not None:
        _share(workspace_dir, share, settings, as_json=as_json)
        return
    with options.usage_errors():
        result = workflows.pack(options.workspace_of(workspace_dir), progress=Console(), **settings)
    reports = [*([result.tokenizer] if result.tokenizer else []), *result.rows]
    chat = settings["form"] == "chat"
    command = "corpus train --objective sft --init RUN" if chat else "corpus train --model tiny"
    then = options.in_workspace(command, workspace_dir)
    then += "   (RUN: a run of corpus train)" if chat else "   (other sizes: corpus train --list-models)"
    summaries.closing(reports, partial(summaries.pack, result.rows, result.tokenizer), json_only=as_json, then=then)


def _share(workspace_dir: Path, share: Share, settings: dict[str, Any], *, as_json: bool) -> None:
    """`--shard`."""
    from corpus.pipeline.workflows import shares

    settings.pop("exclude")
    with options.usage_errors():
        reports = shares.pack(options.workspace_of(workspace_dir), share, progress=Console(), **settings)
    summaries.shares(reports, as_json=as_json)


def _rankings(
    workspace_dir: Path, share: Share | None, rules: dict[str, Any], settings: dict[str, Any], *, as_json: bool
) -> None:
    """`--form ranking`."""
    from corpus.pipeline.workflows import rankings, shares

    if settings.pop("strategy") != "best-fit":
        raise click.UsageError("--strategy must not stand with --form ranking, which fills no rows")
    settings.pop("form")
    if share is not None:
        settings.pop("exclude")
        with options.usage_errors():
            jobs = shares.rankings(options.workspace_of(workspace_dir), share, progress=Console(), **settings, **rules)
        summaries.shares(jobs, as_json=as_json)
        return
    with options.usage_errors():
        result = rankings.pack(options.workspace_of(workspace_dir), progress=Console(), **settings, **rules)
    reports = [*([result.tokenizer] if result.tokenizer else []), *result.rows]
    then = options.in_workspace("corpus train --objective reward --init RUN", workspace_dir)
    shown = partial(summaries.rankings, result.rows, result.tokenizer)
    summaries.closing(reports, shown, json_only=as_json, then=f"{then}   (RUN: a run of corpus train)")
