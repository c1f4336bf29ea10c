"""`corpus push`: a finished folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpus.pipeline.cli import options
from corpus.pipeline.humanize import size_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.hub import Push
    from corpus.pipeline.workspace.layout import Workspace

_SHOWN = 12


@click.command()
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository; created if it is missing.")
@click.option(
    "--what", required=True, type=click.Choice(["documents", "rows", "model", "tokenizer"]),
    help="An export, packed rows, a trained model, or the tokenizer.",
)  # fmt: skip
@click.option(
    "--export", "exported", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="With documents: the folder that `corpus export` wrote.",
)  # fmt: skip
@click.option("--dataset", type=options.DatasetName(), metavar="NAME", help="With rows: the dataset.")
@click.option(
    "--form", type=click.Choice(["text", "chat"]), default="text", show_default=True, help="With rows: their form."
)
@click.option("--model", metavar="RUN|DIR", help="With model: a run or a folder.  [default: the newest run]")
@click.option("--public", is_flag=True, help="A repository that is created now can be seen by everyone.")
@click.option("--upload", is_flag=True, help="Send it. Without this, nothing is sent.")
@click.option("--accept-licence", is_flag=True, help="You have read the rights that are shown, and may publish this.")
@options.workspace_option()
def push(
    repo: str, what: str, exported: Path | None, dataset: str | None, form: str, model: str | None, public: bool,
    upload: bool, accept_licence: bool, workspace_dir: Path,
) -> None:  # fmt: skip
    """Send an export, rows or a model to the Hugging Face hub.

    Without --upload it shows what would be sent, with the licences and what is open about them, and sends nothing.
    The rights in most texts are not settled: whether you may publish them is yours to answer, with --accept-licence.

    Files are compared with their ledger, then sent as one commit with their card. Another push to the same repository
    replaces what the last one sent; other files there stay. The token is that of `hf auth login`, or HF_TOKEN.

    \b
    Examples:
      corpus push --repo me/clean-wiki --what documents --export for-the-hub
      corpus push --repo me/baike-rows --what rows --dataset baike2018qa
      corpus push --repo me/tiny-zh --what model --model first --upload --accept-licence
    """
    from corpus.pipeline import hub

    if upload and not accept_licence:
        raise click.UsageError("--upload needs --accept-licence, too: run without --upload to read the rights")
    workspace = options.workspace_of(workspace_dir)
    folder = _folder(workspace, what, exported, dataset, form, model)
    config = options.config_of(hub.PushConfig, repo=repo, what=what, folder=folder, public=public)
    if not upload:
        _show(hub.plan(config, workspace))
        console.line("Nothing was sent. To send it, add --upload --accept-licence.")
        return
    with workspace.writing("push"):
        found = hub.plan(config, workspace)
        _show(found)
        console.line(f"pushed: {hub.upload(found, progress=console.Console())}")


def _folder(
    workspace: Workspace, what: str, exported: Path | None, dataset: str | None, form: str, model: str | None
) -> Path:
    """The folder that the options name."""
    if what == "documents":
        if exported is None:
            raise click.UsageError("--what documents needs --export FOLDER: make one with `corpus export`")
        return exported.expanduser()
    if what == "rows":
        if dataset is None:
            raise click.UsageError("--what rows needs --dataset NAME")
        return workspace.packed(dataset, form)
    return workspace.tokenizer if what == "tokenizer" else options.model_folder(workspace, model)


def _show(found: Push) -> None:
    """What would be sent, and with which rights."""
    from corpus.pipeline.hub.push import rights

    shown = [(name, size_text(size)) for name, size in found.files[:_SHOWN]]
    console.table(("file", "size"), shown)
    if len(found.files) > _SHOWN:
        console.line(f"... and {len(found.files) - _SHOWN:,} more")
    seen = "public" if found.public else "private"
    console.line(f"from: {found.folder}")
    console.line(f"to: {found.repo}, a {found.kind} repository ({seen} if it is new): {size_text(found.bytes)}")
    for names, text in rights(found.datasets):
        console.line(f"{names}: {text}")
