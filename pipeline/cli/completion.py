"""Completions of options whose values Click does not know: runs of the workspace, datasets and presets.

In: the options typed so far. Out: words; an unreadable workspace gives an empty list.
Cost: a listing of one folder. Nothing heavy is loaded, as the user waits at the prompt.
"""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from corpus.pipeline.cli.options import known_datasets


def runs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The runs below models/, and within one its best model and checkpoints."""
    models = Path(context.params.get("workspace_dir") or "workspace").expanduser() / "models"
    run, inside, _ = incomplete.partition("/")
    try:
        names = (
            [f"{run}/{path.name}" for path in (models / run).iterdir() if _is_model(path)]
            if inside and run
            else [path.name for path in models.iterdir() if path.is_dir()]
        )
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs, or folders where no run has this prefix."""
    found = [CompletionItem(name) for name in runs(context, parameter, incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def tasks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Built-in tasks, or files where none has this prefix."""
    from corpus.pipeline.tasks import TASKS

    found = [CompletionItem(name) for name in TASKS if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and (folder.name == "best" or folder.name.startswith("checkpoint-"))


def datasets(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of datasets, which a weight may follow."""
    return [name for name in known_datasets(context) if name.startswith(incomplete)]


def presets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Presets of `corpus train`, or files where no preset has this prefix."""
    from corpus.train.presets import PRESETS

    found = [CompletionItem(name) for name in PRESETS if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def benchmarks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Built-in tasks and `translation`, or task files where none has this prefix."""
    from corpus.pipeline.tasks import TASKS

    found = [CompletionItem(name) for name in (*TASKS, "translation") if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]
