"""Options that several commands take, and what turns flags into a workspace, a configuration or a model's folder."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from corpus.pipeline.cli import workspace_url
from corpus.pipeline.manifest import DATASETS
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.pipeline.workspace.ledger import Report
    from corpus.pipeline.workspace.share import Share

    TextType = click.ParamType[str]
else:
    TextType = click.ParamType  # click before 8.4 takes no parameter

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class NamedPath(click.Path):
    """A path; an empty name is refused, as a shell gives it for an unset variable."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; fails on an empty name."""
        if not str(value):
            flag = f" {param.opts[0]}" if param else ""
            self.fail(f"the name is empty; for the current folder type{flag} .", param, ctx)
        return super().convert(value, param, ctx)


class _WorkspaceFolder(NamedPath):
    """A folder that is there or can be made."""

    def __init__(self) -> None:
        super().__init__(file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, of a URL that of its working copy; fails on an empty name, on a file and on a link to nothing."""
        if isinstance(value, str) and workspace_url.is_url(value):
            return workspace_url.open_url(value)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        link = path.expanduser()
        with contextlib.suppress(OSError):  # a path that cannot be looked at is named when it is used
            if link.is_symlink() and not link.exists():
                self.fail(f"{path} is a link to {link.readlink()}, which is not there", param, ctx)
        return path


def workspace_option(default: str = "workspace") -> Callable[[F], F]:
    """`--workspace`, which every command takes."""
    return click.option(
        "--workspace",
        "workspace_dir",
        type=_WorkspaceFolder(),
        envvar="CORPUS_WORKSPACE" if default == "workspace" else None,
        default=default,
        show_default=True,
        metavar="DIR",
        is_eager=True,  # so that --dataset knows the datasets of the workspace
        help="A folder or URL with everything" + (" (or CORPUS_WORKSPACE)." if default == "workspace" else "."),
    )


class DatasetName(TextType):
    """The name of a dataset, built-in or with a manifest in the workspace."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a name that no dataset has."""
        if value in DATASETS:
            return value  # without a look at the workspace
        known = known_datasets(ctx)
        if value not in known:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, known))}.", param, ctx)
        return value

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # the signature is click's
        incomplete: str,
    ) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in known_datasets(ctx) if name.startswith(incomplete)]


def known_datasets(context: click.Context | None) -> tuple[str, ...]:
    """Names of all datasets of the command's workspace, and of the manifests that the command was given."""
    values = context.params if context else {}
    folder = values.get("workspace_dir")
    given = [name for path in values.get("manifests") or () for name in _names_in(path)]
    if folder is None:
        return (*DATASETS, *given)
    from corpus.pipeline.workspace.layout import Workspace

    if not (context and context.resilient_parsing):
        workspace_url.refresh(folder)
    return (*Workspace(folder.expanduser()).datasets(), *given)


def _names_in(path: Path) -> Iterator[str]:
    from corpus.pipeline.errors import ManifestError
    from corpus.pipeline.manifest import parse_file

    with contextlib.suppress(ManifestError):  # the command itself says what is wrong
        yield parse_file(path).name


def dataset_option(default: str) -> Callable[[F], F]:
    """`--dataset`, repeatable."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        type=DatasetName(),
        metavar="NAME",
        help=f"Dataset; may be repeated.  [default: {default}]",
    )


workers_option = click.option(
    "--workers", type=int, default=0, show_default="one for each core", help="Worker processes; the result is the same."
)
manifest_option = click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    is_eager=True,
    help="Manifest of a dataset of your own, see `corpus manifest init`; may be repeated.",
)
source_option = click.option(
    "--source",
    metavar="DIR|URL",
    help="Where the archives are: a folder, a URL, one archive, or a folder of unpacked files.  [default: the mirrors]",
)
min_length_option = click.option(
    "--min-length", type=int, metavar="N", help="Shortest document kept, in characters.  [default: the manifest's]"
)
no_rule_option = click.option(
    "--no-rule", "off", multiple=True, metavar="RULE", help="Switch off a filter rule; may be repeated."
)
mask_option = click.option(
    "--mask/--no-mask", default=True, show_default=True, help="Replace personal data by placeholders such as [手机号]."
)
against_option = click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Evaluation set to leave out: JSON Lines, CSV, Parquet or text; may be repeated.",
)


class ShareType(TextType):
    """A share of the pieces, `I/N`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The share; fails on anything else."""
        from corpus.pipeline.workspace.share import Share

        if isinstance(value, Share):
            return value
        try:
            return Share.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


share_option = click.option(
    "--shard", "share", type=ShareType(), metavar="I/N",
    help="Make the I-th of N shares of the pieces alone, beside other jobs; a run without --shard then finishes.",
)  # fmt: skip


def no_share_option(reason: str) -> Callable[[F], F]:
    """`--shard` of a command that cannot be shared, which refuses it with the reason."""

    def refuse(_context: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"--shard must not stand here: {reason}")

    return click.option("--shard", hidden=True, expose_value=False, callback=refuse)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def typed(word: str) -> str:
    """A word as one types it into a shell: in quotes only where it needs them.

    >>> typed("你好"), typed("a b"), typed("$x")
    ('你好', "'a b'", "'$x'")
    """
    return shlex.quote(word) if not word or re.search(r"[^\w./:=,@%+-]", word) else word


def workspace_of(folder: Path) -> Workspace:
    """The workspace that `--workspace` names; its new digests are saved when the command ends."""
    workspace = workspace_url.opened(folder)
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(workspace.save_digests)
    return workspace


def in_workspace(command: str, folder: Path) -> str:
    """A command as one types it for a workspace: with --workspace, unless that is the one taken without it."""
    place = workspace_url.shown(folder)
    usual = os.environ.get("CORPUS_WORKSPACE") or "workspace"
    return command if place == str(Path(usual)) or place == usual else f"{command} --workspace {typed(place)}"


def tell_behind(workspace: Workspace) -> None:
    """Say which rows do not follow the removal list yet."""
    from corpus.pipeline.workflows import report_outdated_rows

    report_outdated_rows(workspace, console.Console())


def config_of(kind: Callable[..., T], **values: Any) -> T:
    """A stage's configuration; a value that it refuses is wrong usage."""
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def run_stage(
    stage: Any, kind: Callable[..., Any], workspace_dir: Path, *, datasets: Sequence[str], **settings: Any
) -> Report:
    """Run the stage of a module on the workspace, with a configuration of this kind."""
    workspace = workspace_of(workspace_dir)
    config = config_of(kind, datasets=tuple(dict.fromkeys(datasets)), **settings)
    with workspace.writing(stage.STAGE):
        report: Report = stage.run(config, workspace, progress=console.Console())
    return report


