"""Items that a model may have seen: in the task's training items, or in the documents that it was pre-trained on.

In: items, and the run that is measured. Out: the ids of those that stand elsewhere, by where.
Invariants: texts are compared folded (`corpus.pipeline.text`); documents are searched as `corpus decontaminate` does,
by 13-grams that are verified character by character. The documents are those of the datasets that the ledgers of the
run, and of the runs that it started from, name: a model is found by the digest of its weights, not by its name.
Cost: a pass over the training documents, about a microsecond a character.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from corpus.pipeline.decontaminate.matching import find_hits
from corpus.pipeline.decontaminate.ngram_index import Owner, build_index
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.tasks import Item, Task
from corpus.pipeline.text.normalize import fold_all
from corpus.pipeline.workspace.layout import OUTSIDE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, read_ledger
from corpus.train.evaluation.config import EvaluateConfig
from corpus.train.evaluation.documents import texts_of
from corpus.train.tasks.forms import texts_of as texts_of_item

_SEARCHED = 256
"""Documents that are searched together."""


def find(
    task: Task, items: Sequence[Item], train: Sequence[Item], model: Path, workspace: Workspace, progress: Progress
) -> tuple[dict[str, Sequence[str]], str]:
    """Ids of items by where they stand too, and why documents were not searched; empty where they were, or are none."""
    found: dict[str, Sequence[str]] = {}
    if train:
        found["train"] = in_items(items, train)
    names, unknown = datasets_of(model, workspace)
    if not names:
        return found, unknown
    try:
        found[f"documents of {', '.join(names)}"] = in_documents(task, items, names, model, workspace, progress)
    except WorkspaceError as error:
        unknown = error.message
    return found, unknown


def in_items(items: Sequence[Item], train: Sequence[Item]) -> list[str]:
    """Ids of items whose texts all stand in one training item."""
    known = set(_folded(train))
    return [item.id for item, key in zip(items, _folded(items), strict=True) if key in known]


def in_documents(
    task: Task, items: Sequence[Item], names: Sequence[str], model: Path, workspace: Workspace, progress: Progress
) -> list[str]:
    """Ids of items of which a text stands in a training document of these datasets.

    Raises:
        WorkspaceError: a dataset has no documents in the workspace.

    """
    index = build_index(
        (Owner(task.name, number, str(place)), text)
        for number, item in enumerate(items)
        for place, text in enumerate(texts_of_item(item))
    )
    hit: set[int] = set()
    for texts in texts_of(EvaluateConfig(model=model, datasets=tuple(names), split="train"), workspace, progress):
        with progress.bar(f"searching {texts.dataset}", texts.count, "documents"):
            for batch in _batches(texts.read()):
                for match in find_hits(index, batch):
                    hit.update(owner.item for owner in index.owners[match.passage])
                progress.advance(len(batch))
    return [item.id for number, item in enumerate(items) if number in hit]


def datasets_of(model: Path, workspace: Workspace) -> tuple[list[str], str]:
    """Datasets whose documents a model was trained on, and why they are not known.

    Both are empty for a model that began with random weights.
    """
    ledger = read_ledger(model.parent if model.name == "best" else model)
    runs = [found for path in sorted(workspace.models.glob(f"*/{LEDGER}")) if (found := read_ledger(path.parent))]
    names: set[str] = set()
    while ledger is not None:
        paths = [PurePosixPath(entry.path).parts for entry in ledger.inputs]
        names |= {parts[1] for parts in paths if len(parts) == 3 and parts[0] in {"packed", "chat"}}
        begun = {entry.sha256 for entry in ledger.inputs if _is_weights(entry.path)}
        if not begun:
            return sorted(names), ""
        ledger = next((each for each in runs if _holds(each, begun)), None)
    why = "the run that it started from is not in this workspace"
    return sorted(names), why


def _is_weights(path: str) -> bool:
    return path.startswith(OUTSIDE) and path.endswith(".safetensors")


def _holds(ledger: Ledger, digests: set[str]) -> bool:
    return digests <= {entry.sha256 for entry in ledger.outputs}


def _folded(items: Sequence[Item]) -> list[tuple[bytes, ...]]:
    """The texts of each item folded; the options in any order."""
    texts = [texts_of_item(item) for item in items]
    folded = fold_all([text for each in texts for text in each])
    pieces = iter(folded.codes[begin:end].tobytes() for begin, end in itertools.pairwise(folded.starts.tolist()))
    made = [[next(pieces) for _ in each] for each in texts]
    return [
        (*each[: len(item.texts)], *sorted(each[len(item.texts) :])) for item, each in zip(items, made, strict=True)
    ]


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, _SEARCHED)):
        yield batch
