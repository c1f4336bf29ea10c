"""What the shell is offered after an option, besides what Click knows by itself: the workspace's runs, and presets.

In: the options typed so far. Out: words. Cost: a listing of one folder; nothing heavy is loaded, for the user waits at
the prompt. A workspace that cannot be read offers nothing.
"""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from corpus.pipeline.manifest import DATASETS


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
    """Runs, or any folder where no run begins so."""
    found = [CompletionItem(name) for name in runs(context, parameter, incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def _is_model(folder: Path) -> bool:
    return folder.is_dir() and (folder.name == "best" or folder.name.startswith("checkpoint-"))


def datasets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of datasets, where a weight may follow."""
    return [name for name in DATASETS if name.startswith(incomplete)]


def presets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Sizes of models."""
    from corpus.train.presets import PRESETS  # not for `--help`

    return [name for name in PRESETS if name.startswith(incomplete)]