def run_stage_or_share(
    stage: Any, kind: Callable[..., Any], workspace_dir: Path, share: Share | None, *,
    summary: Callable[[Report], None], as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Run the stage of a module on the workspace, or a share of it, and print what it did."""
    from corpus.pipeline.cli import summaries

    if share is None:
        report = run_stage(stage, kind, workspace_dir, **settings)
        summaries.closing([report], lambda: summary(report), json_only=as_json)
        return
    from corpus.pipeline.workflows import shares

    workspace = workspace_of(workspace_dir)
    config = config_of(kind, **(settings | {"datasets": tuple(dict.fromkeys(settings["datasets"]))}))
    with usage_errors():
        made = getattr(shares, stage.STAGE)(workspace, share, config, progress=console.Console())
    summaries.shares([made], as_json=as_json)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """An argument that a workflow refuses is wrong usage."""
    from corpus.pipeline.workflows import UsageError

    try:
        yield
    except UsageError as error:
        raise click.UsageError(str(error)) from error


@contextlib.contextmanager
def nothing_to_resume() -> Iterator[None]:
    """Ctrl-C ends the command without the advice to run it again: it would begin anew."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("\nInterrupted.", file=sys.stderr)
        raise click.exceptions.Exit(130) from error


def _is_reward(path: Path) -> bool:
    """Whether a config.json is that of a reward model."""
    import json

    from corpus.pipeline.workspace.layout import REWARD_SHIFT

    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):  # of a damaged model, which its reader names
        return False
    return isinstance(config, dict) and REWARD_SHIFT in config


def model_folder(
    workspace: Workspace, model: str | None, flag: str = "--model", *, of_task: bool | None = None
) -> Path:  # fmt: skip
    """The folder that a flag names: a run of the workspace, any folder, or the newest finished run.

    The newest run is one that was fine-tuned on a task where `of_task`; where it is False, one that was not, and no
    reward model.
    """
    from corpus.pipeline.errors import ModelError
    from corpus.pipeline.workspace.checked import bring_model
    from corpus.pipeline.workspace.layout import TASK_MODEL
    from corpus.pipeline.workspace.ledger import LEDGER

    if model == "":
        raise click.UsageError(f"{flag} must not be empty")
    if model is not None:
        named = workspace.models / model
        folder = named if named.is_dir() else Path(model).expanduser()
        if folder.exists():
            return bring_model(workspace, folder)
        runs = sorted(path.name for path in workspace.models.glob("*") if path.is_dir())
        known = f"Give {flag} one of the runs {', '.join(runs)}, or a model's folder."
        raise ModelError(
            f"there is no run {model} in {workspace.models}, and no folder of this name",
            hint=known if runs else "There is no run yet.",
        )
    finished = sorted(workspace.models.glob(f"*/{LEDGER}"), key=lambda path: path.stat().st_mtime_ns)
    if of_task is not None:
        finished = [path for path in finished if path.with_name(TASK_MODEL).exists() == of_task]
    if of_task is False:
        finished = [path for path in finished if not _is_reward(path.with_name("config.json"))]
    if not finished:
        kind, needed = (" of a task", " --objective task") if of_task else ("", "")
        raise ModelError(
            f"{workspace.models} holds no finished model{kind}",
            hint=f"Run `corpus train{needed}` first, or name one with --model DIR.",
        )
    return bring_model(workspace, finished[-1].parent)
