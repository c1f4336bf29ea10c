"""Items that a model may have seen: in the task's training items, or in the documents that it was pre-trained on.

In: items, and the run that is measured. Out: the ids of those that stand elsewhere, by where.
Invariants: documents are those of the datasets that the ledger of the run names, and the ledgers of the runs that it
started from: a run is found by the digest of its weights, not by its name.
Cost: that of `corpus.pipeline.tasks.leaks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.tasks import Item, leaks
from corpus.pipeline.workspace.layout import OUTSIDE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, read_ledger


def find(
    items: Sequence[Item], train: Sequence[Item], model: Path, workspace: Workspace, progress: Progress
) -> tuple[dict[str, Sequence[str]], str]:
    """Ids of items by where they stand too, and why documents were not searched; empty where they were, or are none."""
    found: dict[str, Sequence[str]] = {}
    if train:
        found["train"] = list(leaks.within(train, items))
    names, unknown = datasets_of(model, workspace)
    if names:
        try:
            hits = leaks.in_documents(workspace, names, items, progress)
        except WorkspaceError as error:
            return found, error.message
        found[f"documents of {', '.join(names)}"] = list(hits)
    return found, unknown


def datasets_of(model: Path, workspace: Workspace) -> tuple[list[str], str]:
    """Datasets whose documents a model was trained on, and why they are not all known.

    Both are empty for a model that began with random weights.
    """
    folder = model.parent if model.name == "best" else model
    runs = [path.parent for path in sorted(workspace.models.glob(f"*/{LEDGER}"))]
    names: set[str] = set()
    while ledger := read_ledger(folder):
        names.update(leaks.datasets_of(folder))
        begun = {entry.sha256 for entry in ledger.inputs if _is_weights(entry.path)}
        if not begun:
            return sorted(names), ""
        before = next((run for run in runs if _holds(read_ledger(run), begun)), None)
        if before is None:
            break
        folder = before
    return sorted(names), "the run that it started from is not in this workspace"


def _is_weights(path: str) -> bool:
    return path.startswith(OUTSIDE) and path.endswith(".safetensors")


def _holds(ledger: Ledger | None, digests: set[str]) -> bool:
    return ledger is not None and digests <= {entry.sha256 for entry in ledger.outputs}
